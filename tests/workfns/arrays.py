"""Functions of a module that imports numpy."""

from typing import Any

import numpy as np


def total(array: Any) -> float:
    return float(array.sum())


def doubled(array: Any) -> Any:
    array *= 2  # in place: what arrives is this side's own
    return array


def zeros(count: int) -> Any:
    return np.zeros(count)


def describe(array: Any) -> Any:
    return (array.dtype.str, array.shape, array.flags.writeable, array.tolist())


def chunks(count: int, size: int) -> Any:
    for number in range(count):
        yield np.full(size, number)
