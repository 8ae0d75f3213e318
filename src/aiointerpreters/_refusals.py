"""Extension modules that refuse subinterpreters, and how that is told from other failed imports.

CPython says so in one wording, from all places (import.c, moduleobject.c). What was made by Cython
or PyO3, and numpy, may look for themselves; and packages wrap the error that they get in one of
their own. So the chain of an ImportError is searched, for what its links say.

Loaded into workers when an import has failed there, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._finding import FunctionName

#: What was refused: the extension module, the function that was to be called if that is known, and
#: whether its call had begun.
type Refusal = tuple[str, str | None, bool]

#: ``module NAME does not support loading in subinterpreters``
_CPYTHON = " does not support loading in subinterpreters"
_OTHERS = (
    "this module can only be loaded into one interpreter per process",  # Cython
    "PyO3 modules do not yet support subinterpreters",
    "PyO3 modules may only be initialized once per interpreter process",
    "cannot load module more than once per process",  # numpy
)

#: Where note_not_begun() keeps the function's name, or None, on an ImportError.
_NOT_BEGUN = "__aiointerpreters_not_begun__"


def note_not_begun(exception: BaseException, function: FunctionName | None) -> None:
    """Note on an ImportError that it came before ``function`` was called."""
    exception.__dict__[_NOT_BEGUN] = function


def refusal_of(exception: BaseException) -> Refusal | None:
    """What an exception says of a refusal; None if it has another reason. Takes the note off."""
    # It was another runner's, if it has this, and has been let through by the function.
    exception.__dict__.pop("has_not_begun", None)
    if not isinstance(exception, ImportError):
        return None
    has_begun = _NOT_BEGUN not in exception.__dict__
    function = exception.__dict__.pop(_NOT_BEGUN, None)
    module = refused_module(exception)
    if module is None:
        return None
    return (module, None if function is None else f"{function[1]}.{function[2]}", has_begun)


def refused_module(exception: BaseException) -> str | None:
    """The extension module that has refused, if it is that why an import failed."""
    for link in _chain(exception):
        try:
            text = str(link)
        except Exception:
            continue
        before, found, _ = text.partition(_CPYTHON)
        if found:
            return before.rpartition(" ")[2]
        if any(other in text for other in _OTHERS):
            return _name_of(link)
    return None


def _chain(exception: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it; what was first, which says most, comes first."""
    links: list[BaseException] = []
    link: BaseException | None = exception
    while link is not None and not any(link is other for other in links):
        links.append(link)
        link = link.__cause__ or link.__context__
    return reversed(links)


def _name_of(exception: BaseException) -> str:
    """The module of which an ImportError is, by what it says, or who imported it."""
    name = getattr(exception, "name", None)
    if isinstance(name, str) and name:
        return name
    importer = None
    traceback = exception.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__")
        if isinstance(module, str) and not module.startswith("importlib."):
            importer = module
        traceback = traceback.tb_next
    return "(unknown)" if importer is None else f"(imported by {importer})"


# ---- in the caller ----

ADVICE = (
    'make it a Runner(unsupported="process"), or an Executor(unsupported="process"), or call it by '
    'runner.options(where="process"), to run it in a process'
)


def text_of(refusal: Refusal) -> str:
    module, function, _ = refusal
    is_known = function is not None and not function.startswith("aiointerpreters._")
    subject = function if is_known else "the function"
    return (
        f"{subject} can't be called in a subinterpreter: the extension module {module}, which it, "
        f"an argument or a context variable needs, does not support subinterpreters; {ADVICE}"
    )


def note_of(refusal: Refusal) -> str:
    module, _, _ = refusal
    return (
        f"The extension module {module} does not support subinterpreters, and was imported when "
        "the function was running already, which therefore can't be moved. Import it at the top "
        'of the function\'s module, with Runner(unsupported="process"), or '
        'Executor(unsupported="process"); or call the function by '
        'runner.options(where="process"), to run it in a process.'
    )
