"""Does doing something over and over make this process grow? For the programs in this folder."""

import argparse
import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Callable

from helpers.process import eventually

PAGE = os.sysconf("SC_PAGESIZE")
MIB = 2**20


def resident() -> float:
    """MiB of memory of this process, after giving back what is free."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE / MIB


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def arguments(warm_up: int, rounds: int, allowed: float) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--warm-up", type=int, default=warm_up)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--allowed", type=float, default=allowed, help="MiB of growth")
    return parser.parse_args()


def check(one_round: Callable[[], object], *, warm_up: int, rounds: int, allowed: float) -> None:
    """Do `warm_up` rounds, then `rounds` more; exit with a message if the process has grown.

    Allows for growth that happened once, not for growth with every round: if the second half of
    the rounds did not grow, what the first half did was warming up.
    """
    for _ in range(warm_up):
        one_round()
    start, first_descriptors, first_threads = resident(), descriptors(), threads()

    def settled() -> float:
        """What is resident once workers that just end have ended, and what they lent is free."""
        eventually(lambda: threads() <= first_threads)
        eventually(lambda: resident() - start <= allowed)
        return resident()

    for _ in range(rounds // 2):
        one_round()
    middle = settled()
    for _ in range(rounds - rounds // 2):
        one_round()
    end = settled()
    print(f"after warm-up {start:.1f} MiB, half-way {middle:.1f}, at the end {end:.1f}")
    print(f"grown by {end - start:.2f}")
    # A worker that has ended is a thread, and may hold a loop's descriptor, for a moment more.
    if not eventually(lambda: descriptors() <= first_descriptors):
        sys.exit(f"{descriptors() - first_descriptors} file descriptors more than before")
    if not eventually(lambda: threads() <= first_threads):
        sys.exit(f"{threads() - first_threads} threads more than before")
    if min(end - start, 2 * (end - middle)) > allowed:
        sys.exit(f"the process has grown by more than {allowed} MiB")
