"""Calls of one function that travel to a worker, or a process, as one call.

Loaded into workers, so it imports little.
"""

from __future__ import annotations

from ._finding import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ._failures import Account
    from ._finding import FunctionName


def run(
    name: FunctionName,
    prefix: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    arguments: list[tuple[Any, ...]],
) -> tuple[list[Any], Account | None]:
    """Call a function with one tuple of arguments after the other, until it raises.

    Returns the results, and what it raised after them.
    """
    function = resolve(*name)
    results: list[Any] = []
    try:
        for args in arguments:
            results.append(function(*prefix, *args, **kwargs))
    except Exception as error:
        from ._failures import pack

        if error.__traceback__ is not None:  # it shall look as without us
            error.__traceback__ = error.__traceback__.tb_next
        return results, pack(error)
    return results, None
