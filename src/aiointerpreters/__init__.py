"""Run CPU-bound functions in subinterpreters, in parallel, from asyncio.

    from aiointerpreters import Runner

    async with Runner() as runner:
        page = await runner.run(parse, content)

Names are imported at first use: a worker that imports this package, because the user's code does,
need not import asyncio for that.
"""

from __future__ import annotations

# A worker has it before there is a package (set_up.c): it becomes the package's attribute here.
from . import _core as _core

TYPE_CHECKING = False  # type checkers know the name; importing it would load typing
if TYPE_CHECKING:
    from typing import Any

    from ._call_future import CallFuture
    from ._calls import RunnerView
    from ._core import Interrupted, Shared
    from ._stats import RunnerStats
    from .errors import (
        AioInterpretersError,
        BrokenRunner,
        InterpreterError,
        NotShareableError,
        RemoteTraceback,
        RunnerError,
        RunnerFull,
        WorkerStuck,
    )
    from .executor import Executor
    from .queues import Queue, QueueEmpty, QueueFull, QueueShutDown
    from .runner import Runner, get_module_info
    from .types import Shareable
    from .workers import Worker, current_worker, worker

__all__ = (
    "AioInterpretersError",
    "BrokenRunner",
    "CallFuture",
    "Executor",
    "InterpreterError",
    "Interrupted",
    "NotShareableError",
    "Queue",
    "QueueEmpty",
    "QueueFull",
    "QueueShutDown",
    "RemoteTraceback",
    "Runner",
    "RunnerError",
    "RunnerFull",
    "RunnerStats",
    "RunnerView",
    "Shareable",
    "Shared",
    "Worker",
    "WorkerStuck",
    "current_worker",
    "get_module_info",
    "worker",
)

_MODULES = {
    "AioInterpretersError": "errors",
    "BrokenRunner": "errors",
    "CallFuture": "_call_future",
    "Executor": "executor",
    "InterpreterError": "errors",
    "Interrupted": "_core",
    "NotShareableError": "errors",
    "Queue": "queues",
    "QueueEmpty": "queues",
    "QueueFull": "queues",
    "QueueShutDown": "queues",
    "RemoteTraceback": "errors",
    "Runner": "runner",
    "RunnerError": "errors",
    "RunnerFull": "errors",
    "RunnerStats": "_stats",
    "RunnerView": "_calls",
    "Shareable": "types",
    "Shared": "_core",
    "Worker": "workers",
    "WorkerStuck": "errors",
    "current_worker": "workers",
    "get_module_info": "runner",
    "worker": "workers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
