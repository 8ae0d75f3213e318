"""Exact equality of values that crossed between interpreters: types, signs, bits, references."""

import array
import math
import struct
from collections import deque
from collections.abc import Iterator
from typing import Any


def same(left: object, right: object) -> bool:
    """Whether two values are equal with the same types throughout.

    Unlike `==`, tells True from 1, 0.0 from -0.0, and calls a nan equal to the same nan; compares
    objects by their attributes; and follows references in a circle once.
    """
    return _same(left, right, set())


def _same(left: Any, right: Any, seen: set[tuple[int, int]]) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right) and _attributes_same(
            left, right, seen
        )
    if isinstance(left, complex):
        return _same(left.real, right.real, seen) and _same(left.imag, right.imag, seen)
    if isinstance(left, memoryview):
        return same_view(left, right)
    if isinstance(left, (int, str, bytes, bytearray)):
        return bool(left == right) and _attributes_same(left, right, seen)
    if (id(left), id(right)) in seen:
        return True
    seen.add((id(left), id(right)))
    if isinstance(left, (list, tuple, deque)):
        return (
            len(left) == len(right)
            and all(_same(a, b, seen) for a, b in zip(left, right, strict=True))
            and _attributes_same(left, right, seen)
        )
    if isinstance(left, dict):
        return _same(list(left.items()), list(right.items()), seen) and _attributes_same(
            left, right, seen
        )
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and _same_unordered(left, right, seen)
    if isinstance(left, BaseException):
        return _same(left.args, right.args, seen) and _attributes_same(left, right, seen)
    if isinstance(left, array.array):
        return left.typecode == right.typecode and left.tobytes() == right.tobytes()
    if type(left).__eq__ is object.__eq__ and hasattr(left, "__dict__"):
        return left is right or _attributes_same(left, right, seen)
    if type(left).__module__.startswith("workfns") and hasattr(left, "__dataclass_fields__"):
        names = list(left.__dataclass_fields__)
        return all(_same(getattr(left, name), getattr(right, name), seen) for name in names)
    return bool(left == right)


def _attributes_same(left: object, right: object, seen: set[tuple[int, int]]) -> bool:
    """Of those that have any, as subclasses of builtins do."""
    ours, theirs = getattr(left, "__dict__", None), getattr(right, "__dict__", None)
    return ours is theirs or _same(ours, theirs, seen)


def _same_unordered(left: Any, right: Any, seen: set[tuple[int, int]]) -> bool:
    rest = list(right)
    for item in left:
        for index, other in enumerate(rest):
            if _same(item, other, set(seen)):
                del rest[index]
                break
        else:
            return False
    return True


def view_facts(view: memoryview) -> tuple[Any, ...]:
    """All that a memoryview says of itself."""
    return (
        view.format,
        view.itemsize,
        view.ndim,
        view.shape,
        view.strides,
        view.suboffsets,
        view.readonly,
        view.nbytes,
        (view.c_contiguous, view.f_contiguous, view.contiguous),
        view.tobytes(),
    )


def same_view(left: memoryview, right: memoryview) -> bool:
    return view_facts(left) == view_facts(right)


#: What can be told apart from a copy of itself by changing it.
MUTABLE = (list, dict, set, bytearray, memoryview, deque)


def references(value: Any) -> list[int]:
    """The way in which mutable things in `value` are shared: equal lists, equal sharing.

    One number for each mutable thing that is met: how many others were met before its first
    occurrence. Sets are left out, as they have no order.
    """
    order: dict[int, int] = {}
    kept: list[Any] = []  # or an id might be used again
    met: list[int] = []

    def walk(item: Any) -> None:
        kept.append(item)
        mutable = isinstance(item, MUTABLE) or (
            hasattr(item, "__dict__") and not isinstance(item, type) and not callable(item)
        )
        if mutable:
            known = id(item) in order
            met.append(order.setdefault(id(item), len(order)))
            if known:
                return
        for part in _parts(item):
            walk(part)

    walk(value)
    return met


def _parts(item: Any) -> Iterator[Any]:
    if isinstance(item, (list, tuple, deque)):
        yield from item
    elif isinstance(item, dict):
        for pair in item.items():
            yield from pair
    elif type(item).__module__.startswith("workfns") and hasattr(item, "__dict__"):
        yield from vars(item).values()


def is_negative_zero(value: float) -> bool:
    return value == 0 and math.copysign(1, value) < 0
