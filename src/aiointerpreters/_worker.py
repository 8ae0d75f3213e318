"""What a new worker runs before its first task."""

from __future__ import annotations

import importlib
import sys

from . import _main
from ._finding import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ._context import Places
    from ._finding import FunctionName
    from ._forwarding import Link


def set_up(
    argv: list[str],
    main: _main.MainInfo,
    preload: tuple[str, ...],
    initializer: FunctionName | Callable[..., object] | None,
    initargs: tuple[Any, ...],
    initkwargs: Mapping[str, Any],
    link: Link | None,
    places: Places | None,
) -> None:
    """Make this interpreter one of the program's workers. ``sys.path`` has been set before.

    Raises what a preloaded module or the initializer raises: then the whole pool is broken.
    """
    sys.argv[:] = argv
    _main.set_up(main)
    if link is not None:
        from . import _forwarding

        _forwarding.set_up(link)
    if places is not None:
        from . import _context

        _context.set_up(places)
    for name in preload:
        importlib.import_module(name)
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
