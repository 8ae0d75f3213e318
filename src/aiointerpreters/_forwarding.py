"""Log records and warnings, from a worker to the main program; _listening.py is the other end.

A process of a runner has the same, by way of its socket (_process_logging.py).

Nothing is imported for it when a worker starts, this module neither. A finder (finder.c) waits for
the worker to import `logging` or `warnings`: when they have been loaded they are set up here. Then
a handler of the root logger (_records.py), and ``warnings.showwarning``, send what they get to the
main program's queue.
"""

from __future__ import annotations

import _thread
import atexit
import sys
import time

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, TextIO

    from ._process_logging import ProcessChannel

#: The levels that loggers of the main program were given, by name, and that of logging.disable().
type Levels = tuple[dict[str, int], int]
#: What a worker needs to know of the main program: the queue, the levels.
type Link = tuple[_core.Queue[Any], Levels]

#: How many items may wait in the queue for the main program's handlers. What comes then is dropped,
#: until they are no more than RESUME: or there would be a gap after every other record.
LIMIT = 10_000
RESUME = LIMIT // 2


class Outlet:
    """Puts a worker's items into the main program's queue; never blocks, and never raises.

    The queue has no bound of its own, so that there is always room to tell of what was dropped:

    - where the dropping begins, in order with the records, with a view of the count. When that has
      come to its turn in the main program there is room again, and the count says how many it was.
    - where records get through again, or the worker ends.
    """

    def __init__(self, queue: _core.Queue[Any], worker: str) -> None:
        self.queue = queue
        self.worker = worker
        #: Unlike the name, which is used again, no other worker has it.
        self._key = (_thread.get_native_id(), time.monotonic_ns())
        #: What is to be sent, in this order; None: that nothing more comes.
        self._items: list[tuple[Any, ...] | None] = []
        # Whoever has it sends, and guards the rest. Nobody waits for it, since many other locks may
        # be held here: that of `warnings`, those of a finalizer which logs in the midst of sending.
        self._turn = _thread.allocate_lock()
        self._is_dropping = False
        #: How many items were ever dropped: 8 bytes, little-endian.
        self._dropped = bytearray(8)

    def send(self, item: tuple[Any, ...]) -> None:
        """Put an item of exact builtins, or drop it and count that."""
        self._send(item)

    def end(self) -> None:
        """Nothing more comes: tell what was dropped."""
        self._send(None)

    def _send(self, item: tuple[Any, ...] | None) -> None:
        try:
            _core.hold_off(True)  # an interruption would keep the turn
            self._items.append(item)
            # Who finds that another one sends leaves it to that one, which looks once more.
            while self._items and self._turn.acquire(blocking=False):
                try:
                    while self._items:
                        self._put(self._items.pop(0))
                finally:
                    self._turn.release()
        finally:
            _core.hold_off(False)

    def _put(self, item: tuple[Any, ...] | None) -> None:
        try:
            limit = RESUME if self._is_dropping else LIMIT
            if item is not None and self.queue.qsize() >= limit:
                self._drop()
                return
            self._report()
            if item is not None:
                self.queue.put_nowait(item)
        except Exception:
            # The main program has stopped listening, or this worker is ending.
            pass

    def _drop(self) -> None:
        count = int.from_bytes(self._dropped, "little") + 1
        self._dropped[:] = count.to_bytes(8, "little")
        if not self._is_dropping:
            self._is_dropping = True
            view = memoryview(self._dropped).toreadonly()
            self.queue.put_nowait(("dropping", self._key, self.worker, view))

    def _report(self) -> None:
        if self._is_dropping:
            self._is_dropping = False
            count = int.from_bytes(self._dropped, "little")
            self.queue.put_nowait(("dropped", self._key, self.worker, count))


class Channel(Outlet):
    """A worker's own."""

    def __init__(self, link: Link) -> None:
        queue, self.levels = link
        worker = _core.worker()
        assert worker is not None
        index, runner_name, self._own_thread = worker
        super().__init__(queue, f"{runner_name}-{index}")
        self._ends_at_exit = False

    def is_forked(self) -> bool:
        """Never: a subinterpreter can't fork."""
        return False

    def thread_name(self, ident: int | None, name: str | None) -> str | None:
        """How a thread of this worker is called in the main program."""
        return name_of_thread(self.worker, ident == self._own_thread, name)

    def _drop(self) -> None:
        super()._drop()
        if not self._ends_at_exit:
            self._ends_at_exit = True
            atexit.register(self.end)


def name_of_thread(worker: str, is_own: bool, name: str | None) -> str | None:
    """How a thread of a worker is called in the main program; the worker's own, or another one."""
    if name is None:  # logging.logThreads is off
        return None
    return worker if is_own else f"{worker}/{name}"


_told = _core.told()
_link: Link | None = None if _told is None else _told[1]
#: This worker's way to the main program; None in a program that is no worker, or has none.
channel: Channel | ProcessChannel | None = None if _link is None else Channel(_link)


# ---- when a module is imported ----


def forward_loaded() -> None:
    """Forward what comes from the modules that are loaded already."""
    for name, set_up_module in _WAITS_FOR.items():
        if name in sys.modules:
            set_up_module(sys.modules[name])


def forward(module: ModuleType) -> None:
    """Forward what comes from that module, which has just been loaded, or reloaded."""
    if channel is not None:  # as it is where user code has removed our modules
        _WAITS_FOR[module.__name__](module)


def _set_up_logging(logging: ModuleType) -> None:
    from . import _records

    assert channel is not None
    _records.set_up(logging, channel)


# ---- warnings ----


def _set_up_warnings(warnings: ModuleType) -> None:
    """Send what this worker's filters let through to the main program.

    As with ``logging.captureWarnings()``, what user code assigns to it later counts.
    """
    assert channel is not None
    send, is_forked = channel.send, channel.is_forked
    show_here = warnings.showwarning

    def showwarning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        try:
            if file is not None or is_forked():
                raise TypeError("it is shown here")
            item = ("warning", _plain(str(message)), category.__module__, category.__qualname__)
            place = (_plain(filename), int(lineno), _module_of(filename))
        except Exception:  # of the message's __str__, say
            show_here(message, category, filename, lineno, file, line)
            return
        send(item + place)

    warnings.showwarning = showwarning  # type: ignore[attr-defined]


def _plain(text: str) -> str:
    """Not of a subclass."""
    return str.__str__(text)


def _module_of(filename: str) -> str | None:
    """The module of that file, which filters may ask for."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == filename:
            return "__main__" if name == "__mp_main__" else name
    return None


_WAITS_FOR: dict[str, Callable[[ModuleType], None]] = {
    "logging": _set_up_logging,
    "warnings": _set_up_warnings,
}
