"""Pipes by which a test and the functions in its workers wait for each other.

File descriptors belong to the process, so a worker can use the number that it is given.
"""

import asyncio
import os
import select

from helpers.limits import SOON


async def readable(fd: int) -> None:
    """Wait until there is something to read from `fd`."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    try:
        async with asyncio.timeout(SOON):
            await ready
    finally:
        loop.remove_reader(fd)


class Gate:
    """Where workers wait until the test lets them go.

    A worker calls `waiting.wait_at(*gate.fds)`: it announces itself, then waits. The test
    awaits `gate.reached(n)`, and calls `gate.open()`, after which nobody waits any more.
    Leaving a `with gate:` block opens it, so that a failing test does not hang.
    """

    def __init__(self) -> None:
        self._arrivals, self._announce = os.pipe()
        self._wait, self._hold = os.pipe()
        self._opened = False

    @property
    def fds(self) -> tuple[int, int]:
        return self._announce, self._wait

    async def reached(self, count: int = 1) -> None:
        for _ in range(count):
            await readable(self._arrivals)
            os.read(self._arrivals, 1)

    def reached_blocking(self, count: int = 1) -> None:
        for _ in range(count):
            assert select.select([self._arrivals], [], [], SOON)[0], "nobody came to the gate"
            os.read(self._arrivals, 1)

    def more_arrived(self) -> bool:
        return bool(select.select([self._arrivals], [], [], 0)[0])

    def open(self) -> None:
        if not self._opened:
            self._opened = True
            os.close(self._hold)

    def close(self) -> None:
        self.open()
        for fd in (self._arrivals, self._announce, self._wait):
            os.close(fd)

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    async def __aenter__(self) -> "Gate":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open()


class Signals:
    """A pipe for a byte per event: whoever sees the event writes to `fd`, the test waits.

    The loop that awaits them sleeps in its selector until a byte is there, and the worker that
    writes one may be idle otherwise: that is how a test knows that nothing else was needed.
    """

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()

    async def arrive(self, count: int = 1) -> bytes:
        found = b""
        while len(found) < count:
            await readable(self._read)
            found += os.read(self._read, count - len(found))
        return found

    def arrive_blocking(self, count: int = 1) -> bytes:
        found = b""
        while len(found) < count:
            assert select.select([self._read], [], [], SOON)[0], "no signal came"
            found += os.read(self._read, count - len(found))
        return found

    def any_came(self) -> bool:
        return bool(select.select([self._read], [], [], 0)[0])

    def close(self) -> None:
        os.close(self._read)
        os.close(self.fd)


class Trace:
    """What workers wrote with `waiting.leave_mark(trace.fd, …)`, in the order of the writes."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        os.set_blocking(self._read, False)

    def marks(self) -> bytes:
        """All marks since the last call."""
        found = b""
        while True:
            try:
                found += os.read(self._read, 65536)
            except BlockingIOError:
                return found

    def close(self) -> None:
        os.close(self._read)
        os.close(self.fd)
