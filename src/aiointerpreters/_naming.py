"""How a function is named, in the caller; _finding.py is how a worker finds it by that name.

The C code remembers the answers: this runs once per function and runner.
"""

import inspect
import os
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from . import _main
from ._finding import FunctionName
from .errors import RunnerError


def describe_call(
    function: Callable[..., Any] | FunctionName,
) -> tuple[FunctionName | object | None, bool]:
    """Tell how a worker gets hold of ``function``, and whether that is a coroutine function.

    Raises as :func:`describe`, and RunnerError for generator functions, asynchronous or not.
    """
    found = find(function) if type(function) is tuple else function
    refuse_generators(found)
    return describe(function), is_coroutine_function(found)


def refuse_generators(found: object) -> None:
    """Raise RunnerError for generator functions, asynchronous or not."""
    if inspect.isasyncgenfunction(found):
        raise RunnerError(
            f"{_display(found)} is an asynchronous generator function: pass it to stream(), "
            "which iterates over it in a worker"
        )
    if inspect.isgeneratorfunction(found):
        raise RunnerError(
            f"{_display(found)} is a generator function, whose generator can't leave the worker: "
            "pass it to stream(), which iterates over it there"
        )


def is_coroutine_function(function: object) -> bool:
    """Whether calling ``function`` gives something to await: then a worker's loop runs it."""
    if inspect.iscoroutinefunction(function):
        return True
    # An instance with an `async def __call__`.
    return inspect.iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


def has_name(function: object) -> bool:
    """Whether it stands at the top level of a module, or of a class there."""
    module, name = _place(function)
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        return False
    return is_found("__main__" if module in _main.NAMES else module, name, function)


def is_asyncgen_function(function: object) -> bool:
    """Whether calling ``function`` gives something to iterate over asynchronously."""
    return inspect.isasyncgenfunction(function)


def describe(function: Callable[..., Any] | FunctionName) -> FunctionName | object | None:
    """Tell how a worker gets hold of ``function``.

    Returns:
        Its name; or, if it has none that leads to it, something that arrives as the function when
        it is sent; or None if it must be pickled with every call itself.

    Raises RunnerError, where cloudpickle is not installed, for lambdas, functions inside functions
    and functions of a REPL. A ready :data:`FunctionName` is taken as it is.
    """
    if type(function) is tuple:
        return _checked(function)
    if not callable(function):
        hint = ""
        if inspect.iscoroutine(function):
            hint = ": pass the coroutine function and its arguments, not the coroutine"
        raise RunnerError(f"{function!r} is not callable{hint}")
    module, name = _place(function)
    if isinstance(module, str) and isinstance(name, str) and "<" not in name:
        if module in _main.NAMES:
            module = "__main__"
        if is_found(module, name, function):
            if module != "__main__" or _main.describe() is not None:
                return ("module", module, name)
            return _by_value(
                function,
                "is defined in __main__, which has no file that a worker could load (a REPL, a "
                "notebook or python -c): put it in a module",
            )
    if (
        isinstance(function, FunctionType)
        or (isinstance(function, MethodType) and isinstance(function.__self__, type | ModuleType))
        or (isinstance(function, type | BuiltinFunctionType) and not hasattr(function, "__self__"))
    ):
        return _by_value(function, _why_not_importable(function))
    return None


def _by_value(function: Callable[..., Any], why_not_by_name: str) -> object:
    from . import _by_value, _pickling

    if not _pickling.has_cloudpickle():
        hint = "or install aiointerpreters[cloudpickle], to send it by value"
        raise RunnerError(f"{_display(function)} {why_not_by_name}, {hint}")
    try:
        return _by_value.send(function)
    except Exception as error:
        raise RunnerError(
            f"{_display(function)} {why_not_by_name}; and it can't be sent by value: {error}"
        ) from error


def _place(function: Any) -> tuple[Any, Any]:
    """The module and the dotted name under which ``function`` should be found."""
    owner = getattr(function, "__self__", None)
    if isinstance(function, MethodType) and isinstance(owner, type):
        # A class method, perhaps inherited: it belongs to the class that it was looked up in.
        return owner.__module__, f"{owner.__qualname__}.{function.__name__}"
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _checked(name: tuple[Any, ...]) -> FunctionName:
    match name:
        case (("module" | "path") as kind, str(where), str(attribute)):
            return (kind, where, attribute)
    raise RunnerError(f"{name!r} names no function: get_module_info() gives such tuples")


def find(name: tuple[Any, ...]) -> object | None:
    """What a ready name stands for, as far as it has been imported here."""
    kind, where, attribute = _checked(name)
    if kind == "path":
        main = _main.describe()
        where = "__main__" if main is not None and os.path.abspath(where) == main[1] else ""
    found: object | None = sys.modules.get(where)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found


def is_found(module: str, name: str, function: object) -> bool:
    """Whether that name leads to that very function here."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    # Class methods are made anew at each look-up, hence the second test.
    return found is function or (isinstance(function, MethodType) and found == function)


def _display(function: object) -> str:
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if name and module else repr(function)


def _why_not_importable(function: Any) -> str:
    name = getattr(function, "__qualname__", "")
    if name.endswith("<lambda>"):
        return "is a lambda: write it as a function at the top level of a module"
    if "<locals>" in name:
        return "is defined inside another function: move it to the top level of its module"
    return (
        "cannot be found under that name, where a worker would look for it: "
        "pass the object that its module's top level holds"
    )
