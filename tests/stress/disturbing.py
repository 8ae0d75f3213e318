"""What happens around: signals, forks, garbage collections."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from typing import Any

from report import LONG
from stage import CHECKED, Actor

from aiointerpreters import RunnerError
from workfns import stress

handled = 0


def count_signal(*_: Any) -> None:
    global handled
    handled += 1


def send_a_signal(actor: Actor) -> None:
    """To whichever thread; the main thread runs the handler."""
    before = handled
    if actor.dice.random() < 0.5:
        os.kill(os.getpid(), signal.SIGUSR1)
    else:
        thread = actor.dice.choice(threading.enumerate())
        if thread.ident is not None and thread.is_alive():
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        else:
            return
    end = time.monotonic() + LONG / 2
    pause = threading.Event()
    while handled == before:
        if time.monotonic() > end:
            actor.act.run.fail("a signal was not handled")
        pause.wait(0.001)


def collect(actor: Actor) -> None:
    gc.collect(actor.dice.randrange(3))


async def collect_in_a_loop(actor: Actor) -> None:
    gc.collect(actor.dice.choice([0, 0, 1, 2]))


def fork(actor: Actor) -> None:
    """The child is refused the runners, and ends at once."""
    if CHECKED:  # the sanitizer's lock for memory may be held for ever in the child
        return
    runner = actor.runner()
    child = os.fork()
    if not child:
        status = 3
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(30)
            tries = actor.dice.random() < 0.5
            status = asyncio.run(_be_refused(runner)) if tries else 7
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 7:
        actor.act.run.fail(f"a forked child ended with {status}")
    actor.ledger.kinds["(forks)"] += 1


async def _be_refused(runner: Any) -> int:
    try:
        runner.submit(stress.double, 1)
    except RunnerError as error:
        return 7 if "fork" in str(error) else 4
    return 5
