"""Functions that a worker cannot find by name are sent by value, with cloudpickle if installed.

A lambda, a closure or a function of a notebook is pickled with its code and with what it refers to.
That is done once per function, as long as nothing that it refers to can have changed; and what is
the same is sent once per worker, which keeps it (as a :class:`Shared` value).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from . import _core, _main, _pickling

#: How many functions, by content, are kept in the workers.
KEPT = 256

#: What a function refers to, compared by identity. None: something that may change in place.
type Fingerprint = tuple[object, ...] | None

#: A pickle, and the addresses of what goes beside it.
type Key = tuple[bytes, tuple[int, ...]]

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_MISSING = object()


class _Pickled:
    """A pickle, with what goes beside it, that arrives as the value that it is of."""

    def __init__(self, value: object) -> None:
        parcel = _core.Parcel()
        self.data = _pickling.dumps_by_value(value, parcel)
        self.buffers = parcel.buffers
        self.objects = parcel.objects

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return (_pickling.loads, (self.data, self.buffers, self.objects))

    def key(self) -> Key:
        """What is the same for two pickles only if they are of the same."""
        beside = [*self.objects, *(memoryview(buffer).obj for buffer in self.buffers)]
        return (self.data, tuple(map(id, beside)))


_lock = threading.Lock()  # guards the next two
_by_function: WeakKeyDictionary[FunctionType, tuple[tuple[object, ...], object]] = (
    WeakKeyDictionary()
)
#: The second half keeps alive what the key has the addresses of.
_by_content: OrderedDict[Key, tuple[object, _Pickled]] = OrderedDict()


def share(function: Callable[..., Any]) -> Any:
    """Return ``function`` as a :class:`Shared` value, which is the same one while it is the same.

    Raises what pickling it raises, or ImportError where cloudpickle is not installed.
    """
    fingerprint = _fingerprint(function, set()) if isinstance(function, FunctionType) else None
    if fingerprint is not None:
        with _lock:
            known = _by_function.get(function)  # type: ignore[call-overload]
        if known is not None and _are_same(known[0], fingerprint):
            return known[1]
    pickled = _Pickled(function)
    key = pickled.key()
    with _lock:
        if key in _by_content:
            _by_content.move_to_end(key)
        else:
            _by_content[key] = (_core.Shared(pickled), pickled)
            if len(_by_content) > KEPT:
                _by_content.popitem(last=False)
        shared = _by_content[key][0]
        if fingerprint is not None:
            _by_function[function] = (fingerprint, shared)  # type: ignore[index]
    return shared


def _are_same(left: tuple[object, ...], right: tuple[object, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _fingerprint(function: FunctionType, seen: set[int]) -> Fingerprint:
    if id(function) in seen:
        return ()
    seen.add(id(function))
    if function.__dict__:
        return None
    found: list[object] = [function.__code__]
    for value in _references(function):
        found.append(value)
        if isinstance(value, FunctionType) and not _is_importable(value):
            inner = _fingerprint(value, seen)
            if inner is None:
                return None
            found.extend(inner)
        elif not _is_settled(value):
            return None
    return tuple(found)


def _references(function: FunctionType) -> Iterator[object]:
    """All that the function's behaviour depends on, besides its code."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            yield _MISSING
    for name in _names(function.__code__):
        yield function.__globals__.get(name, _MISSING)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_settled(value: object) -> bool:
    """Whether it will mean the same as long as it is the same object."""
    if value is _MISSING or type(value) in _ATOMS or isinstance(value, ModuleType):
        return True
    if type(value) is tuple:
        return all(_is_settled(item) for item in value)
    return isinstance(value, type | FunctionType | BuiltinFunctionType) and _is_importable(value)


def _is_importable(value: Any) -> bool:
    """Whether it goes by name. Of the main module nothing does: it may be executed again."""
    from ._naming import is_found

    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in _main.NAMES:
        return False
    return "<" not in name and is_found(module, name, value)
