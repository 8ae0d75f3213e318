"""What every section of the suite is made of: what was measured, and how sides take turns.

A *side* is one way to call functions (`_sides.py`). Each has a process of its own (`_child.py`), so
that a side that hangs or crashes costs its own row and nothing else, and so that none finds the
others' threads, garbage or wakeful workers in its process. A section says which function is to be
run there, with the open side as its argument:

    async def back_to_back(side: Opened, calls: int) -> Samples:
        ...
        return {"back to back": durations}

    rows = await alternate(settings, [Entry("run", "run", [Turn(back_to_back, (2000,))]), ...])

The sides take turns, round by round, in an order that rotates; only one does anything at a time. So
a change of the machine's mood meets all of them. The first round warms up and isn't counted.
"""

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).parent

#: What a turn gives: by a measure's name its samples, or, in words, why there are none.
type Samples = dict[str, list[float] | str]

#: So many samples of a measure are kept for each row.
KEPT = 400


# ---- what is measured --------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """One quantity: a column of a table."""

    name: str
    unit: str  # "us", "ms", "s", "1/s", "MiB", "" …
    less_is_better: bool = True
    tail: bool = False  # whether the 99th percentile is shown, too


@dataclass(frozen=True)
class Row:
    """What was measured of one side."""

    side: str
    samples: dict[str, list[float]]
    notes: dict[str, str] = field(default_factory=dict)  # by measure: why it has no samples


@dataclass(frozen=True)
class Table:
    """Sides beside each other; the first row is ours, and what others are compared with."""

    name: str  # a slug
    title: str
    note: str
    measures: list[Measure]
    rows: list[Row]


@dataclass(frozen=True)
class Settings:
    """What the command's options say."""

    workers: int = 2
    rounds: int = 7
    quick: bool = False
    loop: str = "asyncio"
    sides: frozenset[str] | None = None  # None: all there are
    original: Path | None = None  # the folder that the original package is installed in

    def wants(self, side: str) -> bool:
        """Whether this side was chosen."""
        return self.sides is None or side in self.sides


# ---- taking turns ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """What one side does when it is its turn: `await function(opened_side, *args)`.

    The function is found by its name in the side's process; the arguments go there as JSON.
    """

    function: Callable[..., Awaitable[Samples]]
    args: tuple[Any, ...] = ()
    limit: float = 30.0  # seconds; a side that takes longer is given up


@dataclass(frozen=True)
class Entry:
    """A row to be: its name, the side that it measures, and what that does in each round."""

    row: str
    side: str
    turns: Sequence[Turn]


class SideError(Exception):
    """A side could not be started, failed, or took too long. It is not asked again."""


async def alternate(
    settings: Settings, entries: Sequence[Entry], warm_up: bool = True
) -> list[Row]:
    """Start all entries' sides, let them take turns, and return their rows.

    An entry whose side is missing here has no row; one whose side fails has its notes.
    """
    from ._sides import SIDES

    here = [entry for entry in entries if SIDES[entry.side].missing(settings) is None]
    results = [_Result() for _ in here]
    async with AsyncExitStack() as stack:
        processes = []
        for entry, result in zip(here, results, strict=True):
            try:
                process = await stack.enter_async_context(side_process(settings, entry.side))
            except SideError as error:
                result.failure = str(error)
                process = None
            processes.append(process)
        for round_number in range(settings.rounds + warm_up):
            for place in range(len(here)):
                index = (place + round_number) % len(here)
                process, result = processes[index], results[index]
                if process is None or result.failure:
                    continue
                try:
                    for turn in here[index].turns:
                        samples = await process.turn(turn)
                        result.add(samples, counts=round_number > 0 or not warm_up)
                except SideError as error:
                    result.failure = str(error)
    return [result.row(entry.row) for entry, result in zip(here, results, strict=True)]


class _Result:
    """What one entry has measured so far."""

    def __init__(self) -> None:
        self.samples: dict[str, list[float]] = {}
        self.notes: dict[str, str] = {}
        self.failure = ""

    def add(self, samples: Samples, counts: bool) -> None:
        for name, values in samples.items():
            if isinstance(values, str):
                self.notes[name] = values
            elif counts:
                self.samples.setdefault(name, []).extend(values)

    def row(self, name: str) -> Row:
        notes = dict(self.notes)
        if self.failure:
            notes[""] = self.failure  # of whatever has no samples
        return Row(name, {name: thinned(values) for name, values in self.samples.items()}, notes)


class SideProcess:
    """A process with one open side; it runs turns as it is told."""

    def __init__(self, process: asyncio.subprocess.Process, complaints: Any) -> None:
        self._process = process
        self._complaints = complaints

    async def turn(self, turn: Turn) -> Samples:
        """Run it there."""
        module = turn.function.__module__.rpartition(".")[2]
        request = {"module": module, "function": turn.function.__qualname__, "args": turn.args}
        samples: Samples = await self.ask(request, turn.limit)
        return samples

    async def ask(self, request: object, limit: float) -> Any:
        """Send a line, and wait for the answer's."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            async with asyncio.timeout(limit):
                if request is not None:
                    self._process.stdin.write(json.dumps(request).encode() + b"\n")
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise SideError(f"took longer than {limit:g} s") from None
        except ConnectionError:
            line = b""
        if not line:
            raise SideError(self._last_words())
        answer = json.loads(line)
        if "failed" in answer:
            raise SideError(answer["failed"])
        return answer["samples"]

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"its process ended: {last}" if last else "its process ended"


@asynccontextmanager
async def side_process(settings: Settings, side: str) -> AsyncIterator[SideProcess]:
    """Start a side with all its workers, in a process of its own.

    Raises:
        SideError: It could not be started.
    """
    from ._sides import SIDES

    with contextlib.ExitStack() as stack:
        complaints = stack.enter_context(tempfile.TemporaryFile())
        package = f"{__package__}._child"
        environment = {**os.environ, **SIDES[side].environment}
        if side.startswith("original"):
            # It has our package's name. So ours must not be found there, and the suite has another.
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            os.symlink(HERE, os.path.join(folder, "_bench"))
            environment["PYTHONPATH"] = os.pathsep.join([str(settings.original), folder])
            package = "_bench._child"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", package, side, str(settings.workers), settings.loop),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            limit=2**26,  # of a line: it holds all samples of a turn
            start_new_session=True,  # so that its own processes can be ended with it
        )
        try:
            opened = SideProcess(process, complaints)
            await opened.ask(None, 30.0)
            yield opened
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it close its side; kill what doesn't end soon, and what it leaves behind."""
    assert process.stdin
    try:
        process.stdin.close()
        async with asyncio.timeout(5):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


# ---- for turns ---------------------------------------------------------------------------------


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Collect cyclic garbage now, and not meanwhile: it would meet whoever's turn it is."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def timed(calls: Iterable[Callable[[], Awaitable[object]]], seconds: float) -> list[float]:
    """Await one after another; the duration of each, in microseconds; for so long at most.

    Results are dropped between the measurements: the event loop keeps one until the task is
    suspended the next time, so that dropping it would be the next call's time.
    """
    clock = time.perf_counter
    samples = []
    end = clock() + seconds
    for call in calls:
        began = clock()
        await call()
        done = clock()
        samples.append((done - began) * 1e6)
        await asyncio.sleep(0)
        if done > end:
            break
    return samples


# ---- samples -----------------------------------------------------------------------------------


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return a percentile; of one sample, that sample."""
    if percent == 50:
        return median(samples)
    return (
        quantiles(samples, n=100, method="inclusive")[percent - 1]
        if len(samples) > 1
        else samples[0]
    )


def thinned(samples: Sequence[float]) -> list[float]:
    """Keep at most KEPT samples, evenly by rank: so percentiles stay what they are."""
    if len(samples) <= KEPT:
        return list(samples)
    ordered = sorted(samples)
    last = len(ordered) - 1
    return [ordered[round(number * last / (KEPT - 1))] for number in range(KEPT)]
