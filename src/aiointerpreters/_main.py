"""The program's main module, in the program and in its workers.

A worker has a ``__main__`` of its own, which is empty. Functions and classes of the program's main
script are found all the same: the worker loads the script a second time under the name
``__mp_main__``, as multiprocessing's spawn does, so that what stands below
``if __name__ == "__main__":`` does not run. It does so when something of it is needed first.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

NAMES = ("__main__", "__mp_main__")
WORKER_NAME = "__mp_main__"

#: How the program's main module can be loaded again: ``("module", name)`` where it was started with
#: ``-m``, ``("path", file)`` for a script, None where there is nothing to load (a REPL, ``-c``).
type MainInfo = tuple[str, str] | None

_told = _core.told()
_info: MainInfo = None if _told is None else _told[0]
_described: tuple[ModuleType | None, MainInfo] | None = None
_is_loading = False

#: The program's main module, as a worker has loaded it. (What `sys.modules` has under that name may
#: be the worker's empty one: to import multiprocessing puts it there.)
_loaded: ModuleType | None = None

#: Held while a worker loads the main script, or another file: its two threads may both want it.
loading = RLock()


def tell(info: MainInfo) -> None:
    """In a process of a runner: tell how the program's main module can be loaded."""
    global _info
    _info = info


def describe() -> MainInfo:
    """Tell how this program's main module can be loaded in a worker."""
    global _described
    if _info is not None:  # in a worker: the same as in the program
        return _info
    main = sys.modules.get("__main__")
    if _described is None or _described[0] is not main:
        _described = (main, _describe(main))
    return _described[1]


def _describe(main: ModuleType | None) -> MainInfo:
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return ("module", spec.name)
    path = getattr(main, "__file__", None)
    if path is None:
        return None
    if not os.path.exists(path):
        path = os.path.dirname(path)  # an archive, if it is `archive.pyz/__main__.py`
    return ("path", os.path.abspath(path)) if os.path.isfile(path) else None


def is_loading() -> bool:
    """Whether this is a worker that is just running the body of the program's main module."""
    return _is_loading


def load() -> ModuleType:
    """Return the program's main module; in a worker, load it if that has not been done.

    Raises whatever the module raises; then the next call tries again.
    """
    if _info is None:
        return sys.modules["__main__"]
    with loading:
        return _loaded or _load(*_info)


def _load(kind: str, where: str) -> ModuleType:
    global _is_loading, _loaded
    module = type(sys)(WORKER_NAME)
    workers_own = sys.modules["__main__"]
    # Pickle and typing look a module up by name while its body runs.
    sys.modules[WORKER_NAME] = sys.modules["__main__"] = module
    _loaded = module
    _is_loading = True
    try:
        if kind == "module":
            _execute_module(module, where)
        else:
            _execute_path(module, where)
    except BaseException as error:
        _loaded = None
        sys.modules.pop(WORKER_NAME, None)
        sys.modules["__main__"] = workers_own
        error.add_note(
            "This was raised while a worker loaded the main script, to find a function in it: what "
            "is to run only once belongs below `if __name__ == '__main__':`"
        )
        raise
    finally:
        _is_loading = False
    return module


def _execute_module(module: ModuleType, name: str) -> None:
    import importlib.util

    spec = importlib.util.find_spec(name)
    get_code = getattr(spec and spec.loader, "get_code", None)
    code = get_code(name) if get_code is not None else None
    if spec is None or code is None:
        raise ImportError(f"the main module {name!r} cannot be loaded in a worker", name=name)
    module.__dict__.update(
        __spec__=spec,
        __file__=spec.origin,
        __loader__=spec.loader,
        __package__=spec.parent,
    )
    exec(code, module.__dict__)


def _execute_path(module: ModuleType, path: str) -> None:
    with open(path, "rb") as file:
        source = file.read()
    if b"\0" in source and not path.endswith((".py", ".pyw")):
        # An archive with a __main__.py, perhaps behind a `#!` line: runpy knows how.
        import runpy

        module.__dict__.update(runpy.run_path(path, run_name=WORKER_NAME))
        return
    module.__file__ = path
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
