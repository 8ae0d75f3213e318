"""What a task costs on Dask and on Ray, beside a Runner, and what subinterpreters gain there.

    make bench-beyond       # writes benchmarks/results/beyond.json
    make bench-docs         # makes the table in docs/scaling.md from that

On this machine alone: a cluster of processes that talk TCP, with as many cores for each side. Two
kinds of tasks: such as do nothing, all submitted at once, which shows what a task costs; and such
as compute for ten milliseconds or more, in Python, which shows what the cores are used for.

Each side is started, measured in rounds, and ended, before the next one is; a side whose package is
not installed is left out.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _common import HERE, cores, machine, noop, processor, show, watching_others

from aiointerpreters import Executor, Runner
from aiointerpreters._bench._processes import tree

type Call = Callable[[int], int]
#: Calls a function with so many numbers at once, and waits for all.
type CallAll = Callable[[Call, int], object]

WORKERS = cores()
SPIN = 400_000  # rounds of a loop: some ten milliseconds


def spin(value: int) -> int:
    """Compute for some ten milliseconds, with the GIL held."""
    for number in range(SPIN):
        value ^= number * value
        value &= 0xFFFF
    return value


# ---- the sides ----


@contextlib.contextmanager
def in_runner() -> Iterator[CallAll]:
    """A Runner: asyncio, one process."""
    with asyncio.Runner() as loop:
        runner = loop.run(_entered())

        async def call_all(call: Call, count: int) -> None:
            await asyncio.gather(*(runner.run(call, number) for number in range(count)))

        try:
            yield lambda call, count: loop.run(call_all(call, count))
        finally:
            loop.run(runner.aclose())


async def _entered() -> Runner:
    return Runner(workers=WORKERS).start()


@contextlib.contextmanager
def in_executor() -> Iterator[CallAll]:
    """An Executor: one process, too."""
    with Executor(WORKERS) as executor:

        def call_all(call: Call, count: int) -> None:
            for future in [executor.submit(call, number) for number in range(count)]:
                future.result()

        yield call_all


@contextlib.contextmanager
def on_dask(processes: int, threads: int, interpreters: bool = False) -> Iterator[CallAll]:
    """Dask's workers."""
    # Most of it has no types.
    dask: Any = import_module("dask")
    distributed: Any = import_module("distributed")

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    cluster = distributed.LocalCluster(
        n_workers=processes,
        threads_per_worker=threads,
        processes=True,
        protocol="tcp",
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    annotations = {}
    with cluster, distributed.Client(cluster) as client:
        if interpreters:
            from aiointerpreters.dask import Interpreters

            client.register_plugin(Interpreters())
            annotations = {"executor": "interpreters"}

        def call_all(call: Call, count: int) -> None:
            with dask.annotate(**annotations):
                client.gather(client.map(call, range(count), pure=False))

        yield call_all


@contextlib.contextmanager
def on_ray(interpreters: bool) -> Iterator[CallAll]:
    """Ray's tasks, each in a process that takes one at a time; or our actor."""
    import ray

    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(HERE)}},
    )
    try:
        if interpreters:
            from aiointerpreters.ray import Interpreters

            pool = Interpreters(WORKERS)
            submit: Callable[[Call, int], Any] = pool.submit
        else:
            known: dict[Call, Any] = {}

            def submit(call: Call, number: int) -> Any:
                if call not in known:
                    known[call] = ray.remote(call)
                return known[call].remote(number)

        yield lambda call, count: ray.get([submit(call, number) for number in range(count)])
    finally:
        ray.shutdown()


SIDES: dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[CallAll]]]] = {
    "Runner": ("asyncio", in_runner),
    "Executor": ("asyncio", in_executor),
    "Dask, threads": ("distributed", lambda: on_dask(1, WORKERS)),
    "Dask, processes": ("distributed", lambda: on_dask(WORKERS, 1)),
    "Dask, interpreters": ("distributed", lambda: on_dask(1, WORKERS, interpreters=True)),
    "Ray, tasks": ("ray", lambda: on_ray(False)),
    "Ray, an actor with interpreters": ("ray", lambda: on_ray(True)),
}


# ---- measuring ----


def measure(open_side: Callable[[], Any], rounds: int, empty: int, busy: int) -> dict[str, Any]:
    """Return what a side took."""
    began = time.perf_counter()
    with open_side() as call_all:
        call_all(noop, 1)
        started = time.perf_counter() - began
        for function in (noop, spin):
            call_all(function, 4 * WORKERS)
        found: dict[str, list[float]] = {"empty_us": [], "busy_ms": []}
        for _ in range(rounds):
            found["empty_us"].append(seconds(lambda: call_all(noop, empty)) / empty * 1e6)
            found["busy_ms"].append(seconds(lambda: call_all(spin, busy)) / busy * 1e3)
        memory = sum(map(resident, tree()))
    return {"start_s": started, "memory_mib": memory} | found


def seconds(thunk: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    thunk()
    return time.perf_counter() - began


def resident(process: int) -> float:
    """Return the MiB that a process has to itself, with its part of what it shares."""
    with contextlib.suppress(OSError):  # it has just ended
        for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def side_alone(name: str, sizes: Sequence[int]) -> dict[str, Any]:
    """Measure a side in a process of its own, so that no other's memory and threads are there."""
    import subprocess

    command = [sys.executable, __file__, "--only", name, "--sizes", *map(str, sizes)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    parser.add_argument("--only", choices=[*SIDES], help=argparse.SUPPRESS)
    parser.add_argument("--sizes", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(SIDES[options.only][1], *options.sizes)))
        return
    sizes = (1, 300, 40) if options.quick else (3, 1000, 80)
    alone = min(seconds(lambda: spin(1)) for _ in range(20)) * 1e3
    show(f"A busy task by itself: {alone:.2f} ms")
    rows = []
    with watching_others():
        for name, (package, _) in SIDES.items():
            if find_spec(package) is None:
                show(f"{name}: {package} is not installed")
                continue
            found = side_alone(name, sizes)
            rows.append({"side": name, **found})
            show(
                f"{name:32} {min(found['empty_us']):9.1f} us {min(found['busy_ms']):8.2f} ms "
                f"{found['memory_mib']:8.0f} MiB, started in {found['start_s']:.1f} s"
            )
    if options.json:
        versions = [f"{name} {version(name)}" for name in ("distributed", "ray") if find_spec(name)]
        result = {
            "format": 1,
            "machine": ", ".join([f"{processor()}; {machine()}", *versions]),
            "settings": {"rounds": sizes[0], "empty": sizes[1], "busy": sizes[2], "cores": WORKERS},
            "alone_ms": alone,
            "rows": rows,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
