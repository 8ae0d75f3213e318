"""This process and those that it has started, as Linux sees them: CPU time, and wake-ups.

To look for processes takes milliseconds: so do it before the time that is measured.
"""

import contextlib
import os
import resource
import time
from collections.abc import Sequence


def tree() -> list[int]:
    """Return this process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                # The name, in parentheses, may hold anything.
                parent = int(stat.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for process in found:
        found += children.get(process, [])
    return found


def cpu_seconds(processes: Sequence[int]) -> float:
    """Return the CPU time used so far, exactly: by these, and by children of ours that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # those that have ended
    seconds = used.ru_utime + used.ru_stime
    for process in processes:
        with contextlib.suppress(OSError):  # it has just ended
            # The CPU clock of another process: clock_getcpuclockid(3).
            seconds += time.clock_gettime(~process << 3 | 2)
    return seconds


def wake_ups(processes: Sequence[int]) -> int:
    """Return how often threads of these have gone to sleep."""
    count = 0
    for process in processes:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{process}/task"):
                with open(f"/proc/{process}/task/{thread}/status", encoding="utf-8") as status:
                    count += sum(
                        int(line.split()[1])
                        for line in status
                        if line.startswith("voluntary_ctxt_switches")
                    )
    return count
