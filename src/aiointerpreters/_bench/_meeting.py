"""A meeting of all workers of a pool: a call that returns in each of them once all have begun it.

So each worker has run one of the calls, none two. It works for threads, interpreters and processes
alike, as they meet at two named pipes:

    each worker     writes a byte into `arrived`, then waits for one from `leave`
    the event loop  reads as many bytes as there are workers, then writes as many

What a worker runs is imported there: so this module imports next to nothing, `__future__` neither.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any


def attend(folder: str) -> None:
    """Come to the meeting, and stay until it's over."""
    _transfer(folder, "arrived", os.O_WRONLY, lambda pipe: os.write(pipe, b"."))
    _transfer(folder, "leave", os.O_RDONLY, lambda pipe: os.read(pipe, 1))


def _transfer(folder: str, name: str, mode: int, action: "Callable[[int], object]") -> None:
    pipe = os.open(os.path.join(folder, name), mode)
    try:
        action(pipe)
    finally:
        os.close(pipe)


class Meeting:
    """A place to meet, for one meeting after another.

    with Meeting() as meeting:
        await meeting.hold(pool.call, workers)
    """

    def __enter__(self) -> "Meeting":
        import tempfile

        self._folder = tempfile.TemporaryDirectory()
        self._arrived, self._leave = map(self._open_pipe, ("arrived", "leave"))
        return self

    def _open_pipe(self, name: str) -> int:
        path = os.path.join(self._folder.name, name)
        os.mkfifo(path)
        # Both ways, so that a worker's open() never waits for the other end.
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def __exit__(self, *_: object) -> None:
        os.close(self._arrived)
        os.close(self._leave)
        self._folder.cleanup()

    async def hold(self, call: "Callable[..., Awaitable[Any]]", workers: int) -> None:
        """Call all workers together; `call(function, *args)` is the pool's."""
        import asyncio

        loop = asyncio.get_running_loop()
        missing = workers

        def on_arrival() -> None:
            nonlocal missing
            missing -= len(os.read(self._arrived, missing))
            if missing == 0:
                loop.remove_reader(self._arrived)
                os.write(self._leave, b"." * workers)

        loop.add_reader(self._arrived, on_arrival)
        try:
            await asyncio.gather(*(call(attend, self._folder.name) for _ in range(workers)))
        finally:
            loop.remove_reader(self._arrived)
