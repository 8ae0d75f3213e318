"""What a program and its processes send each other, over a socket, or in shared memory.

A message is a kind, and segments of bytes. Where these are large they are written, once, into
memory of the kernel (a *memfd*; elsewhere a file without a name), whose descriptor travels with the
message, and which the receiver maps: so nothing is pressed through the socket, and the receiver
makes no copy. The memory has no name in any folder, and goes with the last who maps it, however
that one ends.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Messages of so many bytes go through shared memory. With less the socket is as quick, or quicker:
#: it is received into memory that the process has had before, while what is shared is always new.
#: From 32 MiB on glibc's malloc() gets new memory for every message, too. Processes are told it.
SHARED_FROM = 32 << 20

#: Segments in shared memory begin at multiples of it, as arrays like it.
_ALIGNMENT = 64

#: Kind, whether it is in shared memory, count of segments.
_HEADER = struct.Struct("=BBQ")
_READONLY = 1 << 63
_SIZE = _READONLY - 1

#: What the kernel takes in one call.
_MOST_AT_ONCE = 1 << 30

#: Sockets can't be told to wait for longer (an int of milliseconds): they are waited for for ever.
_LONGEST = 2_000_000.0

_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)


class Disconnected(Exception):  # noqa: N818 - it is no error
    """The other side has closed its end, or has died."""


class Channel:
    """One end of the socket. One thread at a time may send, and one receive."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        # Whether a message has been received in part only, of which the rest did not come in time.
        self._is_out_of_step = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def has_message(self) -> bool:
        """Whether there is something to be received, or the other side is gone."""
        poll = select.poll()  # select() takes no descriptors from 1024 on
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def end(self) -> None:
        """Tell the other side that nothing more will be sent."""
        with contextlib.suppress(OSError):  # it has gone
            self._socket.shutdown(socket.SHUT_WR)

    def send(self, kind: int, segments: Sequence[Any]) -> None:
        """Send a message; the segments are bytes, or other contiguous buffers.

        Raises:
            Disconnected: The other side is gone.
            OSError: There is no memory to be shared.
        """
        views = [memoryview(segment).cast("B") for segment in segments]
        sizes = [view.nbytes | (_READONLY if view.readonly else 0) for view in views]
        is_large = sum(view.nbytes for view in views) >= SHARED_FROM
        head = _HEADER.pack(kind, is_large, len(views)) + struct.pack(f"={len(sizes)}Q", *sizes)
        if not is_large:
            self._send(b"".join((head, *views)))
            return
        memory = _new_memory()
        try:
            offset = 0
            for view in views:
                _write(memory, view, offset)
                offset = _aligned(offset + view.nbytes)
            os.ftruncate(memory, offset)
            self._send(head, memory)
        finally:
            os.close(memory)

    def _send(self, data: bytes, descriptor: int | None = None) -> None:
        try:
            sent = 0
            if descriptor is not None:
                sent = socket.send_fds(self._socket, [data], [descriptor])
            self._socket.sendall(memoryview(data)[sent:])
        except TimeoutError:
            raise
        except OSError as error:
            raise Disconnected from error

    def receive(self, timeout: float | None = None) -> tuple[int, list[memoryview]]:
        """Wait for a message; its segments can be written to if the sender's can.

        Raises:
            Disconnected: The other side is gone, or out of step: a message has come in part.
            TimeoutError: Nothing has come in time, or a message in part only.
            OSError: Its memory could not be mapped; the channel is out of step then.
        """
        if self._is_out_of_step:
            raise Disconnected
        if timeout is not None and timeout > _LONGEST:
            timeout = None
        self._socket.settimeout(timeout)
        try:
            received = self._receive()
        except TimeoutError:
            raise
        except ConnectionError as error:
            raise Disconnected from error
        finally:
            if timeout is not None:
                self._socket.settimeout(None)
        self._is_out_of_step = False
        return received

    def _receive(self) -> tuple[int, list[memoryview]]:
        head, descriptors, *_ = socket.recv_fds(
            self._socket, _HEADER.size, 1, socket.MSG_CMSG_CLOEXEC
        )
        self._is_out_of_step = True  # until all of it is here
        try:
            if len(head) < _HEADER.size:
                head += self._exactly(_HEADER.size - len(head))
            kind, is_large, count = _HEADER.unpack(head)
            sizes = struct.unpack(f"={count}Q", self._exactly(8 * count))
            if not is_large:
                memory: Any = self._exactly(sum(size & _SIZE for size in sizes))
            elif not descriptors:  # the kernel had no number for it, and dropped it
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            else:
                memory = mmap.mmap(descriptors[0], 0, flags=_FLAGS, trackfd=False)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        view = memoryview(memory)
        segments = []
        offset = 0
        for size in sizes:
            segment = view[offset : offset + (size & _SIZE)]
            segments.append(segment.toreadonly() if size & _READONLY else segment)
            offset += size & _SIZE
            if is_large:
                offset = _aligned(offset)
        return kind, segments

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self._socket.recv_into(view)
            if got == 0:
                raise Disconnected
            view = view[got:]
        return data


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _write(descriptor: int, view: memoryview, offset: int) -> None:
    """Not through a mapping: that would take a page fault for each page."""
    while view:
        written = os.pwrite(descriptor, view[:_MOST_AT_ONCE], offset)
        offset += written
        view = view[written:]


def _new_memory() -> int:
    """A descriptor of memory without a name. Raises OSError."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("aiointerpreters")
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
