"""The exceptions of aiointerpreters.

Exceptions that a function raises in a worker are raised in the caller as what they are; only what
cannot be rebuilt there comes as :exc:`InterpreterError`.
"""

from concurrent.futures import BrokenExecutor
from queue import Full

__all__ = (
    "AioInterpretersError",
    "BrokenRunner",
    "InterpreterError",
    "NotShareableError",
    "ProcessDied",
    "RemoteTraceback",
    "RunnerError",
    "RunnerFull",
    "UnsupportedModule",
    "WorkerStuck",
)


class AioInterpretersError(Exception):
    """The base of all exceptions that are this package's own."""


class RunnerError(AioInterpretersError, RuntimeError):
    """A runner was used in a way that cannot work; the text says what to do instead."""


class NotShareableError(RunnerError, TypeError):
    """A value cannot be sent to another interpreter.

    The text begins with the path to it: ``args[1]['key'][3]: socket ...`` for an argument,
    ``result['key'] ...`` for what a function returned. ``__cause__`` is what pickle said.
    """


class RunnerFull(RunnerError, Full):  # noqa: N818 - as queue has it
    """A call was refused because as many as the runner's ``max_pending`` are not done yet.

    :meth:`Runner.submit` raises it, which does not wait.
    """


class BrokenRunner(RunnerError, BrokenExecutor):  # noqa: N818 - as concurrent.futures has it
    """A worker could not start, or its ``initializer`` or ``preload`` raised.

    Pending and later calls fail with it. ``__cause__`` is the exception of the worker.
    """

    #: Set by the runner whose call it is.
    has_not_begun: bool = False


class UnsupportedModule(RunnerError, ImportError):  # noqa: N818 - as BrokenRunner
    """A function could not be called: an extension module refuses to be loaded in a worker.

    Most extension modules have not been made for subinterpreters yet. Nothing of the function has
    run. ``Runner(unsupported="process")`` runs such functions in processes instead, and so does
    ``runner.options(where="process")``. ``__cause__`` is the error of the import.
    """

    #: The extension module's name.
    name: str
    #: The function's name, if it has one that is known.
    function: str | None = None
    #: Set by the runner whose call it is.
    has_not_begun: bool = False

    def __init__(self, text: str, *, name: str = "") -> None:
        ImportError.__init__(self, text, name=name)


class ProcessDied(RunnerError, BrokenExecutor):  # noqa: N818 - as BrokenRunner
    """The process that ran a call has died: it crashed, was killed, or called ``os._exit()``.

    Only that call fails. Another process takes the place of this one.

    Attributes:
        exit_code: As :attr:`subprocess.Popen.returncode`: what it exited with, or minus the number
            of the signal that has killed it.
    """

    exit_code: int | None = None


class WorkerStuck(RunnerError):  # noqa: N818 - as BrokenRunner
    """A coroutine was given up, because the worker in whose event loop it ran is stuck.

    Another coroutine there was cancelled, and could not be stopped within the runner's
    ``grace_period``: it is in a long call of C code, or swallows interruptions, and holds up all
    others in that loop. What this one had done by then is done; should the loop ever go on, it is
    cancelled there.
    """


class InterpreterError(AioInterpretersError):
    """An exception of a worker that cannot be raised as itself in the caller.

    Either it cannot be rebuilt there, or it would end the program or be taken for a cancellation
    (:exc:`SystemExit`, :exc:`KeyboardInterrupt`, :exc:`GeneratorExit`,
    :exc:`asyncio.CancelledError`, or an :exc:`Interrupted` of the function's own).
    """

    #: The name of the exception's type, with its module unless it is a builtin.
    type_name: str
    #: The exception's text.
    message: str
    #: The traceback, as the worker would have printed it.
    traceback_text: str

    def __init__(self, type_name: str, message: str = "", traceback_text: str = "") -> None:
        super().__init__(type_name, message, traceback_text)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class RemoteTraceback(Exception):  # noqa: N818 - it is never raised
    """The traceback in a worker: the last ``__cause__`` of an exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'
