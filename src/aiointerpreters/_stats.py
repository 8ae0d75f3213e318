"""What a runner counts."""

from typing import NamedTuple


class RunnerStats(NamedTuple):
    """What :meth:`Runner.stats` returns: how things stand at one moment."""

    #: Calls accepted and not done.
    pending: int
    #: Calls that no worker has begun.
    queued: int
    #: Calls that workers have come to the end of, whatever their outcome.
    done: int
    #: Workers that are being set up.
    starting: int
    #: Workers that wait for a call.
    idle: int
    #: Workers that run one.
    busy: int
    #: Workers that take no more calls, and end after the one that they run.
    retiring: int
    #: Workers that run something that could not be stopped within the grace period. They have been
    #: replaced, and end if it does.
    stuck: int
    #: Workers started since the runner was.
    started: int
    #: Workers that were found to be stuck since then.
    replaced: int
    #: Processes that there are, for what can't run in a subinterpreter.
    processes: int = 0
    #: Those of them that run a call.
    busy_processes: int = 0
    #: The functions, by name, that run in processes as a module refuses subinterpreters.
    in_processes: tuple[str, ...] = ()
