"""An act: some runners, and the threads in which everybody uses them, for some seconds.

At the end of each act all is closed, and nothing may be left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import queue
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from ledger import Ledger
from report import GRACE, LONG, Run

from aiointerpreters import Runner
from helpers.limits import CHECKED, SLOWNESS
from helpers.process import eventually, native_threads, open_fds, target, wait_once
from workfns import stress

type Scene = Callable[["Actor"], Coroutine[Any, Any, None]]

try:
    uvloop: Any = importlib.import_module("uvloop")
except ImportError:
    uvloop = None


class Actor:
    """Who plays scenes, one after the other, as a task of a loop."""

    def __init__(self, act: Act, ledger: Ledger, dice: random.Random) -> None:
        self.act = act
        self.ledger = ledger
        self.dice = dice

    def runner(self, *names: str) -> Runner:
        """One of the runners that live as long as the act; of these names, if any are given."""
        name = self.dice.choice(names or STEADY)
        if name == "renewed" and self.act.max_tasks < 50 and self.dice.random() < 0.95:
            name = "steady"  # or who waits for it would do nothing else
        return self.act.runners[name]

    def options(self, runner: Runner) -> Any:
        """The runner, or a view of it with options that no call exceeds."""
        match self.dice.randrange(6):
            case 0:
                return runner.options(priority=self.dice.randrange(-3, 4))
            case 1:
                return runner.options(timeout=2 * LONG)
            case 2:
                return runner.options(deadline=2 * LONG, priority=self.dice.randrange(-3, 4))
            case _:
                return runner

    async def turns(self, most: int) -> None:
        """Let the loop run a little."""
        for _ in range(self.dice.randrange(most + 1)):
            await asyncio.sleep(0)

    async def pause(self, most: float) -> None:
        """For less than so many seconds, mostly much less."""
        await asyncio.sleep(most * self.dice.random() ** 3)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """For what nobody announces."""
        end = time.monotonic() + LONG / 2
        while not condition():
            if time.monotonic() > end:
                self.act.run.fail(what)
            await asyncio.sleep(0.005)


#: Whose workers may end at any time, but never in the midst of what they run.
STEADY = ("steady", "steady", "steady", "options", "renewed", "elastic", "resized", "impatient")


class Act:
    def __init__(self, run: Run, number: int, seconds: float) -> None:
        self.run = run
        self.number = number
        self.dice = random.Random(f"{run.seed} {number}")
        self.end = time.monotonic() + seconds
        self.ledgers: list[Ledger] = []
        self.jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.flags: list[tuple[Any, memoryview]] = []  # see stopping.py
        self.views: list[tuple[memoryview, int]] = []  # see sharing.py
        self.lives: dict[str, list[int]] = {}  # see staffing.py
        self.lives_lock = threading.Lock()
        self.playing = 0
        self.runners = self.make_runners()
        self.is_debugging = self.dice.random() < 0.05

    def make_runners(self) -> dict[str, Runner]:
        dice = self.dice
        self.max_tasks = dice.choice([20, 100, 300, 1_000, 3_000])
        # An interruption is lost where CPython can't raise it, in a __del__ for example, and is
        # sent again after that time.
        patient: dict[str, Any] = {"grace_period": GRACE}
        return {
            "steady": Runner(workers=dice.choice([1, 2, 2, 3]), **patient),
            "options": Runner(
                workers=dice.choice([1, 2]),
                max_pending=dice.choice([1, 10, 300]),
                concurrency=dice.choice([1, 3, 100]),
                context=[stress.request],
                **patient,
            ),
            "renewed": Runner(workers=1, max_tasks_per_worker=self.max_tasks, **patient),
            "elastic": Runner(
                workers=dice.choice([1, 2, 3]),
                min_workers=dice.choice([0, 0, 1]),
                idle_timeout=dice.choice([0, 0.001, 0.02]),
                **patient,
            ),
            "resized": Runner(workers=2, **patient),
            # Its workers are given up at the slightest delay.
            "impatient": Runner(workers=2, grace_period=dice.choice([0, 0.001, 0.05])),
        }

    def ended(self) -> int:
        return sum(ledger.ended for ledger in self.ledgers)

    def kinds(self) -> Counter[str]:
        return sum((ledger.kinds.copy() for ledger in self.ledgers), Counter())

    def described(self) -> list[str]:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in self.kinds().most_common())
        lines = [kinds or "no calls"]
        for name, runner in self.runners.items():
            with contextlib.suppress(Exception):
                stats = runner.stats()._asdict()
                numbers = " ".join(f"{key}={value}" for key, value in stats.items() if value)
                lines.append(f"{name} ({runner.workers}): {numbers or 'nothing'}")
        left = [what for what, flags in self.flags.copy() if flags[0] != flags[1]]
        lines.append(f"running, or never ended: {left[:20]}")
        return lines

    def __repr__(self) -> str:
        return f"{self.playing} scenes are being played, max_tasks={self.max_tasks}"

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    # ---- playing ----

    def play(self) -> None:
        for runner in self.runners.values():
            runner.start()
        bodies = [self.server, self.rowdy, self.second_loop]
        threads = [
            threading.Thread(target=self.guarded, args=(body,), name=body.__name__)
            for body in bodies
        ]
        for thread in threads:
            thread.start()
        self.guarded(self.first_loop)  # in the main thread, where signals are handled
        self.jobs.put(None)
        for thread in threads:
            thread.join(LONG)
            if thread.is_alive():
                self.run.fail(f"thread {thread.name} does not end")
        self.close()

    def guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self.run.fail_by(error, f"in {body.__name__}")

    def first_loop(self) -> None:
        self.run_loop("first", None)

    def second_loop(self) -> None:
        is_uvloop = uvloop is not None and random.Random(self.number).random() < 0.3
        self.run_loop("second", uvloop.new_event_loop if is_uvloop else None)

    def run_loop(self, name: str, factory: Any) -> None:
        dice = random.Random(f"{self.run.seed} {self.number} {name}")
        with asyncio.Runner(debug=self.is_debugging, loop_factory=factory) as loop_runner:
            loop_runner.run(self.actors(dice))

    async def actors(self, dice: random.Random) -> None:
        from playbill import BUSY, RARE

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(
            lambda _, context: self.run.fail(f"the loop's exception handler got {context}")
        )
        ledger = Ledger(self.run)
        self.ledgers.append(ledger)
        tasks = []
        for scenes, number in ((BUSY, 6), (RARE, 10)):
            for _ in range(number):
                actor = Actor(self, ledger, random.Random(dice.random()))
                tasks.append(asyncio.create_task(self.act(actor, scenes)))
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()

    async def act(self, actor: Actor, scenes: list[tuple[Scene, float]]) -> None:
        functions = [scene for scene, _ in scenes]
        weights = [weight for _, weight in scenes]
        while not self.is_over:
            [scene] = actor.dice.choices(functions, weights)
            self.playing += 1
            try:
                async with asyncio.timeout(LONG) as limit:
                    await scene(actor)
            except BaseException as error:
                if limit.expired():
                    self.run.fail(f"{scene.__name__} does not end", status=2)
                self.run.fail_by(error, f"in {scene.__name__}")
            self.playing -= 1
            await asyncio.sleep(0)

    def server(self) -> None:
        """A plain thread, which does what scenes ask of it."""
        while (job := self.jobs.get()) is not None:
            job()

    def rowdy(self) -> None:
        """Another one, which does as it likes."""
        from playbill import ROWDY

        dice = random.Random(f"{self.run.seed} {self.number} rowdy")
        ledger = Ledger(self.run)
        self.ledgers.append(ledger)
        functions = [scene for scene, _ in ROWDY]
        weights = [weight for _, weight in ROWDY]
        pause = threading.Event()
        while not self.is_over:
            [scene] = dice.choices(functions, weights)
            try:
                scene(Actor(self, ledger, dice))
            except BaseException as error:
                self.run.fail_by(error, f"in {scene.__name__}")
            pause.wait(0.1 * dice.random() ** 2)

    # ---- the end ----

    def close(self) -> None:
        """All is closed; each call has ended, and each of these flags was set."""
        self.views.clear()
        runners = list(self.runners.values())
        self.dice.shuffle(runners)
        for runner in runners:
            if self.dice.random() < 0.5:
                asyncio.run(self.drain_and_close(runner))
            else:
                runner.close()
        for ledger in self.ledgers:
            if ledger.begun != ledger.ended:
                self.run.fail(f"{ledger.begun} calls have begun, {ledger.ended} have ended")
        for name, runner in self.runners.items():
            stats = runner.stats()
            if name != "impatient" and stats.replaced:
                self.run.say(f"{name} replaced {stats.replaced} workers after {GRACE:.0f} s")
            if stats.pending or stats.queued or stats.busy or stats.idle or stats.starting:
                self.run.fail(f"{name} is closed, but not at rest: {stats}")
        if not eventually(lambda: all(flags[0] == flags[1] for _, flags in self.flags)):
            self.run.fail("a function began and did not come to its `finally`")
        self.flags.clear()
        for life, (calls, highest, total) in self.lives.items():
            if calls != highest or total != highest * (highest + 1) // 2:
                self.run.fail(f"worker {life} counted to {highest} in {calls} calls, sum {total}")

    async def drain_and_close(self, runner: Runner) -> None:
        async with asyncio.timeout(LONG):
            await runner.drain()
            if runner.stats().pending:
                self.run.fail(f"drained, but {runner.stats()}")
            await runner.aclose()


def number_of_interpreters() -> int:
    if sys.version_info < (3, 14):
        return 1
    from concurrent import interpreters

    return len(interpreters.list_all())


class Baseline:
    """How much of everything there is between two acts."""

    def __init__(self) -> None:
        wait_once()
        if uvloop is not None:
            uvloop.new_event_loop().close()  # the first one makes another such
        gc.collect()
        self.counts = self.count()

    @staticmethod
    def count() -> dict[str, int]:
        return {
            "threads": native_threads(),
            "Python threads": threading.active_count(),
            "file descriptors": open_fds(),
            "interpreters": number_of_interpreters(),
        }

    def check(self, run: Run) -> None:
        asyncio.run(_let_time_be_up())
        if not eventually(self._is_met):
            files = [target(fd) for fd in os.listdir("/proc/self/fd")]
            run.fail(f"left over: {self.count()}, where there were {self.counts}; {files}")

    def _is_met(self) -> bool:
        gc.collect()  # once more, if something has ended since: that may have been in a cycle
        return all(self.count()[key] <= n for key, n in self.counts.items())


async def _let_time_be_up() -> None:
    """The thread that keeps time looks again, and ends, unless something is armed that should not.

    It sleeps until what was to be due first, be that two minutes, though it has been settled since.
    """
    async with Runner(workers=1) as runner:
        with contextlib.suppress(TimeoutError):
            await runner.options(timeout=0.001).run(time.sleep, LONG)


@contextlib.contextmanager
def everything_noticed(run: Run) -> Iterator[None]:
    """What is raised where nobody can catch it is a violation, too."""

    def unraisable(args: Any) -> None:
        run.fail_by(args.exc_value, f"unraisable: {args.err_msg} {args.object!r}")

    def in_thread(args: Any) -> None:
        run.fail_by(args.exc_value, f"in thread {args.thread}")

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # debug mode complains of slow callbacks
    yield


__all__ = ("CHECKED", "SLOWNESS", "Act", "Actor", "Baseline", "Scene", "everything_noticed")
