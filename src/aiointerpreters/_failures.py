"""Exceptions, from a worker to the caller.

An exception is told as plain values (an *account*), from which the caller puts it together again:
its own type, args, attributes and notes, its chain of ``__cause__``, and the worker's traceback as
text, which becomes the last cause, shown as ``concurrent.futures`` shows it for processes.
"""

from collections.abc import Iterator

from . import _finding, _pickling, _refusals

#: An exception and its causes, outermost first, each as told by :func:`_pack_link`.
type Chain = tuple["Link", ...]
#: By pickle; or, for when that does not work on the other side: by class, args and attributes.
type Link = tuple[bytes | None, str, str, bytes | None, bytes | None]
#: Chain (None if it cannot be rebuilt), name of the type, text, traceback text; and, where an
#: extension module has refused subinterpreters, that.
type Account = tuple[Chain | None, str, str, str, _refusals.Refusal | None]

note_not_begun = _refusals.note_not_begun


def pack(exception: BaseException) -> Account:
    """In a worker: tell what of ``exception`` can cross."""
    refusal = _refusals.refusal_of(exception)
    chain = tuple(_pack_link(link) for link in _causes(exception))
    name = _type_name(type(exception))
    return (chain, name, _text(exception), _traceback_text(exception), refusal)


def _causes(exception: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = exception
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _pack_link(exception: BaseException) -> Link:
    kind = type(exception)
    return (
        _try_dumps(exception),
        kind.__module__,
        kind.__qualname__,
        _try_dumps(exception.args),
        _try_dumps(getattr(exception, "__dict__", {})),
    )


def _try_dumps(value: object) -> bytes | None:
    try:
        return _pickling.dumps(value)
    except BaseException:  # its __reduce__ may raise anything
        return None


def _type_name(kind: type[BaseException]) -> str:
    if kind.__module__ in ("builtins", "__main__", "__mp_main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def _text(exception: BaseException) -> str:
    try:
        return str(exception)
    except BaseException:
        return "<its str() raises>"


def _traceback_text(exception: BaseException) -> str:
    try:
        _finding.load("traceback")
        import traceback

        return "".join(traceback.format_exception(exception))
    except Exception as error:  # the worker's import path is gone, for one
        text = f"{_type_name(type(exception))}: {_text(exception)}\n"
        return f"(no traceback: {type(error).__name__}: {_text(error)})\n{text}"


def rebuild(account: Account | None) -> BaseException:
    """In the caller: put the exception together that a worker told of."""
    from .errors import InterpreterError, RemoteTraceback

    if account is None:
        return InterpreterError("BaseException", "the worker could not tell what it was")
    chain, name, text, traceback_text, refusal = account
    links = [] if chain is None else [_rebuild_link(link) for link in chain]
    exception = links[0] if links else None
    if exception is None or would_be_mistaken(exception):
        exception = InterpreterError(name, text, traceback_text)
        links[:1] = [exception]
    last = exception
    for cause in links[1:]:
        if cause is None:
            break
        last.__cause__ = cause
        last = cause
    last.__cause__ = RemoteTraceback(traceback_text)
    return exception if refusal is None else _explain(exception, refusal)


def _explain(exception: BaseException, refusal: _refusals.Refusal) -> BaseException:
    """Say what to do about a module that has refused subinterpreters."""
    from .errors import UnsupportedModule

    module, function, has_begun = refusal
    if has_begun:
        exception.add_note(_refusals.note_of(refusal))
        return exception
    error = UnsupportedModule(_refusals.text_of(refusal), name=module)
    error.function = function
    error.__cause__ = exception
    for note in getattr(exception, "__notes__", ()):
        error.add_note(note)
    error.has_not_begun = True
    return error


def _rebuild_link(link: Link) -> BaseException | None:
    pickled, module, qualname, args, attributes = link
    try:
        if pickled is not None:
            exception = _pickling.loads(pickled)
            if isinstance(exception, BaseException):
                return exception
    except Exception:
        pass
    if args is None:
        return None
    # An __init__ that takes something else than args, most often: go round it.
    try:
        kind = _finding.resolve("module", module, qualname)
        values = _pickling.loads(args)
        exception = kind.__new__(kind, *values)
        if not isinstance(exception, BaseException):
            return None
        exception.args = values
        if attributes is not None:
            exception.__dict__.update(_pickling.loads(attributes))
    except Exception:
        return None
    return exception


def would_be_mistaken(exception: BaseException) -> bool:
    """Whether it would end the caller's program, or pass for a cancellation of the caller."""
    from asyncio import CancelledError

    from ._core import Interrupted

    return isinstance(
        exception, SystemExit | KeyboardInterrupt | GeneratorExit | CancelledError | Interrupted
    )


def rebuild_broken(account: Account | None) -> BaseException:
    """In the caller: the error of a pool in which a worker could not start."""
    from .errors import BrokenRunner

    cause = rebuild(account)
    error = BrokenRunner(f"a worker could not start: {type(cause).__name__}: {cause}")
    error.__cause__ = cause
    error.has_not_begun = True
    return error
