"""The calls: each must end exactly once, with the outcome that is known beforehand.

A ledger belongs to one thread, in which all callbacks of its loop's futures run.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from report import Run, shortened

from helpers.sameness import same

#: Of a result, or of an exception: whether it is what is expected.
type Outcome = Callable[[Any, BaseException | None], bool]


def gives(expected: Any) -> Outcome:
    return lambda result, error: error is None and same(result, expected)


def equals(expected: Any) -> Outcome:
    """As `gives`, for what is simple."""
    return lambda result, error: error is None and result == expected


def raises(kind: type[BaseException], *args: Any) -> Outcome:
    return lambda _, error: type(error) is kind and (not args or error.args == args)


class Ledger:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.begun = 0
        self.ended = 0
        self.kinds: Counter[str] = Counter()

    def begin(self) -> None:
        self.begun += 1

    def end(self, kind: str) -> None:
        self.ended += 1
        self.kinds[kind] += 1

    def check(
        self,
        what: Any,
        outcome: Outcome,
        allowed: tuple[type[BaseException], ...],
        result: Any,
        error: BaseException | None,
    ) -> None:
        if error is not None and isinstance(error, allowed):
            return
        if not outcome(result, error):
            ending = shortened(result) if error is None else f"an error: {error!r}"
            text = f"{shortened(what)} ended with {ending}"
            if error is None:
                self.run.fail(text)
            self.run.fail_by(error, text)

    async def call(
        self,
        kind: str,
        awaitable: Coroutine[Any, Any, Any],
        what: Any,
        outcome: Outcome,
        allowed: tuple[type[BaseException], ...] = (),
    ) -> Any:
        """Await it; return its result, None if it raised what it was expected to."""
        self.begin()
        result = error = None
        try:
            result = await awaitable
        except BaseException as raised:
            task = asyncio.current_task()
            if isinstance(raised, asyncio.CancelledError) and task and task.cancelling():
                self.end(kind)
                raise
            error = raised
        self.end(kind)
        self.check(what, outcome, allowed, result, error)
        return result


class Burst:
    """Calls that are submitted one after the other."""

    def __init__(self, ledger: Ledger, kind: str) -> None:
        self.ledger = ledger
        self.kind = kind
        self.futures: list[asyncio.Future[Any]] = []
        self._sent: list[tuple[Any, Outcome, tuple[type[BaseException], ...]]] = []
        self._has_ended = bytearray()
        self._left = 0
        self._all_ended: asyncio.Future[None] | None = None

    def submit(
        self,
        submit: Callable[..., asyncio.Future[Any]],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        outcome: Outcome,
        *,
        kwargs: dict[str, Any] | None = None,
        allowed: tuple[type[BaseException], ...] = (),
        refused: tuple[type[BaseException], ...] = (),
    ) -> asyncio.Future[Any] | None:
        """Submit a call. None if it ended at once: with an error that may be, or had to be."""
        ledger = self.ledger
        ledger.begin()
        try:
            future = submit(fn, *args, **(kwargs or {}))
        except Exception as error:
            ledger.end(self.kind)
            ledger.check((fn, args, kwargs), outcome, (*allowed, *refused), None, error)
            return None
        self.add(future, (fn, args, kwargs), outcome, allowed)
        return future

    def add(
        self,
        future: asyncio.Future[Any],
        what: Any,
        outcome: Outcome,
        allowed: tuple[type[BaseException], ...] = (),
    ) -> None:
        """What has begun already."""
        index = len(self._sent)
        self._sent.append((what, outcome, allowed))
        self._has_ended.append(False)
        self._left += 1
        self.futures.append(future)
        future.add_done_callback(functools.partial(self._end, index))

    def _end(self, index: int, future: asyncio.Future[Any]) -> None:
        what, outcome, allowed = self._sent[index]
        ledger = self.ledger
        if self._has_ended[index]:
            ledger.run.fail(f"{shortened(what)} ended twice")
        self._has_ended[index] = True
        self._left -= 1
        ledger.end(self.kind)
        result = error = None
        if future.cancelled():
            error = asyncio.CancelledError()
        elif (error := future.exception()) is None:
            result = future.result()
        ledger.check(what, outcome, allowed, result, error)
        if not self._left and self._all_ended is not None and not self._all_ended.done():
            self._all_ended.set_result(None)

    async def all_ended(self) -> None:
        if self._left:
            self._all_ended = asyncio.get_running_loop().create_future()
            await self._all_ended
        if not all(self._has_ended):
            self.ledger.run.fail(f"a call of {self._sent[:3]} has not ended")
