"""The threads that user code left running, when their worker ends; see left_threads.c."""

from __future__ import annotations

import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor
    from types import ModuleType


class LeftThreads:
    """The other threads of this interpreter. Made in the worker's own thread, when it ends.

    Args:
        core: The worker's own module ``_core``, even if user code has removed it from where modules
            are found.
        in_a_hurry: The pool is being stopped: what its workers do is given up.
    """

    def __init__(self, core: ModuleType, in_a_hurry: bool) -> None:
        self._core = core
        self._in_a_hurry = in_a_hurry
        self._watcher = threading.Thread(target=self._join_all, name="aio-left-threads")
        self._worker_thread_id = threading.get_ident()
        self._interrupted: list[str] = []

    def watch(self) -> bool:
        """Whether there are any. If so, those are let go that only wait for work in an executor,
        and a thread of ours will say when the last one has ended.
        """
        if not self._running():
            return False
        for executor in _executors():
            try:  # noqa: SIM105 - contextlib imports much
                executor.shutdown(wait=False, cancel_futures=self._in_a_hurry)
            except Exception:  # some class of the user's: its threads are seen to as all others
                pass
        self._watcher.start()
        return True

    def _running(self) -> list[threading.Thread]:
        # To `threading` the main thread is the program's, even here, and the worker's is a daemon.
        # One without an identifier is being started by another one, or failed to start.
        ours = (None, self._worker_thread_id)
        return [
            thread
            for thread in threading.enumerate()
            if thread.ident not in ours
            and thread not in (self._watcher, threading.main_thread())
            and not thread.daemon
        ]

    def _join_all(self) -> None:
        while running := self._running():
            for thread in running:
                threading.Thread.join(thread)  # a subclass may call something else `join`
        self._core.left_threads_ended()

    def interrupt(self) -> None:
        """Raise Interrupted in all that run. Those that end by it print no traceback."""
        hook = threading.excepthook

        def pass_over_interrupted(args: threading.ExceptHookArgs, /) -> None:
            if not issubclass(args.exc_type, self._core.Interrupted):
                hook(args)

        threading.excepthook = pass_over_interrupted
        for thread in self._running():
            assert thread.ident is not None
            if self._core.interrupt_thread(thread.ident):
                self._interrupted.append(thread.name)

    def warn(self, in_a_hurry: bool) -> None:
        """Say what became of them, unless they ended as was to be expected."""
        import warnings

        running = [thread.name for thread in self._running()]
        ended = [name for name in self._interrupted if name not in running]
        if ended and not in_a_hurry:
            warnings.warn(
                "a worker has ended, and interrupted threads that its functions had left "
                f"running: {', '.join(ended)}",
                RuntimeWarning,
                stacklevel=2,
            )
        if running:
            warnings.warn(
                "a worker was to end, but threads that its functions left running do not: "
                f"{', '.join(running)}. Its runner goes on without it; the program can't end "
                "before they do",
                RuntimeWarning,
                stacklevel=2,
            )


def _executors() -> Iterator[Executor]:
    """All thread and process pools of this interpreter."""
    futures = sys.modules.get("concurrent.futures")
    if futures is None:
        return
    import gc

    for found in gc.get_objects():
        if issubclass(type(found), futures.Executor):
            yield found
