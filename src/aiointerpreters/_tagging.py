"""Functions with a tag that says where they are to run.

Imported in workers, as modules of tagged functions are, so it imports next to nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

#: Stands in a partial's arguments for one that is to come, from Python 3.14 on.
_PLACEHOLDER = getattr(functools, "Placeholder", object())

#: As inspect has it.
_CO_COROUTINE = 0x80

#: A function, and its positional and keyword arguments.
type _Call = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]


class interpreter[**P, R]:  # noqa: N801  (a decorator; and the original's name for it)
    """Tag a function, so that an :class:`InterpreterThreadPoolExecutor` runs it in an interpreter.

        await asyncio.to_thread(interpreter(parse), content)

        @interpreter
        def render(document): ...

    To call what is tagged is to call the function, here and now.

    Args:
        fn: Anything that a :class:`Runner` can call.

    Raises:
        TypeError: ``fn`` can't be called.

    Attributes:
        fn: The function.
    """

    __match_args__ = ("fn",)

    def __init__(self, fn: Callable[P, R]) -> None:
        if not callable(fn):
            raise TypeError(f"interpreter() takes a function, not {type(fn).__name__}")
        functools.update_wrapper(self, fn)
        self.fn = fn
        code = getattr(fn, "__code__", None)
        if code is not None and code.co_flags & _CO_COROUTINE:
            from inspect import markcoroutinefunction

            markcoroutinefunction(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.fn(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return self.fn == other.fn if isinstance(other, interpreter) else NotImplemented

    def __hash__(self) -> int:
        return hash((interpreter, self.fn))

    def __repr__(self) -> str:
        return f"interpreter(fn={self.fn!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By its name where it is a decorator: what it decorates can't be found by that."""
        return self._name() or (interpreter, (self.fn,))

    def _name(self) -> str | None:
        """The name by which its module holds it, rather than the function."""
        from ._naming import is_found

        module, name = getattr(self, "__module__", None), getattr(self, "__qualname__", None)
        if isinstance(module, str) and isinstance(name, str) and is_found(module, name, self):
            return name
        return None

    def _to_send(self) -> Callable[..., Any]:
        """What a worker can find, and is to call."""
        return self if self._name() else self.fn


def untag(function: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Call | None:
    """The call that is tagged; None if it isn't.

    That is one of a tagged function, of a partial of it, or one which is to run in a context, as
    ``asyncio.to_thread`` has it. A context can't follow into an interpreter.
    """
    while True:
        if isinstance(function, interpreter):
            found = function._to_send()
            while isinstance(found, interpreter) and found is not function:  # tagged twice
                function, found = found, found._to_send()
            return found, args, kwargs
        if isinstance(function, functools.partial):
            args = _filled(function.args, args)
            kwargs = {**function.keywords, **kwargs}
            function = function.func
        elif _is_run_of_context(function) and args:
            function, *rest = args
            args = tuple(rest)
        else:
            return None


def _is_run_of_context(function: object) -> bool:
    from contextvars import Context

    return (
        isinstance(getattr(function, "__self__", None), Context)
        and getattr(function, "__name__", None) == "run"
    )


def _filled(first: tuple[Any, ...], then: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a partial, and those that it is called with."""
    if not any(argument is _PLACEHOLDER for argument in first):
        return (*first, *then)
    coming = iter(then)
    filled = []
    for argument in first:
        if argument is _PLACEHOLDER:
            argument = next(coming, _PLACEHOLDER)
            if argument is _PLACEHOLDER:
                raise TypeError("missing positional arguments in 'partial' call")
        filled.append(argument)
    return (*filled, *coming)
