"""Which functions run in processes, as far as that is known."""

from __future__ import annotations

import functools
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from . import _naming, _refusals
from .errors import BrokenRunner, UnsupportedModule

#: Arguments of these types need no module to be rebuilt.
PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, range))

#: A probe goes before all calls.
FIRST = -(2**63)


class Choices:
    """Which functions run in processes. Belongs to no event loop."""

    def __init__(self) -> None:
        # Functions at the top level of modules only, which live as long as these. Only operations
        # that are atomic are used.
        self.by_function: dict[Any, bool] = {}
        self._refused_modules: dict[str, str] = {}  # and what they import
        self._refused_packages: set[str] = set()
        #: The names of functions that run in processes.
        self.moved: dict[str, None] = {}
        #: The initializer can't run in interpreters: so nothing does.
        self.all_in_processes = False

    def in_process(self, fn: Any) -> bool | None:
        """Whether ``fn`` runs in processes; None if that is not known."""
        if self.all_in_processes:
            return True
        key = key_of(fn)
        known = None if key is None else self.by_function.get(key)
        if known is None and key is not None and _module_of(key) in self._refused_modules:
            self.choose(fn, True)
            return True
        return known

    def choose(self, fn: Any, in_process: bool) -> None:
        """Remember it, if ``fn`` has a name to be remembered by."""
        key = key_of(fn)
        if key is not None and self.by_function.get(key) is not True:
            self.by_function[key] = in_process
        if in_process:
            self.moved[_name_of(fn if key is None else key)] = None

    def learn(self, fn: Any, error: BaseException | None) -> None:
        """What a probe has found out."""
        if isinstance(error, UnsupportedModule) and error.has_not_begun:
            module = _module_of(key_of(fn))
            if module is not None and module not in ("__main__", "__mp_main__"):
                self._refused_modules[module] = error.name
            self.choose(fn, True)
        elif isinstance(error, BrokenRunner):
            self.has_refused(error)
        else:
            self.choose(fn, False)

    def move(
        self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException
    ) -> None:
        """A call has come back: so shall its function, if no argument is the reason."""
        if isinstance(error, UnsupportedModule) and error.name:
            self._refused_packages.add(error.name.partition(".")[0])
        if not self.need_process(args, kwargs):
            self.choose(fn, True)

    def need_process(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether an argument is of a package of which a module has refused."""
        packages = self._refused_packages
        return bool(packages) and any(
            type(arg).__module__.partition(".")[0] in packages for arg in (*args, *kwargs.values())
        )

    def has_refused(self, error: BaseException) -> bool:
        """Whether a call has failed before it had begun, as a module refuses subinterpreters."""
        if not isinstance(error, UnsupportedModule | BrokenRunner) or not error.has_not_begun:
            return False
        cause = error.__cause__
        if isinstance(error, BrokenRunner):
            if isinstance(cause, ImportError) and _refusals.refused_module(cause) is not None:
                self.all_in_processes = True
            return self.all_in_processes
        return True


def key_of(fn: Any) -> Any:
    """What a function is remembered by; None if it is not."""
    while type(fn) is functools.partial:
        fn = fn.func
    if type(fn) is tuple:
        return fn if all(type(part) is str for part in fn) else None
    if isinstance(fn, FunctionType | BuiltinFunctionType | type | MethodType):
        return fn if _naming.has_name(fn) else None
    return None


def _module_of(key: Any) -> str | None:
    module = key[1] if type(key) is tuple and len(key) == 3 else getattr(key, "__module__", None)
    return module if isinstance(module, str) else None


def _name_of(fn: Any) -> str:
    if type(fn) is tuple:
        return ".".join(fn[1:])
    while type(fn) is functools.partial:
        fn = fn.func
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{getattr(fn, '__module__', None) or type(fn).__module__}.{name}"


def are_plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return all(type(arg) in PLAIN for arg in args) and all(
        type(arg) in PLAIN for arg in kwargs.values()
    )
