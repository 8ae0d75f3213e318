"""The tables and plots of docs/scaling.md, out of what scaling.py measured and the model says."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import _plots
from _common import show
from _scaling_calls import TASKS_US
from _scaling_model import Case, Costs, Result, bounds, least_task, most_workers, simulate

WORKERS = (1, 2, 8, 64, 256)
#: Ways to call, by what scaling.py calls their costs.
STYLES = {
    "by_submit": "`submit`, then await",
    "by_map": "`async for … in map`",
    "by_run": "`await run` in busy coroutines",
    "by_gather": "`gather` of thousands of `run`",
}
#: Microseconds for a cache line from core to core, one way; docs/scaling.md has the sources.
MACHINES = {
    "one group of 8 cores with its own cache": 0.025,
    "one socket, 32 Intel cores": 0.05,
    "one socket, 64 AMD cores, across groups": 0.11,
    "two sockets": 0.2,
    "two sockets, the slow ones": 0.3,
}


@dataclass(frozen=True)
class Measured:
    """What scaling.py has written."""

    raw: dict[str, Any]

    @property
    def counts(self) -> list[str]:
        """On how many processors it was measured."""
        return sorted(self.raw["core"], key=int)

    def calls(self, count: str, loop: str = "asyncio") -> dict[str, float]:
        """Return what calls cost, in microseconds."""
        found: dict[str, float] = self.raw["costs"][count][loop]
        return found

    def costs(self, count: str, style: str = "by_run", loop: str = "asyncio") -> Costs:
        """Return what the model needs, on so many processors.

        Waking costs what it costs there. What else a call costs is taken from where there are most
        processors: on one, no measure of a call is free of the waking of threads, which the
        simulation adds itself.
        """
        most = self.counts[-1]
        calls = self.calls(most, loop)
        inside, core = (
            {
                name.removesuffix("_ns"): (nanoseconds or 0.0) / 1e3
                for name, nanoseconds in self.raw["core"][cores].items()
            }
            for cores in (most, count)
        )
        # What a style costs beyond the bare call is partly before it, partly after it.
        extra = (calls[style] - calls["submit_none"] - calls["deliver_none"]) / 2
        costs = Costs(
            submit=calls["submit_none"] + extra,
            deliver=calls["deliver_none"] + extra,
            turn=max(0.0, calls["by_run_awake"] - calls["by_run"] - calls["worker_none"]),
            round=max(0.0, calls["by_run_alone"] - calls["by_run"]),
            worker=calls["worker_none"],
            push=inside["push"],
            pop=inside["pop"],
            hand_over=inside["hand_over"],
            futex_wait=core["futex_wait_again"],
            futex_wake=core["futex_wake_none"],
            unpark=core["unpark"],
            # Both were measured from the beginning of the call.
            unpark_latency=max(0.0, core["unpark_latency"] - core["unpark"]),
            signal=core["signal"],
            signal_latency=max(0.0, core["signal_latency"] - core["signal"]),
        )
        return costs if count == most else replace(costs, hand_over=0.0)

    @cached_property
    def here(self) -> Costs:
        """The costs on as many processors as there are: what is extrapolated from."""
        return self.costs(self.counts[-1])


# ---- formatting ----


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Two or three digits that count."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def time(microseconds: float) -> str:
    """A time with its unit."""
    for unit, size in (("s", 1e6), ("ms", 1e3), ("us", 1.0)):
        if microseconds >= size:
            return f"{microseconds / size:.3g} {unit}"
    return f"{microseconds * 1e3:.0f} ns" if microseconds else "0"


def rate(per_second: float) -> str:
    """Calls per second."""
    for unit, size in (("M/s", 1e6), ("k/s", 1e3)):
        if per_second >= size * 0.9995:
            return f"{per_second / size:.3g} {unit}"
    return f"{per_second:.3g}/s"


def percent(share: float) -> str:
    """A share of one."""
    return f"{min(share, 1) * 100:.0f} %"


# ---- tables ----


def calls_table(measured: Measured) -> str:
    """What a call costs on either side."""
    names = {
        "the loop: submit, no argument": "submit_none",
        "the loop: deliver, no result": "deliver_none",
        "the worker: everything around the function": "worker_none",
        "the loop: submit, small dict": "submit_small",
        "the loop: deliver, small dict": "deliver_small",
        "the worker, small dict": "worker_small",
        **{f"the loop, in all: {text}": name for name, text in STYLES.items()},
        "the loop, in all: `await run`, one by one": "by_run_awake",
        "the loop, in all: `await run`, one by one, 200 us each": "by_run_alone",
    }
    sides = [(count, loop) for count in measured.counts for loop in measured.raw["costs"][count]]
    return table(
        ["us of CPU time per call", *(f"{plural(count)}, {loop}" for count, loop in sides)],
        [
            [text, *(f"{measured.calls(*side)[name]:.2f}" for side in sides)]
            for text, name in names.items()
        ],
    )


def plural(count: str) -> str:
    """So many cores."""
    return "1 core" if count == "1" else f"{count} cores"


def core_table(measured: Measured) -> str:
    """What the core's parts cost."""
    names = {
        "queue: push, alone": "push_ns",
        "queue: pop, alone": "pop_ns",
        "queue: push, every us, while one thread pops": "fed_1_push_ns",
        "queue: push, every us, while two threads pop": "fed_2_push_ns",
        "queue: push, every us, while four threads pop": "fed_4_push_ns",
        "mailbox: post, alone": "post_ns",
        "mailbox: take, per item": "take_ns",
        "a cache line from core to core": "hand_over_ns",
        "wake a parked worker: the call": "unpark_ns",
        "wake a parked worker: from the call until it runs": "unpark_latency_ns",
        "wake a loop by eventfd: the call": "signal_ns",
        "wake a loop by eventfd: from the call until it runs": "signal_latency_ns",
        "futex call without effect: wake": "futex_wake_none_ns",
        "futex call without effect: wait": "futex_wait_again_ns",
        "lock, unlock, 1 us of work: one thread": "lock_alone_ns",
        "lock, unlock, 1 us of work: each of two threads": "lock_contended_ns",
        "the same with an adaptive mutex": "lock_adaptive_ns",
    }
    cores = [measured.raw["core"][count] for count in measured.counts]
    rows = [
        [text, *("" if each[name] is None else f"{each[name]:,.0f}" for each in cores)]
        for text, name in names.items()
    ]
    return table(["ns", *map(plural, measured.counts)], rows)


def reach_table(measured: Measured) -> str:
    """How many workers one loop keeps busy."""
    costs = {style: measured.costs(measured.counts[-1], style) for style in STYLES}
    tasks = [task for task in TASKS_US if task]
    wanted = [8, 64, 256]
    rows = [
        [
            STYLES[style],
            f"{each.loop:.2f} us",
            rate(1e6 / each.loop),
            *(number(most_workers(each, task)) for task in tasks),
            *(time(least_task(each, workers)) for workers in wanted),
        ]
        for style, each in costs.items()
    ]
    return table(
        [
            "",
            "loop per call",
            "calls at most",
            *(f"workers at {time(task)}" for task in tasks),
            *(f"least task for {workers}" for workers in wanted),
        ],
        rows,
    )


def grid(measured: Measured, show_cell: Callable[[Result, Case], str], **options: Any) -> str:
    """A table of simulated cases: workers by tasks."""
    rows = []
    for workers in WORKERS:
        cells = []
        for task in TASKS_US:
            case = Case(workers, task, **options)
            cells.append(show_cell(simulate(measured.here, case), case))
        rows.append([str(workers), *cells])
    return table(["workers", *(f"tasks of {time(task)}" for task in TASKS_US)], rows)


def simulated_table(measured: Measured) -> str:
    """Throughput, and how busy workers and loop are."""
    return grid(
        measured,
        lambda result, case: (
            f"{rate(result.rate)}; {percent(result.worker_use)}; {percent(result.loop_use)}"
        ),
    )


def latency_table(measured: Measured) -> str:
    """From submit to delivery."""
    return grid(
        measured,
        lambda result, case: f"{time(result.p50)}; {time(result.p99)}",
        exponential=True,
    )


def predict(measured: Measured, count: str, case: dict[str, Any]) -> tuple[float, Result]:
    """What paper and simulation say of a measured case."""
    costs = measured.costs(count)
    asked = Case(case["workers"], case["task_us"], cores=int(count))
    return min(bounds(costs, asked).values()), simulate(costs, asked)


def checked_table(measured: Measured, count: str) -> str:
    """Predicted and measured."""
    rows = []
    for case in measured.raw["closed"][count]:
        paper, result = predict(measured, count, case)
        rows.append(
            [
                str(case["workers"]),
                time(case["task_us"]),
                rate(case["rate"]),
                rate(paper),
                f"{case['rate'] / paper:.2f}",
                rate(result.rate),
                f"**{case['rate'] / result.rate:.2f}**",
                f"{percent(case['loop_use'])}; {percent(result.loop_use)}",
                f"{time(case['p50'])}; {time(result.p50)}",
            ]
        )
    header = ["workers", "task", "measured", "on paper", "measured / paper", "simulated"]
    header += ["measured / simulated", "loop busy: measured; simulated", "p50: measured; simulated"]
    return table(header, rows)


def elsewhere_table(measured: Measured) -> str:
    """What slower lines do to one loop, and what the lock could carry."""
    rows = []
    for name, hand_over in {"here": measured.here.hand_over, **MACHINES}.items():
        costs = measured.here.elsewhere(hand_over)
        bare = measured.costs(measured.counts[-1], "by_submit").elsewhere(hand_over)
        lock = 1e6 / (costs.push_hold + costs.pop_hold)
        rows.append(
            [
                name,
                f"{hand_over * 1e3:.0f} ns",
                f"{costs.loop:.2f} us",
                rate(1e6 / costs.loop),
                rate(1e6 / bare.loop),
                rate(lock),
                f"{lock * costs.loop / 1e6:.1f}",
                f"{lock * bare.loop / 1e6:.1f}",
            ]
        )
    header = ["machine", "line", "loop per `run`", "one loop: `run`", "one loop: `submit`"]
    header += ["the queue's lock", "loops it takes to fill it: `run`", "`submit`"]
    return table(header, rows)


#: What could stand in place of one queue behind one lock.
VARIANTS: dict[str, dict[str, Any]] = {
    "one queue, as it is": {},
    "one queue, a lock that spins": {"spinning_lock": True},
    "a queue for each 16 workers": {"queues": 4},
    "a queue for each worker": {"queues": 64},
}


def queues_table(measured: Measured) -> str:
    """Several loops, 64 workers, tasks of 10 us: what the queue makes of it."""
    rows = []
    loops = (1, 2, 4, 8, 16)
    for hand_over in (0.11, 0.3):
        costs = measured.costs(measured.counts[-1], "by_submit").elsewhere(hand_over)
        for name, options in VARIANTS.items():
            cells = []
            for count in loops:
                case = Case(64, 10, in_flight=64 * count, loops=count, **options)
                result = simulate(costs, case, calls=20_000)
                cells.append(f"{rate(result.rate)} ({percent(result.contended)})")
            rows.append([f"{hand_over * 1e3:.0f} ns", name, *cells])
    return table(["line", "", *(f"{n} loop{'s' * (n > 1)}" for n in loops)], rows)


def wakes_table(measured: Measured) -> str:
    """Who wakes workers, where these have less to do than they could: 64 of them, one loop."""
    costs = measured.here
    variants: dict[str, tuple[Costs, dict[str, Any]]] = {
        "the loop wakes each, as it is": (costs, {}),
        "a worker that takes a task wakes the next": (costs, {"chained_wakes": True}),
        "waking costs nothing": (replace(costs, unpark=0.0), {}),
        "each of 8 workers a queue, and one that spins": (costs, {"queues": 8}),
    }
    tasks = [0, 10, 50, 100, 150, 200]
    rows = [
        [name, *(rate(simulate(some, Case(64, task, **more)).rate) for task in tasks)]
        for name, (some, more) in variants.items()
    ]
    paper = [rate(min(bounds(costs, Case(64, task)).values())) for task in tasks]
    return table(["", *map(time, tasks)], [*rows, ["(on paper)", *paper]])


def batches_table(measured: Measured) -> str:
    """How many items a call must take, for one loop to keep so many workers busy."""
    items = (1, 10, 100)
    rows = []
    for style in ("by_map", "by_run"):
        costs = measured.costs(measured.counts[-1], style)
        for workers in (8, 64, 256):
            least = least_task(costs, workers)
            counts = [f"{max(1, ceil(least / item)):,}" for item in items]
            rows.append([STYLES[style], str(workers), *counts])
    return table(["", "workers", *(f"items of {time(item)}" for item in items)], rows)


def loops_table(measured: Measured) -> str:
    """Several event loops in threads of one interpreter."""
    found = measured.raw["loops"][measured.counts[-1]]
    return table(
        [f"{count} loop{'s' * (count != '1')}" for count in found],
        [[rate(each) for each in found.values()]],
    )


def tables(measured: Measured) -> dict[str, str]:
    """Return all, by the name of their place in docs/scaling.md."""
    made = {
        "machine": f"{measured.raw['processor']}; {measured.raw['machine']}.",
        "reach": reach_table(measured),
        "calls": calls_table(measured),
        "core": core_table(measured),
        "simulated": simulated_table(measured),
        "latency": latency_table(measured),
        "elsewhere": elsewhere_table(measured),
        "wakes": wakes_table(measured),
        "batches": batches_table(measured),
        "loops": loops_table(measured),
        "queues": queues_table(measured),
    }
    for count in measured.counts:
        made[f"checked-{count}"] = checked_table(measured, count)
    return made


# ---- plots ----


def plot_throughput(measured: Measured, path: Path) -> None:
    """Draw throughput by workers: the simulation's points on the lines of paper."""
    workers = [1, 2, 4, 8, 16, 32, 64, 128, 256]
    drawing, axes = _plots.figure(
        "One event loop, await run, each thread on a core of its own", "workers", "calls per second"
    )
    for task in (10, 100, 1_000, 10_000):
        cases = [Case(count, task) for count in workers]
        paper = [min(bounds(measured.here, case).values()) for case in cases]
        (line,) = axes.plot(workers, paper, linewidth=1)
        found = [simulate(measured.here, case).rate for case in cases]
        axes.plot(workers, found, "o", color=line.get_color(), label=f"tasks of {time(task)}")
    axes.axhline(1e6 / measured.here.loop, color=_plots.GREY, linestyle="--", linewidth=1)
    axes.annotate(" the loop can do no more", (1, 1e6 / measured.here.loop * 1.1))
    axes.set_xticks(workers, [str(count) for count in workers])
    axes.set_ylim(50, 4e6 / measured.here.loop)
    axes.legend(title="points: simulated; lines: on paper", loc="lower right")
    _plots.save(drawing, path)


def plot_reach(measured: Measured, path: Path) -> None:
    """Draw how many workers one loop keeps busy, by task length."""
    tasks = [10 ** (step / 4) for step in range(4, 17)]
    drawing, axes = _plots.figure(
        "How many workers one event loop keeps busy", "task, microseconds", "workers"
    )
    for style, text in STYLES.items():
        costs = measured.costs(measured.counts[-1], style)
        axes.plot(tasks, [most_workers(costs, task) for task in tasks], label=text.replace("`", ""))
    far = replace(measured.here.elsewhere(0.2), worker=measured.here.worker)
    axes.plot(
        tasks,
        [most_workers(far, task) for task in tasks],
        ":",
        color=_plots.GREY,
        label="await run, on two sockets",
    )
    for count in (8, 64, 256):
        axes.axhline(count, color=_plots.GREY, linewidth=0.8, linestyle="--")
        axes.annotate(f"{count} workers", (tasks[-1], count * 1.08), ha="right")
    axes.set_ylim(1, 20_000)
    axes.legend(loc="upper left")
    _plots.save(drawing, path)


# ---- where it goes ----


def report(measured: Measured, docs: Path | None) -> None:
    """Print all tables, or put them and the plots into the folder `docs`."""
    made = tables(measured)
    if docs is None:
        for name, text in made.items():
            show(f"## {name}\n\n{text}\n")
        return
    page = docs / "scaling.md"
    text = page.read_text(encoding="utf-8")
    for name, content in made.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = place.subn(rf"\g<1>\n{content}\n\n\g<2>", text)
        if count != 1:
            raise SystemExit(f"{page} has no place for the table {name!r}, or more than one")
    page.write_text(text, encoding="utf-8")
    plot_throughput(measured, docs / "scaling-throughput.svg")
    plot_reach(measured, docs / "scaling-reach.svg")
    show(f"written: {page}, and its plots")
