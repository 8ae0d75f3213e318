"""A Ray actor that holds subinterpreters (``pip install aiointerpreters[ray]``).

    from aiointerpreters.ray import Interpreters

    pool = Interpreters(workers=8)  # one process, somewhere in the cluster, that uses 8 cores
    pages = ray.get([pool.submit(parse, page) for page in pages])

Where Ray has a process for each core, an actor has one for many: what is loaded is there once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray

from .executor import Executor

__all__ = ("Interpreters",)


class Interpreters:
    """An actor with a pool of subinterpreters, and what calls it.

    It may be passed to tasks and other actors. The actor ends when nothing refers to it any more,
    or by :meth:`close`.

    Args:
        workers: How many interpreters, and so cores of one machine.
        initializer: A function that every interpreter calls first.
        initargs: The arguments for ``initializer``.
        preload: Names of modules that every interpreter imports first.
        max_tasks_per_worker: An interpreter is replaced by a fresh one after so many calls.
        options: Ray's for the actor, such as ``max_restarts``, ``max_task_retries``, ``resources``.
            By default it has ``workers`` as ``num_cpus``, and accepts twice as many calls at a time
            (``max_concurrency``); more wait.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: A number is too small.
    """

    def __init__(
        self,
        workers: int,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        preload: Iterable[str] = (),
        max_tasks_per_worker: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        pool = {
            "initializer": initializer,
            "initargs": initargs,
            "preload": (preload,) if isinstance(preload, str) else tuple(preload),
            "max_tasks_per_worker": max_tasks_per_worker,
        }
        # What is wrong with these is said here, and not in some process's log.
        Executor(workers, **pool).shutdown()  # type: ignore[arg-type]
        settings = {"num_cpus": workers, "max_concurrency": 2 * workers, **(options or {})}
        #: Ray's handle of the actor.
        self.actor: Any = ray.remote(_Actor).options(**settings).remote(workers, pool)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> ray.ObjectRef[Any]:
        """Call ``fn(*args, **kwargs)`` in an interpreter of the actor; return a ref of the result.

        Refs among the arguments, also in lists, tuples and dicts, are replaced by what they refer
        to: there is no Ray in an interpreter. ``ray.get`` raises what ``fn`` raised, as for tasks.
        A call that has begun can't be stopped: ``ray.cancel`` does not reach threads of actors.
        """
        ref: ray.ObjectRef[Any] = self.actor.run.remote(fn, args, kwargs)
        return ref

    def close(self) -> None:
        """End the actor at once, whatever it does."""
        ray.kill(self.actor)


class _Actor:
    """What runs in the actor's process; with Ray's threads, of which each waits for one call."""

    def __init__(self, workers: int, pool: dict[str, Any]) -> None:
        self._executor = Executor(workers, "ray", **pool)

    def run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function in an interpreter, and wait for that."""
        args, kwargs = _resolved(args), _resolved(kwargs)
        return self._executor.submit(fn, *args, **kwargs).result()


def _resolved(value: Any) -> Any:
    """Return a value with what its refs refer to."""
    if isinstance(value, ray.ObjectRef):
        return ray.get(value)
    if type(value) in (list, tuple):
        return type(value)(map(_resolved, value))
    if type(value) is dict:
        return {key: _resolved(item) for key, item in value.items()}
    return value
