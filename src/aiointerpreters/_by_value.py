"""Functions that a worker cannot find by name are sent by value, with cloudpickle if installed.

A lambda, a closure or a function of a notebook is pickled with its code and with what it refers to,
as that is at the time of the call. There are two kinds:

- All that it refers to is *settled*: numbers, strings, modules, what can be imported. Then it is
  pickled again only if it refers to something else by now; and what is the same is sent once per
  worker, which keeps the function, as a :class:`Shared` value.
- It refers to something that can change in place: a list, an object. Then it is pickled for every
  call, and rebuilt for every call, so that calls see no changes but the caller's; but the pickle is
  sent once per worker, as long as it is the same.
"""

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from . import _core, _main, _pickling

#: How many pickles, by content, are kept in the workers.
KEPT = 256

#: What a function refers to, compared by identity; but no function that is sent by value, which
#: is told by what it refers to in turn: so nothing here keeps such a function alive.
type Fingerprint = tuple[object, ...]

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_MISSING = object()
_AGAIN = object()


class _Pickled:
    """A pickle, with what goes beside it, that arrives as the value that it is of."""

    def __init__(self, value: object) -> None:
        parcel = _core.Parcel()
        self.data = _pickling.dumps_by_value(value, parcel)
        self.buffers = parcel.buffers
        self.objects = parcel.objects

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return (_pickling.loads, (self.data, self.buffers, self.objects))


class _Sent:
    """A pickle that the worker has, or gets now, and that is rebuilt for this call."""

    def __init__(self, data: object) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return (_pickling.loads, (self.data,))


class _Cache:
    """What has been shared, by function and by pickle."""

    def __init__(self) -> None:
        # Guards the rest. No Python code of others runs under it: what leaves the cache is let go
        # of outside.
        self.lock = threading.Lock()
        self.by_function: WeakKeyDictionary[Any, tuple[Fingerprint, object]] = WeakKeyDictionary()
        self.by_pickle: OrderedDict[tuple[bytes, bool], object] = OrderedDict()

    def known(self, function: FunctionType, fingerprint: Fingerprint) -> object | None:
        with self.lock:
            found = self.by_function.get(function)
        if found is None or len(found[0]) != len(fingerprint):
            return None
        same = all(a is b for a, b in zip(found[0], fingerprint, strict=True))
        return found[1] if same else None

    def remember(self, function: FunctionType, fingerprint: Fingerprint, shared: object) -> None:
        with self.lock:
            replaced = self.by_function.get(function)
            self.by_function[function] = (fingerprint, shared)
        del replaced

    def of_pickle(self, data: bytes, make: Callable[[], object], is_function: bool) -> object:
        """What is shared for that pickle: as a function, or as the pickle itself."""
        key = (data, is_function)
        with self.lock:
            shared = self.by_pickle.get(key)
            if shared is not None:
                self.by_pickle.move_to_end(key)
                return shared
        made = make()
        dropped = None
        with self.lock:
            shared = self.by_pickle.setdefault(key, made)
            if len(self.by_pickle) > KEPT:
                dropped = self.by_pickle.popitem(last=False)
        del made, dropped
        return shared


_cache = _Cache()


def _forget_all() -> None:
    """In a forked child: the lock may be held by a thread that does not exist here."""
    global _cache
    _cache = _Cache()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def send(function: Callable[..., Any]) -> Any:
    """Return something that arrives as ``function`` when it is sent.

    Raises what pickling it raises, or ImportError where cloudpickle is not installed.
    """
    fingerprint = _fingerprint(function)
    if fingerprint is not None and isinstance(function, FunctionType):
        known = _cache.known(function, fingerprint)
        if known is not None:
            return known
    pickled = _Pickled(function)
    if pickled.buffers or pickled.objects:
        return pickled  # memory that can change, most likely, or is too large to be kept
    if fingerprint is None or not isinstance(function, FunctionType):
        data = pickled.data
        return _Sent(_cache.of_pickle(data, lambda: _core.Shared(data), False))
    shared = _cache.of_pickle(pickled.data, lambda: _core.Shared(pickled), True)
    _cache.remember(function, fingerprint, shared)
    return shared


def _fingerprint(function: Callable[..., Any]) -> Fingerprint | None:
    """All that ``function`` depends on, or None if any of it can change in place."""
    if not isinstance(function, FunctionType) or _pickling.sends_modules_by_value():
        return None
    found: list[object] = []
    return tuple(found) if _add_fingerprint(function, found, set()) else None


def _add_fingerprint(function: FunctionType, found: list[object], seen: set[int]) -> bool:
    if id(function) in seen:
        found.append(_AGAIN)
        return True
    seen.add(id(function))
    if function.__dict__:
        return False
    found += (function.__code__, function.__name__, function.__qualname__, function.__doc__)
    for value in _references(function):
        if isinstance(value, FunctionType) and not _is_importable(value):
            if not _add_fingerprint(value, found, seen):
                return False
        elif _is_settled(value):
            found.append(value)
        else:
            return False
    return True


def _references(function: FunctionType) -> Iterator[object]:
    """All that the function's behaviour depends on, besides its code."""
    defaults, keyword_defaults = function.__defaults__, function.__kwdefaults__
    yield len(defaults or ())
    yield from defaults or ()
    for name, value in (keyword_defaults or {}).items():
        yield sys.intern(name)
        yield value
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
    if value is _MISSING or type(value) in _ATOMS:
        return True
    if type(value) is tuple:
        return all(_is_settled(item) for item in value)
    if isinstance(value, ModuleType):
        return sys.modules.get(value.__name__) is value and value.__name__ not in _main.NAMES
    return isinstance(value, type | FunctionType | BuiltinFunctionType) and _is_importable(value)


def _is_importable(value: Any) -> bool:
    """Whether it goes by name. Of the main module nothing does: it may be executed again."""
    from ._naming import is_found

    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in _main.NAMES:
        return False
    return "<" not in name and is_found(module, name, value)
