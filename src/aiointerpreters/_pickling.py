"""Pickle, where classes and functions of the main script are found on both sides.

The main script's module is ``__main__`` in the program and ``__mp_main__`` in a worker; a pickle
may name either, on either side.
"""

import functools
import importlib
import io
import pickle
import sys
from collections import ChainMap
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from . import _core, _finding, _main

PROTOCOL = 5
HINT = "install aiointerpreters[cloudpickle] to send functions and classes by value"


class _Pickler(pickle.Pickler):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name not in _main.NAMES:
            if module_name not in sys.modules:
                _finding.load(module_name)
            return super().find_class(module_name, global_name)
        return _finding.resolve("module", module_name, global_name)


def has_cloudpickle() -> bool:
    """Whether cloudpickle is installed."""
    try:
        _cloud_pickler()
    except ImportError:
        return False
    return True


def sends_modules_by_value() -> bool:
    """Whether what is in some modules is sent by value, too, as the program has asked cloudpickle.

    Cloudpickle must be installed.
    """
    return bool(importlib.import_module("cloudpickle").list_registry_pickle_by_value())


@functools.cache
def _cloud_pickler() -> type[pickle.Pickler]:
    """Return cloudpickle's pickler. Raises ImportError where it is not installed."""
    cloudpickle: Any = importlib.import_module("cloudpickle")  # it has no types
    its_own, *others = cloudpickle.Pickler.dispatch_table.maps  # the others: copyreg's, as it is

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
        # It would send the contents of an open file as if they were the file.
        dispatch_table: ClassVar = ChainMap(
            {kind: reduce for kind, reduce in its_own.items() if kind is not io.TextIOWrapper},
            *others,
        )

    return CloudPickler


def dumps(value: object, parcel: _core.Parcel | None = None) -> bytes:
    """Pickle ``value``; what goes beside the pickle goes to ``parcel``, if there is one.

    Functions and classes that pickle can't find by name are sent by value, where cloudpickle is
    installed.

    Raises what pickle or the value's own methods raise.
    """
    try:
        data = _dump(_Pickler, value, parcel)
    except (pickle.PicklingError, AttributeError) as error:
        if not has_cloudpickle():
            raise pickle.PicklingError(f"{error} ({HINT})") from None
        try:
            return dumps_by_value(value, parcel)
        except Exception:
            raise error from None
    if b"__main__" in data and _main.describe() is None:
        if not has_cloudpickle():
            raise pickle.PicklingError(
                "it refers to __main__, which has no file that a worker could load (a REPL, a "
                f"notebook or python -c): put that into a module ({HINT})"
            )
        return dumps_by_value(value, parcel)
    return data


def dumps_by_value(value: object, parcel: _core.Parcel | None) -> bytes:
    """As dumps(), but with the code of functions and classes that no module holds.

    Raises ImportError where cloudpickle is not installed, and what dumps() raises.
    """
    pickler = _cloud_pickler()
    if parcel is not None:
        parcel.clear()
    return _dump(pickler, value, parcel)


def _dump(kind: type[pickle.Pickler], value: object, parcel: _core.Parcel | None) -> bytes:
    file = io.BytesIO()
    if parcel is None:
        kind(file, PROTOCOL).dump(value)
    else:
        pickler = kind(file, PROTOCOL, buffer_callback=parcel.add_buffer)
        pickler.persistent_id = parcel.persistent_id  # type: ignore[method-assign]
        pickler.dump(value)
    return file.getvalue()


def loads(
    data: bytes, buffers: Iterable[Any] | None = None, objects: Sequence[Any] | None = None
) -> Any:
    """Return the value of what :func:`dumps` made in another interpreter.

    ``buffers`` and ``objects`` are what went beside the pickle.

    Raises what pickle or the value's own methods raise, but nothing that would end the program.
    """
    unpickler = _Unpickler(io.BytesIO(data), buffers=buffers)
    if objects is not None:
        unpickler.persistent_load = objects.__getitem__  # type: ignore[method-assign]
    try:
        return unpickler.load()
    except ImportError as error:
        error.add_note(
            "This was raised while a value that was sent was rebuilt here, from its pickle. Many "
            "extension modules can't be imported in a worker; the memory of an array can be sent "
            "as memoryview(array)."
        )
        raise
    except (Exception, KeyboardInterrupt, _core.Interrupted) as error:
        if isinstance(error, Exception):
            error.add_note(
                "This was raised while a value that was sent was rebuilt here, from its pickle."
            )
        raise
    except BaseException as error:
        raise pickle.UnpicklingError(f"{type(error).__name__} while a value was rebuilt") from error
