"""Objects that say themselves how they are pickled, and values that refer to themselves."""

import copyreg
import enum
import pickle
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Bundle:
    """A record of everything that is large."""

    view: Any = None
    data: Any = None
    array: Any = None
    text: str = ""
    buffer: Any = None
    rest: list[Any] = field(default_factory=list)


class Buffer:
    """Pickles its memory out of band, as numpy's arrays do, and is rebuilt around it."""

    def __init__(self, memory: Any, name: str = "") -> None:
        self.memory = memory
        self.name = name

    def __reduce_ex__(self, protocol: Any) -> Any:
        if protocol < 5:
            raise pickle.PicklingError("copies, before protocol 5")
        return Buffer, (pickle.PickleBuffer(self.memory), self.name)


class StatefulBuffer:
    """The same by its state."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def __getstate__(self) -> Any:
        return {"memory": pickle.PickleBuffer(self.memory)}


class Temperature:
    """Registered with copyreg; refuses any other way."""

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise AssertionError("copyreg knows how")


def _reduce_temperature(value: Temperature) -> Any:
    return _temperature, (value.degrees, "by copyreg")


def _temperature(degrees: float, how: str) -> Temperature:
    value = Temperature(degrees)
    value.how = how  # type: ignore[attr-defined]
    return value


copyreg.pickle(Temperature, _reduce_temperature)


class Reduced:
    """By all five items of a reduction."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: list[Any] = []
        self.table: dict[Any, Any] = {}
        self.history: list[str] = []

    def __reduce_ex__(self, protocol: Any) -> Any:
        assert protocol >= 5
        return Reduced, (self.name,), {"x": 1}, iter([1, [2]]), iter([("k", "v")])

    def __setstate__(self, state: Any) -> None:
        self.history.append(f"state {state}")

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Any) -> None:
        self.items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.table[key] = value


class Stateful:
    """Leaves out what can't cross, and makes it anew."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cache: Any = (item for item in ())

    def __getstate__(self) -> Any:
        return {"name": self.name, "got": "by __getstate__"}

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        self.cache = "made anew"


class NewArguments:
    def __new__(cls, *args: Any, **kwargs: Any) -> "NewArguments":
        self = super().__new__(cls)
        self.made_with = args, kwargs
        return self

    def __getnewargs_ex__(self) -> Any:
        return self.made_with


class Slots:
    __slots__ = ("first", "second")

    def __init__(self, first: Any, second: Any) -> None:
        self.first = first
        self.second = second


class ListWithState(list):  # type: ignore[type-arg]
    pass


class Member:
    """Hashes by identity, so it can be in the set that it refers to."""

    home: Any = None


class Link:
    def __init__(self, after: Any = None) -> None:
        self.after = after


class Global(enum.Enum):
    ONE = ("one", 1)


class Unpicklable:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("never to be pickled")


def bundle(size: int) -> Bundle:
    return Bundle(
        memoryview(bytearray(size)),
        bytes(size),
        bytearray(size),
        "x" * size,
        Buffer(bytearray(size), "name"),
        [Buffer(bytes(size))],
    )


def write_buffer(value: Any, index: int, byte: int) -> None:
    memoryview(value.memory)[index] = byte


kept: list[Any] = []


def make_buffer_and_keep(data: bytes) -> Buffer:
    kept[:] = [bytearray(data)]
    return Buffer(kept[0])


def keep_buffer(value: Any) -> None:
    kept[:] = [value]


def drop_buffer() -> None:
    kept.clear()


def read_kept() -> bytes:
    (value,) = kept
    return bytes(value.memory if isinstance(value, Buffer) else value)


def write_kept(index: int, byte: int) -> None:
    (value,) = kept
    memoryview(value.memory if isinstance(value, Buffer) else value)[index] = byte


def same_twice(kind: str) -> list[Any]:
    made = shared(kind)
    return [made, made, {"again": (made,)}]


def are_one(items: list[Any]) -> bool:
    first, second, third = items
    return first is second is third["again"][0]


def shared(kind: str) -> Any:
    """Something of that kind whose identity can be seen."""
    return {
        "list": list,
        "filled list": lambda: [1, "a"],
        "dict": dict,
        "filled dict": lambda: {"a": [1]},
        "set": set,
        "filled set": lambda: {1, 2},
        "bytearray": lambda: bytearray(b"abc"),
        "large bytearray": lambda: bytearray(1_000_000),
        "memoryview": lambda: memoryview(bytearray(b"abc")),
        "readonly memoryview": lambda: memoryview(b"abc"),
        "object": Link,
        "dataclass": Bundle,
        "buffer": lambda: Buffer(bytearray(b"abc")),
        "exception": lambda: ValueError("one"),
    }[kind]()


SHARED = (
    "list",
    "filled list",
    "dict",
    "filled dict",
    "set",
    "filled set",
    "bytearray",
    "large bytearray",
    "memoryview",
    "readonly memoryview",
    "object",
    "dataclass",
    "buffer",
    "exception",
)


def circle(kind: str) -> Any:
    """Values that lead back to themselves; `is_circle` tells whether one still does."""
    value: Any
    match kind:
        case "list":
            value = [1]
            value.append(value)
        case "dict":
            value = {"n": 1}
            value["self"] = value
        case "set":
            member = Member()
            value = {member, 1}
            member.home = value
        case "frozenset":
            member = Member()
            value = frozenset({member, 1})
            member.home = value
        case "tuple":
            value = ([],)
            value[0].append(value)
        case "object":
            value = Link()
            value.after = value
        case "dataclass":
            value = Bundle()
            value.rest.append(value)
        case "mixed":
            value = {"list": [({},)], "view": memoryview(bytearray(b"abc"))}
            value["list"][0][0]["top"] = [Link(value)]
        case "key":
            member = Member()
            value = {member: 1}
            member.home = value
        case "two lists":
            value = [[1]]
            value[0].append(value)
    return value


CIRCLES = (
    "list",
    "dict",
    "set",
    "frozenset",
    "tuple",
    "object",
    "dataclass",
    "mixed",
    "key",
    "two lists",
)


def is_circle(kind: str, value: Any) -> bool:
    match kind:
        case "list":
            return type(value) is list and value[0] == 1 and value[1] is value and len(value) == 2
        case "dict":
            return type(value) is dict and value["self"] is value and value["n"] == 1
        case "set" | "frozenset":
            (member,) = (item for item in value if item != 1)
            right = set if kind == "set" else frozenset
            return type(value) is right and member.home is value and 1 in value
        case "tuple":
            return type(value) is tuple and value[0][0] is value
        case "object":
            return type(value) is Link and value.after is value
        case "dataclass":
            return type(value) is Bundle and value.rest[0] is value
        case "mixed":
            return (
                value["list"][0][0]["top"][0].after is value
                and type(value["list"][0]) is tuple
                and value["view"] == b"abc"
            )
        case "key":
            (member,) = value
            return member.home is value and value[member] == 1
        case "two lists":
            return value[0][1] is value and value[0][0] == 1
    raise AssertionError(kind)


def deep(kind: str, depth: int) -> Any:
    value: Any = None
    for n in range(depth):
        match kind:
            case "list":
                value = [value]
            case "tuple":
                value = (value,)
            case "dict":
                value = {"": value}
            case "frozenset":
                value = frozenset([value])
            case "object":
                value = Link(value)
            case "dataclass":
                value = Bundle(value)
            case "mixed":
                value = [[value], (value,), {"": value}, Link(value)][n % 4]
                value = value if n % 4 < 3 else Link(value)
    return value


DEEP = ("list", "tuple", "dict", "frozenset", "object", "dataclass", "mixed")
