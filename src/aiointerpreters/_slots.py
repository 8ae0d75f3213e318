"""The slots of a runner with ``max_pending``: how many calls may be accepted and not yet done.

A call takes a :class:`Slot`, which is the callback that its future calls when it is done. Calls
that find no slot wait in a line, first come first served, whichever event loop they are in: while
somebody waits nobody else gets one.

Slots are given back wherever a future or a coroutine ends: in another loop's thread, or as the
garbage collector finds them, which may be in the middle of what stands here. So whatever can be
called like that never waits for the lock. It notes what it has to say, by operations that are
atomic, and hands slots out if nobody else is at it just now; whoever is looks again afterwards.
"""

import asyncio
import os
import threading
from collections import OrderedDict, deque

from .errors import RunnerFull


class Slot:
    """The right to have a call accepted. Called, or dropped, it is given back."""

    __slots__ = ("_slots",)

    def __init__(self, slots: "Slots") -> None:
        self._slots = slots

    def __call__(self, _: object = None) -> None:
        self._slots._give_back(self)

    def __del__(self) -> None:
        # A loop that was closed lets go of its futures, and never calls them.
        self._slots._give_back(self)


class _Waiter:
    """A coroutine that waits for a slot."""

    __slots__ = ("loop", "slot", "thread", "woken")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.woken: asyncio.Future[None] = self.loop.create_future()
        self.slot: Slot | None = None  # set before it is woken, by who took it out of the line

    def wake(self) -> bool:
        """Let the coroutine go on. False: its loop is closed."""
        if self.loop.is_closed():
            return False
        if self.thread == threading.get_ident():
            self._wake_here()
            return True
        try:
            self.loop.call_soon_threadsafe(self._wake_here)
        except RuntimeError:  # it was closed just now
            return False
        return True

    def _wake_here(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)
        elif self.slot is not None:  # it was cancelled, before it had the slot
            self.slot()


class Slots:
    """The slots of one runner: `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._free = limit  # guarded by the lock
        self._loops: set[asyncio.AbstractEventLoop] = set()  # of slots; guarded by the lock
        # Only operations that are atomic are used on these three, with the lock or without.
        self._returned: deque[None] = deque()  # slots to be added to `_free`
        self._waiting: OrderedDict[_Waiter, bool] = OrderedDict()  # who is first, first
        self._taken: dict[int, asyncio.AbstractEventLoop] = {}  # id of a slot: the loop of its call
        self._is_closed = False  # set once
        self._process = os.getpid()

    def take(self) -> Slot | None:
        """A slot for a call in the running loop, if there is one and nobody waits for it."""
        if self._process != os.getpid():
            return None  # who held the lock at the fork does not exist here
        loop = asyncio.get_running_loop()
        with self._lock:
            self._collect()
            slot = None
            if self._free > 0 and not self._waiting:
                slot = self._new(loop)
        self._hand_out()
        return slot

    async def wait(self) -> Slot | None:
        """A slot, when it is one's turn; None if there is no use in waiting.

        That is where the runner is closed, or belongs to the parent process: a submit says so.
        """
        slot = self.take()
        if slot is not None or self._is_useless():
            return slot
        waiter = _Waiter()
        self._waiting[waiter] = True
        # A slot may have come back just before, or the runner been closed.
        self._hand_out()
        if self._is_closed:
            self.close()
        try:
            await waiter.woken
        except BaseException:  # cancelled; or the coroutine is collected with its loop
            if self._waiting.pop(waiter, False):
                self._hand_out()
            elif waiter.slot is not None:
                waiter.slot()
            raise
        return waiter.slot

    def take_or_refuse(self) -> Slot | None:
        """A slot now; None as :meth:`wait` says, or without a loop. Raises RunnerFull."""
        try:
            slot = self.take()
        except RuntimeError:  # no loop runs in this thread: a submit says so
            return None
        if slot is None and not self._is_useless():
            raise RunnerFull(
                f"{self.limit} calls are pending, which is this runner's max_pending: "
                "await run(), which waits for its turn, or submit again when some are done"
            )
        return slot

    def close(self) -> None:
        """Let everybody go who waits, without a slot."""
        self._is_closed = True
        while True:
            try:
                waiter, _ = self._waiting.popitem(last=False)
            except KeyError:
                return
            waiter.wake()

    def _is_useless(self) -> bool:
        return self._is_closed or self._process != os.getpid()

    def _new(self, loop: asyncio.AbstractEventLoop) -> Slot:
        """A slot out of `_free`; the lock is held."""
        self._free -= 1
        if loop not in self._loops:
            self._take_from_closed_loops()  # and forget them
            self._loops.add(loop)
        slot = Slot(self)
        self._taken[id(slot)] = loop
        return slot

    def _give_back(self, slot: Slot) -> None:
        """Whichever comes first counts: the call, the end of the object, the end of its loop."""
        if self._taken.pop(id(slot), None) is not None:
            self._returned.append(None)
            self._hand_out()

    def _collect(self) -> None:
        """Add what was given back to `_free`; the lock is held."""
        while self._returned:
            self._returned.popleft()
            self._free += 1
        if self._free == 0:
            self._take_from_closed_loops()

    def _take_from_closed_loops(self) -> None:
        """Futures of a loop that was closed are never done; the lock is held."""
        for closed in [loop for loop in self._loops if loop.is_closed()]:
            self._loops.discard(closed)
            for key, loop in self._taken.copy().items():
                if loop is closed and self._taken.pop(key, None) is not None:
                    self._free += 1

    def _hand_out(self) -> None:
        """Give slots to who waits, unless somebody is doing just that, who will look again."""
        while self._has_business() and self._lock.acquire(blocking=False):
            try:
                self._collect()
                while self._free > 0:
                    try:
                        waiter, _ = self._waiting.popitem(last=False)
                    except KeyError:
                        break
                    waiter.slot = self._new(waiter.loop)
                    if not waiter.wake():
                        waiter.slot()
                        self._collect()
            finally:
                self._lock.release()

    def _has_business(self) -> bool:
        return bool(self._waiting) and (bool(self._returned) or self._free > 0)
