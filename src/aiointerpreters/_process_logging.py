"""Log records and warnings of a process, on their way to the program.

They go through the socket, between other messages; the thread that serves the process puts them
into the queue that workers have, too (_forwarding.py).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
from collections import deque

from . import _core, _forwarding, _wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ._forwarding import Levels

#: The kind of these messages.
LOGGED = 16


class Channel(_wire.Channel):
    """A process's end of the socket: several threads may log, while one thread sends the rest."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end)
        # Who sends. Reentrant, as a finalizer may log at any moment; but what is logged while this
        # very thread is in the middle of a message waits for its end.
        self._sending = threading.RLock()
        self._sender: int | None = None
        self._logged: deque[bytes] = deque()

    def send(self, kind: int, segments: Sequence[Any]) -> None:
        with self._turn():
            super().send(kind, segments)
        self._flush()

    def log(self, item: bytes) -> None:
        """Send it, after what was logged before."""
        self._logged.append(item)
        if self._sender != threading.get_ident():
            self._flush()

    def _flush(self) -> None:
        while self._logged:
            with self._turn():
                pass

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """This thread alone sends: first what was logged."""
        with self._sending:
            self._sender = threading.get_ident()
            try:
                while self._logged:
                    super().send(LOGGED, [self._logged.popleft()])
                yield
            finally:
                self._sender = None


class ProcessChannel:
    """A process's way to the program: what _forwarding.Channel is to a worker."""

    def __init__(self, channel: Channel, levels: Levels, worker: str) -> None:
        self.levels = levels
        self.worker = worker
        self._channel = channel
        self._own_thread = threading.get_ident()
        self._process = os.getpid()

    def is_forked(self) -> bool:
        """Whether this is a child of the process, which speaks to nobody."""
        return self._process != os.getpid()

    def send(self, item: tuple[Any, ...]) -> None:
        """Send an item of exact builtins. Never raises."""
        with contextlib.suppress(Exception):  # the program has gone, or stopped listening
            self._channel.log(pickle.dumps(item, 5))

    def thread_name(self, ident: int | None, name: str | None) -> str | None:
        """How a thread of this process is called in the program."""
        return _forwarding.name_of_thread(self.worker, ident == self._own_thread, name)


def forward(channel: Channel, levels: Levels, worker: str) -> None:
    """Forward what this process logs, and warns of, from now on."""
    _forwarding.channel = ProcessChannel(channel, levels, worker)
    sys.meta_path.insert(0, _core)
    _forwarding.forward_loaded()
