"""What the stress program says: how far it is, what was violated, and where it hangs.

Any thread may report a violation. The first one ends the process, with status 1; so does a hang,
with status 2.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from helpers.limits import SLOWNESS

if TYPE_CHECKING:
    from stage import Act

PAGE = os.sysconf("SC_PAGESIZE")
MIB = 2**20

#: Seconds in which something must end; and in which any one thing must.
STILL = 60 * SLOWNESS
LONG = 150 * SLOWNESS
#: Seconds until a worker counts as stuck, in most runners.
GRACE = 15 * SLOWNESS
#: Seconds between two lines of progress.
INTERVAL = 10.0

_ending = threading.Lock()


def resident() -> float:
    """MiB of memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE / MIB


class Run:
    """The run as a whole: its seed, and which act is played."""

    def __init__(self, seed: int, stays: bool = False) -> None:
        self.seed = seed
        self.stays = stays  # after a failure, for a debugger
        self.start = time.monotonic()
        self.act: Act | None = None
        self.ended_before = 0  # calls of earlier acts

    def ended(self) -> int:
        act = self.act
        return self.ended_before + (0 if act is None else act.ended())

    def say(self, text: str) -> None:
        print(f"stress: {text}", flush=True)

    def situation(self) -> str:
        elapsed = time.monotonic() - self.start
        lines = [f"seed {self.seed}, after {elapsed:.1f} s and {self.ended():,} calls"]
        if self.act is not None:
            lines.append(f"act {self.act.number}: {self.act}")
            lines += [f"    {line}" for line in self.act.described()]
        lines.append(f"{resident():.0f} MiB, at most {_peak():.0f}")
        return "\n".join(lines)

    def fail(self, what: str, status: int = 1) -> NoReturn:
        """End the process; for any thread."""
        _ending.acquire()  # and never release it: one report is enough
        print(f"stress: FAILED: {what}\n{self.situation()}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(all_threads=True)
        print("\n".join(_threads()), file=sys.stderr, flush=True)
        # Once more: where a log is cut, it is at its beginning.
        print(f"stress: FAILED: {what[-1000:]}, seed {self.seed}", file=sys.stderr, flush=True)
        if self.stays:
            print(f"stress: process {os.getpid()} stays", file=sys.stderr, flush=True)
            faulthandler.cancel_dump_traceback_later()
            threading.Event().wait()
        sys.stdout.flush()
        os._exit(status)

    def fail_by(self, error: BaseException, where: str) -> NoReturn:
        self.fail(f"{where}\n{''.join(traceback.format_exception(error))}")

    def watch(self) -> None:
        """Begin to look after the run, in a thread."""
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        last, changed, told = -1, time.monotonic(), time.monotonic()
        pause = threading.Event()
        while True:
            # If even this thread can't run, since somebody holds the GIL.
            faulthandler.dump_traceback_later(2 * STILL, exit=True)
            pause.wait(0.5)
            now, ended = time.monotonic(), self.ended()
            if ended != last:
                last, changed = ended, now
            elif now - changed > STILL:
                self.fail(f"nothing has ended for {STILL:.0f} s", status=2)
            if now - told >= INTERVAL:
                told = now
                self._tell(now)

    def _tell(self, now: float) -> None:
        elapsed, ended = now - self.start, self.ended()
        act = self.act
        self.say(
            f"{elapsed:.0f} s, {ended:,} calls, {ended / elapsed:,.0f}/s, {resident():.0f} MiB"
            f"{'' if act is None else f', act {act.number}'}"
        )
        if act is not None:
            for line in act.described():
                self.say(f"    {line}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB


def _threads() -> list[str]:
    """All threads, those of workers too: what each is called, whether it runs, and where.

    A thread's own signal handler knows of which interpreter it is, and what that one runs there.
    """
    lines = []
    with tempfile.TemporaryFile(buffering=0) as file:
        faulthandler.register(signal.SIGUSR2, file, all_threads=False)
        for thread in sorted(map(int, os.listdir("/proc/self/task"))):
            lines.append(f"    {thread} {_state(thread)}")
            file.seek(0)
            file.truncate()
            ctypes.CDLL(None).tgkill(os.getpid(), thread, signal.SIGUSR2)
            threading.Event().wait(0.1)  # it says nothing when it has done so
            file.seek(0)
            lines += _frames(file.read().decode())
    return lines


def _state(thread: int) -> str:
    """What the system says of it; where it waits, if there is a word for that."""
    with contextlib.suppress(OSError):
        with open(f"/proc/self/task/{thread}/stat") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        with open(f"/proc/self/task/{thread}/wchan") as file:
            place = file.read()
        fields = rest.split()
        return f"{name}: {fields[0]}, {fields[11]} + {fields[12]} ticks, {place}"
    return "has ended"


def _frames(stack: str) -> list[str]:
    """The innermost ones in one line, with the folders that tell modules apart."""
    found = re.findall(r'File "(.*?)", line (\d+) in (.*)', stack)
    frames = [f"{'/'.join(file.split('/')[-2:])}:{line} {name}" for file, line, name in found[:12]]
    return [f"        {' < '.join(frames)}"] if frames else []


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}..."
