"""What a new worker runs before its first task, if the program wants it to; and its last."""

from __future__ import annotations

import importlib

from ._finding import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ._context import Places
    from ._finding import FunctionName
    from ._forwarding import Link
    from ._main import MainInfo

#: What the program tells every worker (``_core.told()``), which reads it when it is needed: how its
#: main module is loaded; where log records and warnings go, if they do; where context variables
#: are found. It must not need pickle, as what unpickles asks for it.
type Told = tuple[MainInfo, Link | None, Places]
#: The arguments of :func:`do_first_steps`.
type FirstSteps = tuple[
    tuple[str, ...],
    FunctionName | Callable[..., object] | None,
    tuple[Any, ...],
    Mapping[str, Any],
    bool,
]


def do_first_steps(
    preload: tuple[str, ...],
    initializer: FunctionName | Callable[..., object] | None,
    initargs: tuple[Any, ...],
    initkwargs: Mapping[str, Any],
    skips_refused: bool = False,
) -> None:
    """Import and call what the program wants imported and called first.

    Modules that refuse subinterpreters are passed over if ``skips_refused``.

    Raises what a preloaded module or the initializer raises: then the whole pool is broken.
    """
    for name in preload:
        try:
            importlib.import_module(name)
        except ImportError as error:
            from ._refusals import refused_module

            if not skips_refused or refused_module(error) is None:
                raise
    if initializer is not None:
        function = resolve(*initializer) if isinstance(initializer, tuple) else initializer
        function(*initargs, **initkwargs)


def release_all() -> None:
    """At the end of this worker: let go of what it has of other interpreters, and of its own.

    Its own memory may be in use elsewhere for long; what it uses itself, it needs no more. Two
    workers that see each other's memory would wait for each other for ever, and one that sees its
    own for itself; be it in memoryviews, or in the items of a queue.
    """
    import gc

    from ._core import Memory, Queue, Shared

    for found in gc.get_objects():
        if type(found) is memoryview:
            try:
                if isinstance(found.obj, Memory):
                    found.release()
            except (ValueError, BufferError):  # released already; or it is exported in turn
                pass
        elif isinstance(found, (Queue, Shared)):  # type: ignore[arg-type]
            found._detach()
