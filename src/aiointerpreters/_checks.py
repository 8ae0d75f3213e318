"""Checks of parameters: what is wrong is said with the parameter's name."""

import math
import operator
from collections.abc import Iterable
from typing import Any


def integer(name: str, value: Any, least: int, *, or_none: bool = True) -> int:
    """``value`` as an integer of at least ``least``; raises TypeError and ValueError.

    ``or_none`` is for the text: whether the caller takes None as well, and has dealt with it.
    """
    if not hasattr(value, "__index__"):
        what = "an integer or None" if or_none else "an integer"
        raise TypeError(f"{name} must be {what}, not {kind(value)}")
    number = operator.index(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return number


#: What C takes for a number of something. More is as good as any number.
_MOST = 2**31 - 1


def count(name: str, value: Any, least: int, *, or_none: bool = True) -> int:
    """As :func:`integer`, but at most what C can count."""
    return min(integer(name, value, least, or_none=or_none), _MOST)


def seconds(name: str, value: Any, *, finite: bool = False) -> float:
    """``value`` as a number of seconds, 0 or more; raises TypeError and ValueError."""
    is_text = isinstance(value, str | bytes | bytearray)
    if is_text or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number of seconds or None, not {kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    if math.isnan(number) or number < 0 or (finite and math.isinf(number)):
        kind_of = "a finite number" if finite else "a number"
        raise ValueError(f"{name} must be {kind_of} of seconds, 0 or more, not {value!r}")
    return number


def module_names(name: str, value: Any) -> tuple[str, ...]:
    """``value`` as a tuple of names; raises TypeError."""
    if isinstance(value, str):
        raise TypeError(f"{name} takes several names of modules: write it as a tuple")
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a tuple of names of modules, not {kind(value)}")
    names = tuple(value)
    for module in names:
        if not isinstance(module, str):
            raise TypeError(f"{name} must be names of modules: {module!r} is none")
    return names


def kind(value: object) -> str:
    return type(value).__name__


def one_of(name: str, value: Any, *choices: Any) -> Any:
    """``value``, which is one of a few; raises TypeError and ValueError."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {kind(value)}")
    if value not in choices:
        listed = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be {listed}, not {value!r}")
    return value
