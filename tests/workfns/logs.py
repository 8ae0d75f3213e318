"""Functions that log and warn. They import what they need when they run: see `TestImport`."""

from __future__ import annotations

import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def log(name: str, level: int, message: str, *args: Any, **options: Any) -> str:
    """Returns the name of the worker's own thread, as records have it."""
    import logging

    logging.getLogger(name).log(level, message, *args, **options)
    return worker_name()


def worker_name() -> str:
    from aiointerpreters import _forwarding

    return "" if _forwarding.channel is None else _forwarding.channel.worker


async def log_in_coroutine(name: str) -> str:
    return log(name, 40, "from a coroutine")


def log_many(name: str, count: int, prefix: str = "") -> str:
    import logging

    logger = logging.getLogger(name)
    for number in range(count):
        logger.warning("%s%d", prefix, number)
    return worker_name()


def log_for_ever(name: str) -> None:
    while True:
        log_many(name, 100)


async def log_many_soon(name: str, count: int) -> None:
    log_many(name, count)


def log_and_tell(name: str) -> dict[str, Any]:
    """Log one record; return what a handler in the worker saw of it."""
    import logging

    seen: list[dict[str, Any]] = []

    class Spy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(dict(record.__dict__))

    logger = logging.getLogger(name)
    spy = Spy()
    logger.addHandler(spy)
    logger.warning("told %s", "here")
    logger.removeHandler(spy)
    [attributes] = seen
    where = ("created", "msecs", "pathname", "filename", "module", "lineno", "funcName")
    what = ("process", "thread", "levelno", "levelname", "name")
    return {key: attributes[key] for key in (*where, *what)}


def log_exception(name: str) -> None:
    import logging

    try:
        raise LookupError("what went wrong")
    except LookupError:
        logging.getLogger(name).exception("it failed", stack_info=True)


class Unsendable:
    def __init__(self) -> None:
        self.generator = (item for item in ())

    def __repr__(self) -> str:
        return "<an unsendable>"


class RaisesInRepr:
    def __repr__(self) -> str:
        raise LookupError("no repr")

    def __reduce__(self) -> Any:
        raise LookupError("no pickle")


def log_extra(name: str) -> None:
    import logging

    from workfns import classes

    extra = {
        "number": 3,
        "point": classes.Point(1, 2),
        "items": [1, {"a": b"b"}],
        "unsendable": Unsendable(),
        "unreadable": classes.RaisesWhenRebuilt(),
        "silent": RaisesInRepr(),
    }
    logging.getLogger(name).warning("with extra", extra=extra)


def log_in_thread(name: str, thread: str) -> str:
    import logging
    import threading

    started = threading.Thread(target=logging.getLogger(name).warning, args=("t",), name=thread)
    started.start()
    started.join()
    return worker_name()


def log_at_exit(name: str) -> None:
    import atexit
    import logging

    atexit.register(logging.getLogger(name).warning, "at exit")


def log_wrongly(name: str) -> None:
    import logging

    logging.getLogger(name).warning("one %d", "two")
    logging.getLogger(name).warning("right")


def levels(*names: str) -> dict[str, int]:
    import logging

    return {name: logging.getLogger(name).getEffectiveLevel() for name in names}


def is_enabled(name: str, level: int) -> bool:
    import logging

    return logging.getLogger(name).isEnabledFor(level)


def name_a_level(level: int, name: str) -> None:
    import logging

    logging.addLevelName(level, name)


def configure_by(options: dict[str, Any]) -> None:
    """An initializer."""
    import logging

    logging.basicConfig(**options)


def configure_with_null_handler(name: str) -> None:
    import logging

    logging.getLogger(name).addHandler(logging.NullHandler())


def import_handlers_first() -> bool:
    import logging.handlers

    return "logging" in sys.modules and hasattr(logging, "handlers")


def reload_logging(name: str) -> None:
    import importlib
    import logging

    logging.getLogger(name).warning("before")
    importlib.reload(logging)
    logging.getLogger(name).warning("after")


def loader_of_logging() -> tuple[str, bool]:
    import inspect
    import logging

    assert logging.__spec__ is not None
    return type(logging.__spec__.loader).__name__, "class Logger" in inspect.getsource(logging)


def fail_to_import_logging_once() -> None:
    """The first import of logging fails while its body runs."""
    from importlib.machinery import PathFinder

    class Fails:
        fails = True

        @classmethod
        def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
            if name != "logging" or not cls.fails:
                return None
            cls.fails = False
            spec = PathFinder.find_spec(name, path, target)
            assert spec is not None
            spec.loader = cls()  # type: ignore[assignment]
            return spec

        def create_module(self, spec: Any) -> None:
            return None

        def exec_module(self, module: Any) -> None:
            raise ImportError("this time it fails")

    sys.meta_path.insert(1, Fails)  # after ours
    try:
        import logging  # noqa: F401
    except ImportError:
        return
    raise AssertionError("the import did not fail")


def log_in_nested_runner(name: str, **options: Any) -> str:
    import asyncio

    from aiointerpreters import Runner

    async def main() -> str:
        async with Runner(workers=1, name="nested", **options) as runner:
            return await runner.run(log, name, 30, "from below")

    return asyncio.run(main())


def wait_then_log(announce_fd: int, wait_fd: int, name: str) -> None:
    from workfns import waiting

    waiting.wait_at(announce_fd, wait_fd)
    log(name, 30, "after the gate")


# ---- warnings ----


class OwnWarning(UserWarning):
    pass


class PickyWarning(UserWarning):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")


def warn(text: str, category: type[Warning] = UserWarning, times: int = 1) -> str:
    for _ in range(times):
        warnings.warn(text, category, stacklevel=1)
    return worker_name()


def warn_always(text: str, times: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warn(text, times=times)


def warn_pickily() -> None:
    warnings.warn(PickyWarning(3, detail="very"), stacklevel=1)


def warn_of_local_class() -> None:
    class Local(UserWarning):
        pass

    warnings.warn("of a local class", Local, stacklevel=1)


def catch_own_warning() -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("caught here")
    return [str(warning.message) for warning in caught]


def show_by_hand(fd: int) -> None:
    """From now on warnings of this worker are shown by user code."""
    import os

    def show(message: Warning | str, *_: object) -> None:
        os.write(fd, str(message).encode())

    warnings.showwarning = show  # type: ignore[assignment]


def simple_filter(action: Any) -> None:
    warnings.simplefilter(action)


# ---- in processes ----


def log_in_threads_and_yield(name: str, threads: int, count: int, items: int) -> Iterator[str]:
    """Both at the same time."""
    import logging
    import threading

    logger = logging.getLogger(name)

    def log_all(thread: int) -> None:
        for number in range(count):
            logger.warning("%d: %d", thread, number)

    running = [threading.Thread(target=log_all, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for _ in range(items):
        yield "x" * 100_000
    for thread in running:
        thread.join()


def log_and_yield(name: str, count: int) -> Iterator[int]:
    for number in range(count):
        log(name, 40, str(number))
        yield number


def log_and_hang(name: str) -> None:
    import time

    log(name, 40, "before")
    while True:
        time.sleep(1000)


def log_in_forked_child(name: str, message: str) -> int:
    """How the child ended."""
    import os

    log(name, 40, "from the parent")
    child = os.fork()
    if child == 0:
        try:
            log(name, 40, message)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def log_in_a_runner(name: str) -> None:
    import asyncio

    from aiointerpreters import Runner

    async def main() -> None:
        async with Runner(workers=1) as runner:
            await runner.run(log, name, 40, "from within")

    asyncio.run(main())


def leave_a_thread_that_logs(name: str) -> None:
    import threading

    threading.Thread(target=log_for_ever, args=(name,)).start()
