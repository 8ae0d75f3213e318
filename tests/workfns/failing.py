"""Functions that raise, in every way that exceptions can."""

import asyncio
import sys
import threading
from typing import Any


class Own(Exception):
    """An exception of the user's own."""


class TwoArguments(Exception):
    """Gives its base another number of arguments than it takes."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__("failed")
        self.code = code


class Reducing(Exception):
    """Knows how to be rebuilt."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__()
        self.first, self.second = first, second

    def __reduce__(self) -> Any:
        return Reducing, (self.first, self.second)


class OwnOSError(OSError):
    pass


class OwnGroup(ExceptionGroup[Exception]):
    def derive(self, excs: Any) -> "OwnGroup":
        return OwnGroup(self.message, excs)


class Halt(BaseException):
    """Neither an Exception nor one of Python's own endings."""


class HoldsALock(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class BrokenStr(Exception):
    def __str__(self) -> str:
        raise LookupError("no str")


class BrokenRepr(Exception):
    def __repr__(self) -> str:
        raise LookupError("no repr")


class BrokenReduce(Exception):
    def __reduce__(self) -> Any:
        raise LookupError("no reduce")


class BrokenEverything(HoldsALock):
    def __str__(self) -> str:
        raise LookupError("no str")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise SystemExit("no reduce")


class BrokenWhenRebuilt(Exception):
    """Can be pickled, not unpickled."""

    def __reduce__(self) -> Any:
        return _refuse, (str(self),)


def _refuse(*_: object) -> Any:
    raise LookupError("refuses to be rebuilt")


def throw(error: BaseException) -> None:
    """Raise what came as an argument."""
    raise error


def divide_by_zero() -> float:
    return 1 / 0


def raise_two_arguments() -> None:
    raise TwoArguments(7, "seven")


def raise_keyword_only() -> None:
    raise KeywordOnly(code=7)


def raise_with_attributes() -> None:
    error = Own("with attributes")
    error.detail = {"page": [1, 2]}  # type: ignore[attr-defined]
    raise error


def raise_with_notes() -> None:
    error = ValueError("noted")
    error.add_note("first note")
    error.add_note("second note")
    raise error


def raise_with_causes() -> None:
    try:
        try:
            raise KeyError("the root")
        except KeyError as root:
            raise Own("the middle") from root
    except Own as middle:
        raise ValueError("the top") from middle


def raise_while_handling() -> None:
    try:
        divide_by_zero()
    except ZeroDivisionError:
        raise Own("while handling")  # noqa: B904


def raise_from_nothing() -> None:
    try:
        divide_by_zero()
    except ZeroDivisionError:
        raise Own("from nothing") from None


def raise_caused_by_unsendable() -> None:
    raise ValueError("the top") from HoldsALock("the cause")


def raise_cyclic_causes() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def raise_group() -> None:
    raise ExceptionGroup(
        "several", [ValueError(1), ExceptionGroup("inner", [Own("two"), OSError(2, "three")])]
    )


def raise_own_group() -> None:
    raise OwnGroup("own", [ValueError(1)])


def open_missing(path: str) -> None:
    open(path).close()


def decode_badly() -> str:
    return b"ab\xff".decode("utf-8")


def encode_badly() -> bytes:
    return "ab\udcff".encode("utf-8")


def import_missing() -> None:
    import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401


def compile_badly() -> None:
    compile("x = = 1", "<text>", "exec")


def do_without_cloudpickle() -> None:
    sys.modules["cloudpickle"] = None  # type: ignore[assignment]


def raise_local_class() -> None:
    class Local(Exception):
        pass

    raise Local("of a function")


def raise_holding_a_lock() -> None:
    raise HoldsALock("holds a lock")


def raise_lock_argument() -> None:
    raise ValueError("with a lock", threading.Lock())


def raise_broken(name: str) -> None:
    raise globals()[name]("broken")


def raise_group_with_unsendable() -> None:
    raise ExceptionGroup("several", [ValueError(1), HoldsALock("in a group")])


def exit_with(code: Any) -> None:
    raise SystemExit(code)


def interrupt() -> None:
    raise KeyboardInterrupt


def cancel() -> None:
    raise asyncio.CancelledError("from a worker")


def stop_generator() -> None:
    raise GeneratorExit


def stop_iteration() -> None:
    raise StopIteration(5)


def raise_memory_error() -> None:
    raise MemoryError("no memory left")


def allocate_too_much() -> bytes:
    return bytes(2**62)


def recurse() -> None:
    recurse()


class Recursive:
    def __getattr__(self, name: str) -> Any:
        return getattr(self, name + "_")

    def __repr__(self) -> str:
        return f"<{self!r}>"

    def __eq__(self, other: object) -> bool:
        return self == other

    def __lt__(self, other: Any) -> bool:
        return bool(sorted([self, other]))


def recurse_in_c(way: str, depth: int = 200_000) -> None:
    """Recursion without end, through the interpreter's C code rather than Python's frames."""
    import copy
    import json
    import pickle

    nested: Any = []
    table: Any = {}
    for _ in range(depth):
        nested = [nested]
        table = {"": table}
    match way:
        case "repr":
            repr(nested)
        case "compare":
            other: Any = []
            for _ in range(depth):
                other = [other]
            _ = nested == other
        case "json":
            json.dumps(nested)
        case "json.loads":
            json.loads("[" * depth)
        case "pickle":
            pickle.dumps(nested)
        case "deepcopy":
            copy.deepcopy(nested)
        case "getattr":
            getattr(Recursive(), "missing")  # noqa: B009
        case "own repr":
            repr(Recursive())
        case "sort":
            sorted([Recursive(), Recursive()])
        case "compile":
            compile("(" * depth + ")" * depth, "<text>", "eval")
        case "compile operators":
            compile("-" * depth + "1", "<text>", "eval")


def describe_error(error: BaseException) -> tuple[str, tuple[Any, ...], str]:
    return type(error).__qualname__, error.args, str(error)
