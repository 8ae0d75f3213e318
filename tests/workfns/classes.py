"""Classes whose instances cross by pickle, or refuse to."""

import collections
import enum
import pickle
import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    name: str


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flags(enum.Flag):
    A = 1
    B = 2


class IntFlags(enum.IntFlag):
    A = 1
    B = 2


class Word(enum.StrEnum):
    YES = "yes"


class Pair(NamedTuple):
    left: int
    right: str


OldPair = collections.namedtuple("OldPair", ["left", "right"])


class Text(str):
    """A str with attributes."""


class Number(int):
    pass


class Items(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    def __missing__(self, key: object) -> object:
        return key


class Ratio(float):
    pass


class Phase(complex):
    pass


class Raw(bytes):
    pass


class Buffer(bytearray):
    pass


class Row(tuple):  # type: ignore[type-arg]
    pass


class Group(set):  # type: ignore[type-arg]
    pass


class FrozenGroup(frozenset):  # type: ignore[type-arg]
    pass


class Node:
    def __init__(self) -> None:
        self.self = self


@dataclass
class Holder:
    """Refuses to be pickled while it holds a lock."""

    lock: Any = field(default_factory=threading.Lock)


class OutOfBand:
    """Pickles its bytes out of band, as array libraries do."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        assert protocol >= 5
        return OutOfBand, (pickle.PickleBuffer(self.data),)


class RaisesWhenPickled:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


def _refuse(*_: object) -> Any:
    raise LookupError("refuses to be rebuilt")


class RaisesWhenRebuilt:
    def __reduce__(self) -> Any:
        return _refuse, ()


class Mutator:
    """Calls `change` while it is pickled."""

    def __init__(self, change: Any = None) -> None:
        self.change = change

    def __reduce__(self) -> Any:
        if self.change is not None:
            self.change()
        return Mutator, ()


def raising_when_rebuilt() -> Any:
    return [RaisesWhenRebuilt()]


def holder() -> Any:
    return [Holder()]


def raising_when_pickled() -> Any:
    return [RaisesWhenPickled(LookupError("refuses to be pickled"))]


def move(point: Point, by: int) -> Point:
    return Point(point.x + by, point.y + by)


def is_own_self(node: Node) -> bool:
    return node.self is node


class NeedsTwo(Exception):
    """It can be raised, but not unpickled."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
