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
from typing import IO, Any, Self

HERE = Path(__file__).parent

#: What a turn gives: by a measure's name its samples, or, in words, why there are none.
type Samples = dict[str, list[float] | str]

#: So many samples of a measure are kept for each row.
KEPT = 400

#: Seconds that a side has to start all of its workers, and to end them.
OPENING_LIMIT = 30.0
CLOSING_LIMIT = 5.0


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
    notes: dict[str, str] = field(default_factory=dict)  # why a measure, or "" any, has no samples


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
    limit: float = 30.0  # seconds; who takes longer is given up
    kind: str = ""  # if one fails, no other of that kind is run with that side


@dataclass(frozen=True)
class Entry:
    """A row to be: its name, the side that it measures, and what that does in each round."""

    row: str
    side: str
    turns: Sequence[Turn]


class SideError(Exception):
    """A side could not be started, failed, or took too long."""


class SideProcess:
    """A process with one open side; it runs turns as it is told. A context manager, too."""

    def __init__(self, settings: Settings, side: str) -> None:
        self._settings = settings
        self._side = side
        self._process: asyncio.subprocess.Process | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._complaints: IO[bytes] = self._stack.enter_context(tempfile.TemporaryFile())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    async def open(self) -> None:
        """Start it, and all of the side's workers.

        Raises:
            SideError: That failed, or took too long.
        """
        from ._sides import SIDES

        module = f"{__package__}._child"
        environment = {**os.environ, **SIDES[self._side].environment}
        # What is installed is compiled once, by pip or at its first import. Without that each
        # worker of each pool would compile what it imports, and keep half a megabyte for it.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if self._side.startswith("original"):
            # It has our package's name. So the suite goes by another there, beside it.
            folder = self._stack.enter_context(tempfile.TemporaryDirectory())
            os.symlink(HERE, os.path.join(folder, "_bench"))
            environment["PYTHONPATH"] = os.pathsep.join([str(self._settings.original), folder])
            module = "_bench._child"
        settings = self._settings
        self._complaints.truncate(0)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, self._side, str(settings.workers), settings.loop),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._complaints,
            limit=2**26,  # of a line: it holds all samples of a turn
            start_new_session=True,  # so that its own processes can be ended with it
        )
        await self._answer(OPENING_LIMIT)

    async def turn(self, turn: Turn) -> Samples:
        """Run it there.

        Raises:
            SideError: It failed, or took too long.
        """
        assert self._process
        assert self._process.stdin
        module = turn.function.__module__.rpartition(".")[2]
        request = {"module": module, "function": turn.function.__qualname__, "args": turn.args}
        with contextlib.suppress(ConnectionError):  # there is no answer then, either
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return await self._answer(turn.limit)

    async def _answer(self, limit: float) -> Samples:
        assert self._process
        assert self._process.stdout
        try:
            async with asyncio.timeout(limit):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise SideError(f"took longer than {limit:g} s") from None
        if not line:
            raise SideError(self._last_words())
        answer = json.loads(line)
        if "failed" in answer:
            raise SideError(answer["failed"])
        samples: Samples = answer["samples"]
        return samples

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"its process ended: {last}" if last else "its process ended"

    async def close(self) -> None:
        """Let it close its side; kill what doesn't end soon, and what it leaves behind."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin
        try:
            process.stdin.close()
            async with asyncio.timeout(CLOSING_LIMIT):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@asynccontextmanager
async def side_process(settings: Settings, side: str) -> AsyncIterator[SideProcess]:
    """Open a side for a while, for a section that doesn't let sides take turns.

    Raises:
        SideError: It could not be opened.
    """
    with SideProcess(settings, side) as process:
        try:
            await process.open()
            yield process
        finally:
            await process.close()


async def alternate(
    settings: Settings, entries: Sequence[Entry], warm_up: bool = True
) -> list[Row]:
    """Start all entries' sides, let them take turns, and return their rows.

    In each round all do their first turn, then all do their second, and so on. An entry whose side
    is missing here has no row; one whose side fails has its notes.
    """
    from ._sides import SIDES

    here = [entry for entry in entries if SIDES[entry.side].missing(settings) is None]
    async with AsyncExitStack() as stack:
        players = [
            _Player(entry, stack.enter_context(SideProcess(settings, entry.side))) for entry in here
        ]
        stack.push_async_callback(_close_all, players)
        async with asyncio.TaskGroup() as group:
            for player in players:
                group.create_task(player.open())
        for round_number in range(settings.rounds + warm_up):
            counts = round_number > 0 or not warm_up
            for turn_number in range(max((len(entry.turns) for entry in here), default=0)):
                for place in range(len(players)):
                    player = players[(place + round_number) % len(players)]
                    await player.play(turn_number, counts)
    return [player.row() for player in players]


class _Player:
    """An entry, its side's process, and what it has measured so far."""

    def __init__(self, entry: Entry, process: SideProcess) -> None:
        self._entry = entry
        self._process = process
        self._is_open = False
        self._samples: dict[str, list[float]] = {}
        self._notes: dict[str, str] = {}  # by a turn's kind, or a measure's name

    async def open(self) -> None:
        """Start the side; if that fails, it has had its turns."""
        try:
            await self._process.open()
            self._is_open = True
        except SideError as error:
            self._notes.setdefault("", str(error))

    async def play(self, turn_number: int, counts: bool) -> None:
        """Do this turn, unless one of its kind has failed before."""
        if not self._is_open or turn_number >= len(self._entry.turns):
            return
        turn = self._entry.turns[turn_number]
        if turn.kind in self._notes:
            return
        try:
            samples = await self._process.turn(turn)
        except SideError as error:
            # Whatever state it is in now: what else it does is measured with a fresh one.
            self._notes[turn.kind] = str(error)
            self._is_open = False
            await self._process.close()
            await self.open()
            return
        for name, values in samples.items():
            if isinstance(values, str):
                self._notes[name] = values
            elif counts:
                self._samples.setdefault(name, []).extend(values)

    async def close(self) -> None:
        await self._process.close()

    def row(self) -> Row:
        samples = {name: thinned(values) for name, values in self._samples.items()}
        return Row(self._entry.row, samples, self._notes)


async def _close_all(players: Sequence[_Player]) -> None:
    await asyncio.gather(*(player.close() for player in players))


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
