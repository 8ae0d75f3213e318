"""How cheaply values cross: large and small, through calls, queues and Shared, beside the others.

    python benchmarks/values.py                        # all sections, each in a process of its own
    python benchmarks/values.py --only views,queue     # some
    python benchmarks/values.py --quick                # a first impression, in about a minute

views    a memoryview of 100 MB as argument and as result, beside a call with None
bytes    100 MB of bytes to a worker and back, beside plain copies; and the loop's longest stall
small    dicts, lists and strings, beside pickle.dumps and loads
queue    items from a worker to the event loop, beside concurrent.interpreters.Queue
shared   a dict of 100,000 entries that every call needs, beside Shared

All sides are started before the first measure and take turns within one run; what is shown are
medians, and the targets that they meet or miss. The garbage collector rests while one is measured.
"""

import argparse
import asyncio
import subprocess
import sys
from importlib import import_module

from _common import machine, show, watching_others

SECTIONS = ("views", "bytes", "small", "queue", "shared")


def sections(names: str) -> list[str]:
    """Read the value of --only."""
    chosen = names.split(",")
    for name in chosen:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(SECTIONS)}")
    return chosen


def main() -> None:
    """Run one section here, or several, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=sections, metavar="SECTION,…", default=list(SECTIONS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="default: 9; with --quick: 3")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter turns")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 9)
    seconds = 0.1 if options.quick else 0.5

    if len(options.only) > 1:
        # A section leaves nothing behind for the next: neither memory nor threads.
        for name in options.only:
            command = [sys.executable, __file__, "--only", name, "--workers", str(options.workers)]
            command += ["--rounds", str(rounds), *(["--quick"] if options.quick else [])]
            subprocess.run(command, check=True)
        return
    show(f"\n{machine()}, {options.workers} workers, {rounds} rounds")
    with watching_others():
        section = import_module(f"_values_{options.only[0]}")
        asyncio.run(section.measure(options.workers, rounds, seconds))


# Processes and interpreters load this file as well, without this part.
if __name__ == "__main__":
    main()
