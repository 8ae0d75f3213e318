"""Context variables that follow a call into its worker.

A variable is an object of one interpreter: the worker has another one, that it finds where the
program's is, at the top level of a module. What crosses is its name in :data:`Places`, and the
value.
"""

from __future__ import annotations

import sys

from . import _core, _main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import ContextVar
    from typing import Any

    from ._finding import FunctionName

#: Where a worker finds each of a runner's variables, by a short name that is unique among them.
type Places = dict[str, FunctionName]
#: The variables that are set, by that name, and their values.
type Pairs = tuple[tuple[str, Any], ...]

_UNSET: Any = object()


# ---- in the caller ----


class Capture:
    """The variables of a runner: calling it gives those that are set in the current context."""

    def __init__(self, variables: Iterable[ContextVar[Any]]) -> None:
        """Find the variables in the modules that are loaded.

        Raises:
            TypeError: One of them is no :class:`contextvars.ContextVar`.
            ValueError: One of them is not at the top level of a module, where a worker can find it.
        """
        from contextvars import ContextVar

        given = tuple(variables)
        for variable in given:
            if not isinstance(variable, ContextVar):
                raise TypeError(f"context must be context variables: {variable!r} is none")
        variables = tuple(dict.fromkeys(given))
        found = _find(variables)
        names = [variable.name for variable in variables]
        #: For the set-up of the workers.
        self.places: Places = {}
        self._variables: list[tuple[str, ContextVar[Any]]] = []
        for variable in variables:
            place = _checked(variable, found.get(variable))
            name = variable.name
            if names.count(name) > 1:
                name = f"{place[1]}.{place[2]}"
            self.places[name] = place
            self._variables.append((name, variable))

    def __call__(self) -> Pairs:
        pairs = [(name, variable.get(_UNSET)) for name, variable in self._variables]
        return tuple(pair for pair in pairs if pair[1] is not _UNSET)


def _find(variables: tuple[ContextVar[Any], ...]) -> dict[ContextVar[Any], tuple[str, str]]:
    """The modules and attributes that hold them: one of each, the main module only if need be."""
    found: dict[ContextVar[Any], tuple[str, str]] = {}
    modules = sorted(sys.modules.items(), key=lambda item: item[0] in _main.NAMES)
    for module, loaded in modules:
        attributes = getattr(loaded, "__dict__", None)
        if not isinstance(attributes, dict):
            continue
        for attribute, value in list(attributes.items()):
            for variable in variables:
                if value is variable:
                    found.setdefault(variable, (module, attribute))
    return found


def _checked(variable: ContextVar[Any], place: tuple[str, str] | None) -> FunctionName:
    hint = "put it at the top level of a module that a worker can import"
    if place is None:
        raise ValueError(f"no module holds the context variable {variable.name!r}: {hint}")
    module, attribute = place
    if module not in _main.NAMES:
        return ("module", module, attribute)
    if _main.describe() is None:
        raise ValueError(
            f"the context variable {variable.name!r} is defined in __main__, which has no file "
            f"that a worker could load (a REPL, a notebook or python -c): {hint}"
        )
    return ("module", "__main__", attribute)


# ---- in a worker ----

_told = _core.told()
_places: Places = {} if _told is None else _told[2]
_variables: dict[str, ContextVar[Any]] = {}


def tell(places: Places) -> None:
    """In a process of a runner: tell where the variables are."""
    _places.update(places)


def call(
    pairs: Pairs,
    function: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
) -> object:
    """Call ``function`` in a context of its own, in which these variables are set.

    Raises what it raises; or what the import of a module with a variable raises.
    """
    from contextvars import copy_context

    context = copy_context()
    for name, value in pairs:
        context.run(_variable(name).set, value)
    try:
        return context.run(function, *args, **(kwargs or {}))
    except BaseException as error:
        if error.__traceback__ is not None:  # it shall look as without us
            error.__traceback__ = error.__traceback__.tb_next
        raise


def enter(pairs: Pairs) -> None:
    """Set these variables in the current context, which is a coroutine's own.

    Raises what the import of a module with a variable raises.
    """
    for name, value in pairs:
        _variable(name).set(value)


def _variable(name: str) -> ContextVar[Any]:
    variable = _variables.get(name)
    if variable is None:
        from ._finding import resolve

        try:
            variable = _variables[name] = resolve(*_places[name])
        except ImportError as error:
            from ._refusals import note_not_begun

            note_not_begun(error, None)
            raise
    return variable
