"""Functions and classes that have no name to be found by."""

import os
from collections.abc import Callable
from typing import Any

rebuilt = 0


class Marking:
    """Leaves a mark each time that it is rebuilt."""

    def __init__(self, fd: int, name: str = "") -> None:
        self.fd = fd
        self.name = name

    def __setstate__(self, state: Any) -> None:
        global rebuilt
        rebuilt += 1
        self.__dict__.update(state)
        os.write(self.fd, b".")


def times_rebuilt() -> int:
    return rebuilt


def apply(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def apply_all(functions: Any, value: Any) -> Any:
    for function in functions:
        value = function(value)
    return value


def adder(number: int) -> Callable[[int], int]:
    return lambda other: number + other


def nested(number: int) -> Callable[[int], Any]:
    def outer(second: int) -> Any:
        def inner(third: int) -> int:
            return number + second + third

        return inner

    return outer


def factorial() -> Callable[[int], int]:
    def calculate(number: int) -> int:
        return 1 if number < 2 else number * calculate(number - 1)

    return calculate


def lambdas() -> Any:
    return {"double": lambda n: 2 * n, "both": [lambda n: n + 1, (lambda n: n + 2,)]}


def a_class() -> Any:
    class Local:
        limit = 3

        def __init__(self, number: int) -> None:
            self.number = number

        def __eq__(self, other: object) -> bool:
            return type(other) is type(self) and other.number == self.number

        def __hash__(self) -> int:
            return hash(self.number)

        def plus(self, number: int) -> "Local":
            return type(self)(self.number + number)

    return Local


def instance_of_a_class() -> Any:
    return a_class()(5)


def kind_and_number(value: Any) -> tuple[str, int]:
    return type(value).__name__, value.number


def plus(value: Any, number: int) -> Any:
    return value.plus(number)


def same_kind(left: Any, right: Any) -> bool:
    return type(left) is type(right)


def raising() -> Any:
    def fail() -> None:
        raise LookupError("from a closure")

    return fail


kept: list[Any] = []


def keep_kind_of(value: Any) -> int:
    kept.append(type(value))
    return len({id(kind) for kind in kept})


class Reduced:
    def __init__(self, origin: str = "itself") -> None:
        self.origin = origin


def reduce_to_copyreg(_: Reduced) -> tuple[type[Reduced], tuple[str]]:
    return Reduced, ("copyreg",)


def make_lambda(number: int) -> Any:
    return lambda: number


setting = 1


def get_setting() -> int:
    return setting
