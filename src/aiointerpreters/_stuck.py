"""What the program hears of a worker that is stuck: a log record, and errors of its coroutines."""

from __future__ import annotations

import logging

from .errors import WorkerStuck

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._finding import FunctionName

_logger = logging.getLogger("aiointerpreters")

#: As AioStuckSequel has it.
_SEQUELS = (
    "another one has taken its place",
    "the system has no room for another one in its place",
    "no other one is needed in its place",
)


def error(
    _name: FunctionName | None, pool: str, index: int, _seconds: float, _sequel: int
) -> WorkerStuck:
    """What a coroutine fails with that hangs because another one does not come to its end."""
    return WorkerStuck(
        f"the worker {pool}-{index} is stuck in another coroutine, which was cancelled and could "
        "not be stopped in time, so this call was given up, too: it may have done part of its "
        "work, or be called again; code that blocks should be awaited by asyncio.to_thread(), or "
        "be a plain function"
    )


def log(name: FunctionName | None, pool: str, index: int, seconds: float, sequel: int) -> None:
    _logger.warning(
        "%s has not ended %.3g seconds after it was told to stop: "
        "the worker %s-%d is stuck, and %s",
        _describe(name),
        seconds,
        pool,
        index,
        _SEQUELS[sequel],
    )


def _describe(name: FunctionName | None) -> str:
    if name is None:
        return "a function that was sent by value"
    _, module, qualname = name
    if module == "aiointerpreters._pumping":
        return "the generator of a stream"
    return f"{module}.{qualname}"
