"""What the project wants of itself on two cores, and whether one run of the suite shows it.

Every target is computed from medians of tables of the same run: so what is compared has been
measured by turns. A target whose tables were not measured is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from .cpu import NO_SPINNING
from .start_up import FLOOR as BARE

ASYNCIO, UVLOOP = "asyncio", "uvloop"
RUN, SUBMIT = "run", "submit"
THREADS, INTERPRETERS = "ThreadPoolExecutor", "InterpreterPoolExecutor"
ALONE, RAW, IDLE_LOOP = "(asyncio alone)", "(futex and eventfd)", "(idle loop)"
BACK_TO_BACK, QUIET = "back to back", "after 5 ms"

#: CPU time in 5 s that is the measuring's own.
NOISE_MS = 1.0


@dataclass(frozen=True)
class Target:
    """One target, and what was measured."""

    name: str
    wanted: str
    got: str
    met: bool


class Results:
    """Medians of a run: by table, loop, side and measure."""

    def __init__(self, tables: list[dict[str, Any]]) -> None:
        self._medians: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
        for table in tables:
            rows = {
                row["side"]: {
                    name: median(samples) for name, samples in row["samples"].items() if samples
                }
                for row in table["rows"]
            }
            self._medians[table["name"], table["loop"]] = rows

    def table(self, name: str, loop: str | None = None) -> dict[str, dict[str, float]]:
        """Return a table's rows: on that loop, or (None) on the first that it was measured on.

        Raises:
            KeyError: It was not measured.
        """
        if loop is None:
            loop = next((of for table, of in self._medians if table == name), "")
        return self._medians[name, loop]


def computed(tables: list[dict[str, Any]]) -> list[Target]:
    """Compute what can be, from tables as they are in the JSON."""
    results = Results(tables)
    found: list[Target] = []
    for group in _GROUPS:
        targets = group(results)
        while True:
            try:
                found.append(next(targets))
            except (StopIteration, KeyError):  # something was not measured
                break
    return found


def summary(tables: list[dict[str, Any]]) -> str:
    """Lay out the targets; empty if there are none to tell of."""
    targets = computed(tables)
    if not targets:
        return ""
    lines = [
        ("target, on two cores", "wanted", "got", ""),
        *((t.name, t.wanted, t.got, "met" if t.met else "MISSED") for t in targets),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        f"{name.ljust(widths[0])}   {wanted.rjust(widths[1])}   {got.rjust(widths[2])}   {met}"
        for name, wanted, got, met in lines
    ]
    text.insert(1, "-" * max(map(len, text)))
    missed = sum(not target.met for target in targets)
    text += ["", f"{len(targets) - missed} of {len(targets)} targets are met."]
    return "\n".join(text) + "\n"


# ---- the targets: a group gives those whose tables are there ----


def _at_least(name: str, wanted: float, got: float, text: str) -> Target:
    return Target(name, text.format(wanted), text.format(got), got >= wanted)


def _at_most(name: str, wanted: float, got: float, text: str) -> Target:
    return Target(name, "≤ " + text.format(wanted), text.format(got), got <= wanted)


TIMES, US, MS, RATE = "{:.2f} times", "{:.1f} us", "{:.2f} ms", "{:,.0f}/s"


def _back_to_back(results: Results) -> Iterator[Target]:
    rows = results.table("round-trip", ASYNCIO)
    ours = rows[RUN][BACK_TO_BACK]
    for peer, wanted in ((THREADS, 8), (INTERPRETERS, 14)):
        if peer in rows:
            name = f"round trip back to back: faster than {peer}"
            yield _at_least(name, wanted, rows[peer][BACK_TO_BACK] / ours, TIMES)
    name = "round trip back to back, against asyncio's own wake"
    yield _at_most(name, 1.5, ours / rows[ALONE][BACK_TO_BACK], TIMES)


def _lone_call(results: Results) -> Iterator[Target]:
    rows = results.table("round-trip", ASYNCIO)
    ours = rows[RUN][QUIET]
    name = f"round trip {QUIET}: faster than {THREADS}"
    yield _at_least(name, 1.3, rows[THREADS][QUIET] / ours, TIMES)
    floor = rows[RAW][QUIET] + rows[ALONE][QUIET]
    yield _at_most(
        f"round trip {QUIET}, against futex, eventfd and asyncio's own wake",
        *(1.25, ours / floor, TIMES),
    )


def _throughput(results: Results) -> Iterator[Target]:
    rows = results.table("throughput", ASYNCIO)
    yield _at_least("gather of run", 250_000, rows[RUN]["gather"], RATE)
    yield _at_least("map", 800_000, rows[RUN]["map"], RATE)
    if SUBMIT in rows:
        yield _at_least("gather of submit", 600_000, rows[SUBMIT]["gather"], RATE)
    name = f"gather of run: faster than {INTERPRETERS}"
    yield _at_least(name, 25, rows[RUN]["gather"] / rows[INTERPRETERS]["gather"], TIMES)


def _uvloop_round_trip(results: Results) -> Iterator[Target]:
    asyncio, uvloop = (results.table("round-trip", loop) for loop in (ASYNCIO, UVLOOP))
    yield _at_least(
        "round trip under uvloop: as much shorter as its own wake is",
        asyncio[ALONE][BACK_TO_BACK] - uvloop[ALONE][BACK_TO_BACK],
        asyncio[RUN][BACK_TO_BACK] - uvloop[RUN][BACK_TO_BACK],
        US,
    )


def _uvloop_throughput(results: Results) -> Iterator[Target]:
    asyncio, uvloop = (results.table("throughput", loop) for loop in (ASYNCIO, UVLOOP))
    for side in (RUN, SUBMIT):
        if side in asyncio:
            rate = uvloop[side]["gather"] / asyncio[side]["gather"]
            yield _at_least(f"gather of {side} under uvloop: faster than asyncio", 1, rate, TIMES)


def _break_even(results: Results) -> Iterator[Target]:
    rows = results.table("break-even", ASYNCIO)
    # No crossing: it pays at all sizes measured, or at none.
    never = float("inf")
    ours = rows[RUN].get("break-even", never)
    yield _at_most("break-even size of a task, on a busy loop", 30, ours, US)
    peers = {
        side: row.get("break-even", never)
        for side, row in rows.items()
        if side not in (RUN, SUBMIT) and len(row) > 1
    }
    if not peers:
        return
    best = min(peers, key=lambda side: peers[side])
    yield _at_most(f"the same, against the best peer's ({best})", peers[best], ours, US)


def _scaling(results: Results) -> Iterator[Target]:
    of_run = results.table("scaling", ASYNCIO)[RUN]
    by_size: dict[str, dict[str, float]] = {}
    for column, times in of_run.items():
        kind, size = column.split(", ")
        by_size.setdefault(size, {})[kind] = times
    for size, kinds in by_size.items():
        worst = min(kinds, key=lambda kind: kinds[kind])
        name = f"two workers against one, tasks of {size} (worst: {worst})"
        yield _at_least(name, 1.95, kinds[worst], TIMES)


def _lag(results: Results) -> Iterator[Target]:
    rows = results.table("lag", ASYNCIO)
    more = rows[RUN]["p99"] - rows[IDLE_LOOP]["p99"]
    yield _at_most("loop lag, p99, workers saturated: above an idle loop's", 1, more, MS)


def _start_up(results: Results) -> Iterator[Target]:
    rows = results.table("start-up")
    ratio = rows[RUN]["8 workers"] / rows[BARE]["8 workers"]
    yield _at_most("start-up of 8 workers, against bare interpreters", 1.1, ratio, TIMES)


def _memory(results: Results) -> Iterator[Target]:
    rows = results.table("memory")
    more = rows[RUN]["each worker"] - rows[BARE]["each worker"]
    yield _at_most("memory of a worker, above a bare interpreter's", 200, more, "{:,.0f} kB")


def _idle(results: Results) -> Iterator[Target]:
    rows = results.table("cpu-idle", ASYNCIO)
    ours, alone = rows[RUN], rows[ALONE]
    more = max(0.0, ours["wake-ups"] - alone["wake-ups"])
    yield _at_most("idle: wake-ups of any thread", 0, more, "{:.0f}")
    yield _at_most(
        "idle: CPU time in 5 s (what the clock tells apart)",
        *(NOISE_MS, ours["CPU time"] - alone["CPU time"], MS),
    )


def _spinning(results: Results) -> Iterator[Target]:
    rows = results.table("cpu-lightly-loaded", ASYNCIO)
    times = rows[RUN]["CPU time"] / rows[NO_SPINNING]["CPU time"]
    yield _at_most("CPU time at 1,000 calls/s, against no spinning", 2, times, TIMES)


_GROUPS: tuple[Callable[[Results], Iterator[Target]], ...] = (
    _back_to_back,
    _lone_call,
    _throughput,
    _uvloop_round_trip,
    _uvloop_throughput,
    _break_even,
    _scaling,
    _lag,
    _start_up,
    _memory,
    _idle,
    _spinning,
)
