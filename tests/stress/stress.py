"""A random mixture of everything, for as long as one likes: `make stress`.

Two event loops in two threads, and two plain threads, use half a dozen runners at the same time,
and make more for a moment. Each call must end exactly once, with its value or its error, or as
whoever stopped it may expect. It is played in acts of some seconds, at whose end all is closed and
nothing may be left: no thread, no file descriptor, no interpreter; and over the acts the process
may not grow.

    --seconds   how long; STRESS_SECONDS
    --seed      repeats a seed, as far as threads allow; STRESS_SEED
    --act       only this one, again and again; STRESS_ACT
    --stay      after a failure, for a debugger

Ends with status 1 and a report at the first violation; with 2 if something hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import os
import random
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

SECONDS = 600.0
ACT = 15.0

#: MiB by which the process may be larger in the last third of the acts than in the second one.
GROWTH = 12.0
#: So many acts are not looked at: the first ones touch memory for the first time.
WARM_UP = 4


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    environ = os.environ
    seconds, seed, act = (environ.get(f"STRESS_{name}") for name in ("SECONDS", "SEED", "ACT"))
    parser.add_argument("--seconds", type=float, default=float(seconds or SECONDS))
    parser.add_argument(
        "--seed", type=int, default=int(seed) if seed else random.SystemRandom().randrange(2**32)
    )
    parser.add_argument("--act", type=int, default=int(act) if act else None)
    parser.add_argument("--stay", action="store_true")
    return parser.parse_args()


def main() -> None:
    from disturbing import count_signal
    from report import Run, resident
    from saying import forget, listening
    from stage import CHECKED, Act, Baseline, everything_noticed

    options = arguments()
    faulthandler.enable()
    run = Run(options.seed, options.stay)
    run.say(f"STRESS_SEED={options.seed} for {options.seconds:.0f} s, Python {sys.version}")
    signal.signal(signal.SIGUSR1, count_signal)
    sizes: list[float] = []
    calls: list[int] = []
    baseline = None
    with listening(run), everything_noticed(run):
        run.watch()
        end = time.monotonic() + options.seconds
        number = 0 if options.act is None else options.act
        while (left := end - time.monotonic()) > 1 or not sizes:
            act = run.act = Act(run, number, min(ACT, left))
            act.play()
            run.ended_before += act.ended()
            calls.append(act.ended())
            run.act = None
            totals = act.described()[0]
            del act
            forget()
            # What is made once, at the first use, is no leak: pipes, a thread that waits.
            if baseline is None:
                baseline = Baseline()
            baseline.check(run)
            gc.collect()
            with contextlib.suppress(AttributeError):  # not glibc
                ctypes.CDLL(None).malloc_trim(0)
            sizes.append(resident())
            run.say(f"act {number}: {calls[-1]:,} calls, then {sizes[-1]:.1f} MiB: {totals}")
            if options.act is None:
                number += 1
        elapsed = time.monotonic() - run.start
        run.say(f"{run.ended_before:,} calls in {elapsed:.0f} s, {len(sizes)} acts")
        check_growth(run, sizes, CHECKED or sys.version_info < (3, 14))
    run.say(f"passed, seed {options.seed}")


def check_growth(run: object, sizes: list[float], is_only_told: bool) -> None:
    sizes = sizes[WARM_UP:]
    third = len(sizes) // 3
    if not third:
        return
    parts = (sizes[:third], sizes[third:-third], sizes[-third:])
    thirds = [statistics.median(part) for part in parts]
    text = " -> ".join(f"{size:.1f}" for size in thirds)
    print(f"stress: MiB between acts, medians of the thirds after warm-up: {text}", flush=True)
    if thirds[2] - thirds[1] > GROWTH and not is_only_told:
        run.fail(f"the process has grown by {thirds[2] - thirds[1]:.1f} MiB")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
