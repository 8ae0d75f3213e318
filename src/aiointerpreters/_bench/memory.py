"""What a worker keeps in memory: that of 9 workers less that of 1, divided by 8.

Each pool is in a fresh process, twice, and its workers have run functions that do nothing. Memory
is what Linux calls the proportional set size, of the process and all that it has started: its own
pages, and its share of those that several processes use.

The floor is an interpreter that CPython alone has made, configured like a worker's, while it lives
on its thread (src/floors/interpreters.c).
"""

import asyncio
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path

from ._harness import Measure, Row, Samples, Settings, SideError, Table, Turn, side_process
from ._processes import tree
from ._sides import OURS, PEERS, SIDES, Opened
from ._work import noop

ANY_LOOP = True

FEW, MANY = 1, 9
FLOOR = "(bare interpreters)"
EMPTY = "(asyncio alone)"
EACH, ALL = "each worker", f"all, with {MANY} workers"


async def measure(settings: Settings) -> list[Table]:
    """Measure all sides."""
    if not sys.platform.startswith("linux"):
        return []
    names = [
        name
        for name in (OURS[0], *PEERS)
        if (name == OURS[0] or settings.wants(name)) and SIDES[name].missing(settings) is None
    ]
    rows = [Row(name, {}, {}) for name in (*names, FLOOR)]
    for _ in range(min(settings.rounds, 1 if settings.quick else 3)):
        for row in rows:
            try:
                few, many = [await _one(settings, row.side, count) for count in (FEW, MANY)]
            except SideError as error:
                row.notes[""] = str(error)
                continue
            row.samples.setdefault(EACH, []).append((many - few) / (MANY - FEW))
            row.samples.setdefault(ALL, []).append(many / 1024)
    return [
        Table(
            "memory",
            "Memory after one call in each worker",
            "",
            [Measure(EACH, "kB"), Measure(ALL, "MiB")],
            rows,
        )
    ]


async def _one(settings: Settings, name: str, workers: int) -> float:
    """Return a pool's memory in kB."""
    side, turn = (EMPTY, Turn(of_floor, (workers,))) if name == FLOOR else (name, Turn(of_side))
    async with side_process(replace(settings, workers=workers), side) as process:
        samples = (await process.turn(turn))["memory"]
        assert not isinstance(samples, str)
        return samples[0]


async def of_side(side: Opened) -> Samples:
    """Measure this process, whose workers have all been started."""
    await side.in_every_worker(noop)
    await asyncio.sleep(0.2)  # what pools have besides workers may still be starting
    return {"memory": [resident()]}


async def of_floor(_: object, interpreters: int) -> Samples:
    """Measure this process while so many bare interpreters exist."""
    from .. import _floors

    found: list[float] = []
    _floors.interpreters(interpreters, lambda: found.append(resident()))
    return {"memory": list(found)}


def resident() -> float:
    """Return the memory of this process and its descendants, in kB."""
    return sum(map(_proportional, tree()))


def _proportional(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in chain(lines) if line.startswith("Pss:"))
