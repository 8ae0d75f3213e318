"""What the workers run in scaling.py: they import this by name, so it imports little itself."""

import time


def give_back(value: object) -> object:
    """Do nothing: the way there and back is measured."""
    return value


def burn(nanoseconds: int) -> None:
    """Compute for so much CPU time of this thread.

    Not for a number of iterations: the speed of a virtual machine's core changes by half, from one
    moment to the next. Each look at the clock takes most of a microsecond, so it is that exact.
    """
    clock = time.thread_time_ns
    end = clock() + nanoseconds
    while clock() < end:
        pass


def thread_cpu_ns() -> int:
    """Return the CPU time that this worker's thread has used."""
    return time.thread_time_ns()


def occupy(seconds: float) -> None:
    """Keep a worker from taking calls."""
    time.sleep(seconds)
