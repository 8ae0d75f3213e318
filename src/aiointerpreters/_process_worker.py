"""The process's side: what runs in each process of a runner, and how it ends with the program."""

from __future__ import annotations

import os
import signal
import socket
import sys

from . import (
    _context,
    _failures,
    _finding,
    _main,
    _parcels,
    _process_logging,
    _wire,
    _worker,
    workers,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# Kinds of messages. From the program:
SET_UP, CALL, STREAM, MORE, CLOSE = range(1, 6)
# From the process (and what it logs):
READY, BROKEN, RETURNED, RAISED, ITEM = range(11, 16)


def main(channel_fd: int, lifeline_fd: int) -> None:
    """The life of a process, until the program ends its end of the socket."""
    for descriptor in (channel_fd, lifeline_fd):
        os.set_inheritable(descriptor, False)
    end_with_program(lifeline_fd)
    # Ctrl-C is the program's business. (A handler, as programs that are started inherit SIG_IGN.)
    signal.signal(signal.SIGINT, lambda *_: None)
    channel = _process_logging.Channel(socket.socket(fileno=channel_fd))
    # A forked child, of multiprocessing for example, must not hold the socket open.
    os.register_at_fork(after_in_child=channel.close)
    try:
        if set_up(channel):
            while True:
                serve(channel)
    except _wire.Disconnected:
        pass


def end_with_program(lifeline: int) -> None:
    """End this process when the other end of the pipe is closed, whatever runs here.

    On Linux the kernel does it; elsewhere a thread, which needs the GIL for it.
    """
    import fcntl

    if hasattr(fcntl, "F_SETSIG") and not os.environ.get("AIOINTERPRETERS_PORTABLE"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_NONBLOCK | fcntl.FASYNC)
        try:
            if os.read(lifeline, 1) == b"":  # it was closed before
                os._exit(1)
        except BlockingIOError:
            pass
        return
    import _thread

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    _thread.start_new_thread(wait, ())


def set_up(channel: _process_logging.Channel) -> bool:
    """What the program tells first; whether this process can be used."""
    _, segments = channel.receive()
    about = _parcels.about(segments)
    sys.argv[:] = about["argv"]
    _main.tell(about["main"])
    _context.tell(about["places"])
    _wire.SHARED_FROM = about["shared_from"]
    workers.tell(about["index"], about["name"])
    if about["levels"] is not None:
        _process_logging.forward(channel, about["levels"], f"{about['name']}-{about['index']}")
    try:
        steps = _parcels.unpack(segments)
        if steps is not None:
            _worker.do_first_steps(*steps)
    except BaseException as error:
        channel.send(BROKEN, _parcels.pack(_failures.pack(error), "exception"))
        return False
    channel.send(READY, [])
    return True


def serve(channel: _wire.Channel) -> None:
    """Wait for a call, make it, and send its outcome."""
    kind, segments = channel.receive()
    if kind in (MORE, CLOSE):  # of a stream that had just ended
        return
    try:
        name, is_coroutine, window = _parcels.about(segments)
        context, function, args, kwargs = _parcels.unpack(segments)
        del segments
        if name is not None:
            function = _finding.resolve(*name)
        if kind == STREAM:
            result = None
            call_in(context, iterate, (channel, window, function, args, kwargs), {}, is_coroutine)
        else:
            result = call_in(context, function, args, kwargs, is_coroutine)
        del args, kwargs, function
        outcome = _parcels.pack(result, "result")
        kind = RETURNED
    except _wire.Disconnected:
        raise
    except BaseException as error:
        outcome = _parcels.pack(_failures.pack(without_us(error)), "exception")
        kind = RAISED
    try:
        channel.send(kind, outcome)
    except OSError as error:  # no memory to be shared: nothing has been sent
        channel.send(RAISED, _parcels.pack(_failures.pack(without_us(error)), "exception"))


def call_in(
    context: _context.Pairs | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    is_coroutine: bool,
) -> Any:
    if is_coroutine:
        from contextvars import copy_context

        # In asyncio.Runner's own, all calls would see what those before them have set.
        return event_loop().run(_await(context, function, args, kwargs), context=copy_context())
    if not context:
        return function(*args, **kwargs)
    return _context.call(context, function, args, kwargs)


async def _await(
    context: _context.Pairs | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    _context.enter(context or ())
    return await (iterate_async if function is iterate else function)(*args, **kwargs)


_event_loop: Any = None


def event_loop() -> Any:
    """The process's asyncio.Runner."""
    global _event_loop
    if _event_loop is None:
        import asyncio

        _event_loop = asyncio.Runner()
    return _event_loop


def without_us(error: BaseException) -> BaseException:
    """The traceback shall look as without this module."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    if traceback is not None:
        error.__traceback__ = traceback
    return error


# ---- streams ----


class Window:
    """How many more items the program takes for now; waits for it to take more."""

    def __init__(self, channel: _wire.Channel, size: int) -> None:
        self.channel = channel
        self.left = size

    def send(self, item: object) -> bool:
        """Send an item, and wait until there may be another; False if no more are wanted."""
        self.channel.send(ITEM, _parcels.pack(item, "item"))
        self.left -= 1
        while self.left == 0 or self.channel.has_message():
            kind, _ = self.channel.receive()
            if kind == CLOSE:
                return False
            self.left += 1
        return True


def iterate(
    channel: _wire.Channel, size: int, function: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    """Iterate over what the function returns, and send each item."""
    window = Window(channel, size)
    iterator: Iterator[Any] = iter(function(*args, **kwargs))
    try:
        for item in iterator:
            if not window.send(item):
                return
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


async def iterate_async(
    channel: _wire.Channel, size: int, function: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    """The same with an asynchronous one."""
    window = Window(channel, size)
    iterator = aiter(function(*args, **kwargs))
    try:
        async for item in iterator:
            if not window.send(item):
                return
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
