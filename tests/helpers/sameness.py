"""Exact equality of values that crossed between interpreters: types, signs, bits."""

import math
import struct


def same(left: object, right: object) -> bool:
    """Whether two values are equal with the same types throughout.

    Unlike `==`, tells True from 1, 0.0 from -0.0, and calls a nan equal to the same nan.
    """
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, (set, frozenset)):
        return len(left) == len(right) and same_unordered(left, right)
    if isinstance(left, memoryview):
        return (
            (left.format, left.shape, left.readonly) == (right.format, right.shape, right.readonly)
            and left.itemsize == right.itemsize
            and left.tobytes() == right.tobytes()
        )
    return bool(left == right)


def same_unordered(left: object, right: object) -> bool:
    rest = list(right)
    for item in left:
        for index, other in enumerate(rest):
            if same(item, other):
                del rest[index]
                break
        else:
            return False
    return True


def is_negative_zero(value: float) -> bool:
    return value == 0 and math.copysign(1, value) < 0
