"""A queue between interpreters, threads and event loops.

Imported where a :class:`Queue` is made or arrives: in workers, too. There it must not load asyncio,
which takes more memory than all else that a worker has.
"""

from __future__ import annotations

import queue
import sys

from . import _core
from .errors import AioInterpretersError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    _AsyncioEmpty = asyncio.QueueEmpty
    _AsyncioFull = asyncio.QueueFull
    _AsyncioShutDown = asyncio.QueueShutDown
elif "asyncio" in sys.modules or not _core.in_worker():
    from asyncio import QueueEmpty as _AsyncioEmpty
    from asyncio import QueueFull as _AsyncioFull
    from asyncio import QueueShutDown as _AsyncioShutDown
else:
    # Nobody can catch what nobody has loaded.
    class _AsyncioEmpty(Exception): ...  # noqa: N818

    class _AsyncioFull(Exception): ...  # noqa: N818

    class _AsyncioShutDown(Exception): ...  # noqa: N818


__all__ = ("Queue", "QueueEmpty", "QueueFull", "QueueShutDown")

_NOTHING: Any = object()


class QueueEmpty(AioInterpretersError, _AsyncioEmpty, queue.Empty):  # noqa: N818 - as asyncio has it
    """There is no item in the queue, or none came in time.

    It is a :exc:`queue.Empty`, and an :exc:`asyncio.QueueEmpty` where asyncio is loaded.
    """


class QueueFull(AioInterpretersError, _AsyncioFull, queue.Full):  # noqa: N818
    """There is no room in the queue, or none came in time.

    It is a :exc:`queue.Full`, and an :exc:`asyncio.QueueFull` where asyncio is loaded.
    """


class QueueShutDown(AioInterpretersError, _AsyncioShutDown, queue.ShutDown):  # noqa: N818
    """The queue takes, or has, no more items, because of its :meth:`Queue.shutdown`.

    It is a :exc:`queue.ShutDown`, and an :exc:`asyncio.QueueShutDown` where asyncio is loaded.
    """


class Queue[T](_core.Queue[T]):
    """A first-in-first-out queue between interpreters, threads and event loops.

        def produce(queue, pages):  # in a worker
            try:
                for page in pages:
                    queue.put(parse(page))
            finally:
                queue.shutdown()  # or who waits for items would wait for ever

        results = Queue(maxsize=100)
        producer = runner.submit(produce, results, pages)
        try:
            while True:
                print(await results.aget())
        except QueueShutDown:
            await producer  # raises what it raised

    It can be made anywhere, and passed to a function, returned, put into a container or through
    another queue: all ends are the same queue, and compare equal. Items are sent as arguments and
    results are: what comes out is a copy, within one interpreter as well. What waits does so
    without polling, and without the GIL.

    ``get``, ``put``, ``get_nowait``, ``put_nowait``, ``qsize``, ``empty``, ``full`` and
    ``shutdown`` are as those of :class:`queue.Queue`; in a coroutine, await :meth:`aget` and
    :meth:`aput`, which do not block the loop.

    Args:
        maxsize: How many items there is room for; no bound, if it is 0 or less.
    """

    async def aget(self) -> T:
        """Remove and return the first item; wait for one if there is none.

        When it is cancelled no item is lost.

        Raises:
            QueueShutDown: The queue was shut down, and is empty.
            RunnerError: The queue belongs to the parent of this forked process.
        """
        again = False
        while (item := self._try_get(_NOTHING)) is _NOTHING:
            await self._notified(self._wait_to_get(again))
            again = True
        return item

    async def aput(self, item: T) -> None:
        """Put an item at the end; wait for room if there is none.

        When it is cancelled the item is not put.

        Raises:
            QueueShutDown: The queue was shut down.
            NotShareableError: The item cannot be sent.
            RunnerError: The queue belongs to the parent of this forked process.
        """
        packed = self._pack(item)
        again = False
        while not self._try_put(packed):
            await self._notified(self._wait_to_put(again))
            again = True

    async def _notified(self, future: asyncio.Future[None] | None) -> None:
        if future is None:
            return
        try:
            await future
        except BaseException:
            # Perhaps we had been told: then somebody else is to try in our place.
            self._pass_on()
            raise
