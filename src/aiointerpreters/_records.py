"""Log records as plain values: from a worker (pack), to the main program (rebuild).

Imported in a worker once `logging` is loaded there.
"""

from __future__ import annotations

import functools
import logging

from . import _main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from ._forwarding import Channel, Levels
    from ._process_logging import ProcessChannel

    type Way = Channel | ProcessChannel

#: What crosses as it is; anything else by pickle, with its repr for where that can't be read.
_PLAIN = (type(None), bool, int, float, str)

#: The attributes of a record that are plain, and the others.
type Packed = tuple[dict[str, Any], dict[str, tuple[bytes | None, str]]]


# ---- in a worker ----


class Forwarder(logging.Handler):
    """The handler of a worker's root logger."""

    def __init__(self, channel: Way) -> None:
        super().__init__()
        self._channel = channel

    def handle(self, record: logging.LogRecord) -> bool:
        """As any handler's, without its lock: what it would guard, the channel does."""
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        if self._channel.is_forked():
            if logging.lastResort is not None and record.levelno >= logging.lastResort.level:
                logging.lastResort.handle(record)
            return
        try:
            item = ("record", *pack(record, self._channel))
        except Exception:
            self.handleError(record)
        else:
            self._channel.send(item)


def set_up(module: ModuleType, channel: Way) -> None:
    """Forward the records of the `logging` that has just been loaded, or reloaded."""
    levels, disabled = channel.levels
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.disable(disabled)
    forwarder = Forwarder(channel)
    logging.root.addHandler(forwarder)
    module.basicConfig = _basic_config(module.basicConfig, forwarder)  # type: ignore[attr-defined]


def _basic_config(original: Any, forwarder: Forwarder) -> Any:
    """A basicConfig() for which the forwarder is no handler that the worker's code has set.

    It does nothing where the root logger has handlers; and so it should, if it only asks for what
    the main program's handlers do already, or stands in the main script, which the worker loads
    once more. But if an initializer, say, asks for a file or handlers of its own it gets them; and
    with ``force`` they take the forwarder's place.
    """

    @functools.wraps(original)
    def basic_config(**options: Any) -> None:
        own = any(options.get(name) is not None for name in ("filename", "stream", "handlers"))
        beside = own and not options.get("force") and not _main.is_loading()
        if not beside or forwarder not in logging.root.handlers:
            original(**options)
            return
        logging.root.removeHandler(forwarder)
        try:
            original(**options)
        finally:
            logging.root.addHandler(forwarder)

    return basic_config


def pack(record: logging.LogRecord, channel: Way) -> Packed:
    """Tell of a record in plain values. Raises what formatting its message raises."""
    attributes = dict(record.__dict__)
    attributes["msg"] = record.getMessage()
    attributes.pop("message", None)
    attributes["args"] = None
    exc_info = attributes.pop("exc_info", None)
    if exc_info and not attributes.get("exc_text"):
        attributes["exc_text"] = logging.Formatter().formatException(exc_info)
    attributes["threadName"] = channel.thread_name(record.thread, record.threadName)
    plain: dict[str, Any] = {}
    others: dict[str, tuple[bytes | None, str]] = {}
    for name, value in attributes.items():
        if type(value) in _PLAIN:
            plain[name] = value
        else:
            others[name] = (_try_dumps(value), _repr(value))
    return plain, others


def _try_dumps(value: object) -> bytes | None:
    from . import _pickling

    try:
        return _pickling.dumps(value)
    except Exception:  # its __reduce__ may raise anything
        return None


def _repr(value: object) -> str:
    try:
        return str.__str__(repr(value))
    except Exception:
        return f"<{type(value).__qualname__}: its repr() raises>"


# ---- in the main program ----


def rebuild(
    plain: dict[str, Any], others: dict[str, tuple[bytes | None, str]]
) -> logging.LogRecord:
    """Make the record that a worker told of."""
    attributes = dict(plain)
    for name, (pickled, text) in others.items():
        attributes[name] = text if pickled is None else _loads(pickled, text)
    attributes["exc_info"] = None
    number = attributes["levelno"]
    if attributes["levelname"] == f"Level {number}":  # it may have a name here
        attributes["levelname"] = logging.getLevelName(number)
    return logging.makeLogRecord(attributes)


def _loads(pickled: bytes, text: str) -> object:
    from . import _pickling

    try:
        return _pickling.loads(pickled)
    except Exception:
        return text


def levels() -> Levels:
    """The levels that loggers have been given here."""
    manager = logging.root.manager
    given = {"root": int(logging.root.level)}
    for name, logger in list(manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            given[str.__str__(name)] = int(logger.level)
    return given, int(manager.disable)
