"""What goes along with calls, or beside them: context variables, log records, warnings."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from ledger import Burst, equals
from report import Run
from stage import Actor

from workfns import stress


async def context_variables(actor: Actor) -> None:
    dice, ledger = actor.dice, actor.ledger
    runner = actor.options(actor.runner("options"))
    for _ in range(dice.randrange(1, 20)):
        value = dice.randrange(2**40)
        stress.request.set(value)
        await ledger.call(
            "context", runner.run(stress.value_of_request), ("request", value), equals(value)
        )


class Arrivals:
    """Counts what workers say: each says its numbers in order, and each arrives once."""

    def __init__(self, run: Run, what: str) -> None:
        self.run = run
        self.what = what
        self.numbers: dict[str, int] = {}  # of a worker's life
        self.lock = threading.Lock()

    def note(self, text: str) -> None:
        life, number = text.split()
        with self.lock:
            expected = self.numbers.get(life, 0)
            if int(number) != expected:
                self.run.fail(f"{self.what} {number} of {life} came in place of {expected}")
            self.numbers[life] = expected + 1

    def have(self, life: str, number: int) -> bool:
        return self.numbers.get(life, 0) >= number


class Noting(logging.Handler):
    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self.arrivals = arrivals

    def emit(self, record: logging.LogRecord) -> None:
        self.arrivals.note(record.getMessage())


class Refusing(logging.Handler):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def emit(self, record: logging.LogRecord) -> None:
        # Some scenes make workers stuck, on purpose.
        if record.name != "aiointerpreters" or "is stuck" not in record.getMessage():
            self.run.fail(f"logged: {record.getMessage()}")


records: Arrivals
shown: Arrivals


@contextlib.contextmanager
def listening(run: Run) -> Iterator[None]:
    """Handle all records and warnings; any that nobody expects is a violation."""
    global records, shown
    records, shown = Arrivals(run, "record"), Arrivals(run, "warning")
    logger = logging.getLogger("stress")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(Noting(records))
    logging.getLogger("aiointerpreters").addHandler(Refusing(run))

    def show(message: Any, category: Any, *where: Any) -> None:
        if category is stress.StressWarning:
            shown.note(str(message))
        else:
            run.fail(f"a warning: {category.__name__}: {message} {where}")

    warnings.resetwarnings()
    warnings.simplefilter("always")
    # CPython warns of each fork in a program with threads.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    warnings.showwarning = show
    yield


def forget() -> None:
    """All workers have ended: so many, over a long run, that it would look like a leak."""
    records.numbers.clear()
    shown.numbers.clear()


async def log_records(actor: Actor) -> None:
    await _say(actor, stress.log, records, "logging")


async def issue_warnings(actor: Actor) -> None:
    await _say(actor, stress.warn, shown, "warnings")


async def _say(actor: Actor, fn: Any, arrivals: Arrivals, kind: str) -> None:
    dice = actor.dice
    runner = actor.runner("steady", "renewed", "options", "resized")
    number = dice.choice([1, 1, 10, 50])
    burst = Burst(actor.ledger, kind)
    for _ in range(dice.choice([1, 1, 5])):
        said: list[tuple[str, int]] = []
        result = await actor.ledger.call(
            kind,
            runner.run(fn, number),
            (fn.__name__, number),
            lambda result, error: error is None and result[1] > 0,
        )
        said.append(result)
    await burst.all_ended()
    # Before more is said, so that never so much waits that something would be dropped.
    for life, count in said:
        await actor.until(
            lambda life=life, count=count: arrivals.have(life, count),
            f"{arrivals.what} {count} of {life} does not come",
        )
