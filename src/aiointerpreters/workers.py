"""What a function can know of the worker that runs it.

Imported in workers, so it imports next to nothing.
"""

from __future__ import annotations

from types import SimpleNamespace

from . import _core

__all__ = ("Worker", "current_worker", "worker")


class Worker:
    """The worker that runs this code; :func:`worker` gives it.

    Attributes:
        index: A small number that no other live worker of the runner has. Numbers are used again:
            of four workers they are mostly 0 to 3.
        name: The runner's name and the index, as in ``"aio-worker-3"``.
        state: A namespace for whatever shall last for the worker's life: a loaded model, a compiled
            grammar. Each worker has one of its own, empty at first; an ``initializer`` may fill it.
    """

    __slots__ = ("index", "name", "state")

    def __init__(self, index: int, runner_name: str) -> None:
        self.index = index
        self.name = f"{runner_name}-{index}"
        self.state = SimpleNamespace()

    def should_stop(self) -> bool:
        """Whether nobody waits any more for what this worker runs.

        The call was cancelled, its time is up, or the runner is being stopped. Python code is
        interrupted then anyway (:exc:`Interrupted`); ask where that is held off, or to tell, in a
        ``finally`` block, whether to hurry. Coroutines are cancelled instead, as in asyncio.
        """
        return _core.should_stop()

    def __repr__(self) -> str:
        return f"<Worker {self.name!r}>"


_worker: Worker | None = None


def tell(index: int, runner_name: str) -> None:
    """In a process of a runner: it is a worker, too."""
    global _worker
    _worker = Worker(index, runner_name)


def current_worker() -> Worker | None:
    """The worker that runs this code; None if it is not run by one."""
    global _worker
    if _worker is None:
        described = _core.worker()
        if described is not None:
            index, runner_name, _ = described
            _worker = Worker(index, runner_name)
    return _worker


def worker() -> Worker:
    """The worker that runs this code.

        def tag(text):
            state = worker().state
            if not hasattr(state, "model"):
                state.model = load_model()
            return state.model.tag(text)

    Raises:
        RunnerError: It is not run by a worker.
    """
    found = current_worker()
    if found is None:
        from .errors import RunnerError

        raise RunnerError(
            "this code is not run by a worker: current_worker() tells, without raising"
        )
    return found
