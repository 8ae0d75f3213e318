"""Values, to another process and back: a pickle, and beside it what is large.

As between interpreters, large strings and buffers are taken out of the pickle (_pickling.py), here
to go into shared memory as they are (_wire.py).
"""

from __future__ import annotations

import pickle

from . import _core, _pickling
from .errors import NotShareableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

#: How an object that was taken out is put together again: what it is, its segment, and more.
type Spec = tuple[Any, ...]


def pack(value: object, name: str, about: object = None) -> list[Any]:
    """Make the segments of a message of a value, and of something plain that is said about it.

    Args:
        name: Of the value, for the error; if it is empty, value is a tuple of what has names, as
            :data:`_PARTS` says.

    Raises:
        NotShareableError: It can't be sent; the text begins with the path to the culprit.
    """
    segments: list[Any] = [b""]
    try:
        layout = _pack(value, segments)
    except (KeyboardInterrupt, _core.Interrupted):
        raise
    except BaseException as error:
        path, culprit, cause = _find_culprit(value, name, error)
        raise NotShareableError(
            f"{path}: {type(culprit).__qualname__} cannot be sent to another process: {cause}"
        ) from cause
    segments[0] = pickle.dumps((about, layout), 5)
    return segments


def about(segments: Sequence[memoryview]) -> Any:
    """What was said about the value."""
    return pickle.loads(segments[0])[0]


def unpack(segments: Sequence[memoryview]) -> Any:
    """The value. Raises what pickle or the value's own methods raise."""
    return _unpack(pickle.loads(segments[0])[1], segments)


def _pack(value: object, segments: list[Any]) -> Spec:
    parcel = _core.Parcel()
    data = _pickling.dumps(value, parcel)
    first = len(segments)
    segments.append(data)
    for buffer in parcel.buffers:
        try:
            segments.append(buffer.raw())
        except BufferError:  # it is not contiguous
            segments.append(memoryview(buffer).tobytes())
    specs = [_take_out(item, segments) for item in parcel.objects]
    return (first, len(parcel.buffers), specs)


def _unpack(layout: Spec, segments: Sequence[memoryview]) -> Any:
    first, count, specs = layout
    buffers = segments[first + 1 : first + 1 + count]
    objects = [_put_back(spec, segments) for spec in specs]
    return _pickling.loads(segments[first], buffers, objects)  # type: ignore[arg-type]


def _take_out(item: Any, segments: list[Any]) -> Spec:
    kind = type(item)
    if kind is str:
        item = item.encode("utf-8", "surrogatepass")
    elif kind is memoryview:
        return _take_view_out(item, segments)
    elif kind is not bytes and kind is not bytearray:
        if kind is _core.Shared:
            return ("shared", _pack(_core.copy_value(item), segments))
        raise pickle.PicklingError(f"a {kind.__qualname__} belongs to this process")
    segments.append(item)
    return (kind.__name__, len(segments) - 1)


def _take_view_out(view: memoryview, segments: list[Any]) -> Spec:
    if view.ndim != 1 or view.format != "B":
        try:
            memoryview(bytes(view.itemsize)).cast(view.format)  # type: ignore[call-overload]
        except (ValueError, TypeError):
            raise pickle.PicklingError(
                f"a memoryview with format {view.format!r} can't be made in another process"
            ) from None
    segments.append(pickle.PickleBuffer(view).raw() if view.c_contiguous else view.tobytes())
    return ("memoryview", len(segments) - 1, view.format, view.shape, view.readonly)


def _put_back(spec: Spec, segments: Sequence[memoryview]) -> Any:
    kind, where, *more = spec
    if kind == "shared":
        return _unpack(where, segments)
    segment: Any = segments[where]
    if kind == "str":
        return str(segment, "utf-8", "surrogatepass")
    if kind == "bytes":
        return bytes(segment)
    if kind == "bytearray":
        return bytearray(segment)
    format_, shape, is_readonly = more
    if segment.readonly and not is_readonly:  # it was copied, to be contiguous
        segment = memoryview(bytearray(segment))
    view: Any = segment
    if 0 in shape:
        view = memoryview(b"" if is_readonly else bytearray()).cast(format_)
    elif (format_, shape) != ("B", (segment.nbytes,)):
        view = segment.cast("B").cast(format_, shape)
    return view.toreadonly() if is_readonly else view


# ---- what can't be sent ----


def _find_culprit(
    value: object, name: str, error: BaseException
) -> tuple[str, object, BaseException]:
    """The smallest part of a value that can't be sent: its path, itself, and why."""
    path = name
    for _ in range(100):
        for part_path, part in _parts(path, value):
            try:
                _pack(part, [])
            except Exception as part_error:
                path, value, error = part_path, part, part_error
                break
        else:
            break
    return path, value, error


def _parts(path: str, value: Any) -> Iterator[tuple[str, object]]:
    kind = type(value)
    if path == "":  # a call: context, function, args, kwargs
        context, function, args, kwargs = value
        yield "context", context
        yield "function", function
        yield from ((f"args[{i}]", arg) for i, arg in enumerate(args))
        yield from ((f"kwargs[{key!r}]", arg) for key, arg in kwargs.items())
    elif kind is tuple or kind is list:
        yield from ((f"{path}[{i}]", part) for i, part in enumerate(value))
    elif kind is dict:
        for key, part in value.items():
            yield f"{path}[{key!r}]", part
            yield f"a key of {path}", key
    elif kind is set or kind is frozenset:
        yield from ((f"an item of {path}", part) for part in value)
