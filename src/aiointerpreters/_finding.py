"""How a function is found, in a worker, by the name that _naming.py gave it.

The C code remembers what was found: this runs once per function and worker. Part of every worker's
start, so it imports as little as can be.

An import that is broken off can leave parts of a package behind, and then the package can't be
imported any more: asyncio and NumPy are examples. So a call is not interrupted while it is prepared
by an import.
"""

from __future__ import annotations

import importlib
import sys

from . import _core, _main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

#: ``("module", module, dotted name)``, or ``("path", file, dotted name)`` as the original has it.
type FunctionName = tuple[str, str, str]


def resolve(kind: str, where: str, name: str) -> Any:
    """Find what :func:`_naming.describe` named. Raises what its module raises on import."""
    try:
        _core.hold_off(True)
        if kind == "path":
            found: Any = _load_path(where)
        elif where in _main.NAMES:
            found = _main.load()
        else:
            found = importlib.import_module(where)
    finally:
        _core.hold_off(False)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def probe(kind: str, where: str, name: str) -> None:
    """Find it, to know whether that can be. Raises what its module raises on import."""
    try:
        resolve(kind, where, name)
    except ImportError as error:
        from ._refusals import note_not_begun

        note_not_begun(error, (kind, where, name))
        raise


def load(module: str) -> None:
    """Import a module, for a call that needs it before it can begin."""
    try:
        _core.hold_off(True)
        importlib.import_module(module)
    finally:
        _core.hold_off(False)


def _load_path(path: str) -> ModuleType:
    """A file as a module: the program's main script, or any other (loaded once)."""
    import os

    main = _main.describe()
    if main is not None and main[0] == "path" and os.path.abspath(path) == main[1]:
        return _main.load()
    name = f"aiointerpreters:{path}"
    with _main.loading:
        return sys.modules.get(name) or _load_file(name, path)


def _load_file(name: str, path: str) -> ModuleType:
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path!r} cannot be loaded as a module", path=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
