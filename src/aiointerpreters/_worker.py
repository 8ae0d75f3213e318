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

    from ._finding import FunctionName


def set_up(
    argv: list[str],
    main: _main.MainInfo,
    preload: tuple[str, ...],
    initializer: FunctionName | Callable[..., object] | None,
    initargs: tuple[Any, ...],
    initkwargs: Mapping[str, Any],
) -> None:
    """Make this interpreter one of the program's workers. ``sys.path`` has been set before.

    Raises what a preloaded module or the initializer raises: then the whole pool is broken.
    """
    sys.argv[:] = argv
    _main.set_up(main)
    for name in preload:
        importlib.import_module(name)
    if initializer is not None:
        function = resolve(*initializer) if isinstance(initializer, tuple) else initializer
        function(*initargs, **initkwargs)
