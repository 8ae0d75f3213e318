"""Whether memory, file descriptors and threads stay what they are, over many runners and tasks.

    python benchmarks/memory.py              # all three parts, each in a process of its own
    python benchmarks/memory.py runners      # 200 runners of two workers opened and closed
    python benchmarks/memory.py tasks        # a million tasks through one runner
    python benchmarks/memory.py control      # 400 interpreters made and destroyed by CPython alone

The third part doesn't use this package. It shows what of the first is CPython's: 3.13 keeps the
memory of interpreters that have ended. They import there what a worker imports of the standard
library; and the first part calls a built-in function, for which a worker imports nothing more.
"""

import argparse
import asyncio
import gc
import subprocess
import sys

from _common import machine, memory, noop, open_files, show, threads

ROW = "{:>34}{:>14}{:>18}{:>10}".format


def header(what: str) -> None:
    """Print what is measured, and the columns' names."""
    show(f"\n{what}\n{ROW('', 'memory', 'descriptors', 'threads')}")


def state(when: str) -> float:
    """Print what this process holds now, and return its memory."""
    gc.collect()
    now = memory()
    show(ROW(when, f"{now:.1f} MiB", open_files(), threads()))
    return now


def grown(since: float, now: float, what: str) -> None:
    """Print the difference."""
    show(f"{now - since:+.1f} MiB from warm-up to the end, {what}")


async def runners(count: int = 200, workers: int = 2) -> None:
    """Open and close one runner after another, each with a call in each worker."""
    from aiointerpreters import Runner

    async def one_runner() -> None:
        async with Runner(workers=workers) as runner:
            await asyncio.gather(*(runner.run(abs, number) for number in range(2 * workers)))

    header(f"{count} runners of {workers} workers, opened and closed")
    for _ in range(count // 10):
        await one_runner()
    warm = state(f"after {count // 10} to warm up")
    for number in range(1, count + 1):
        await one_runner()
        if number % (count // 4) == 0:
            now = state(f"after {number} more")
    grown(warm, now, f"{(now - warm) / count / workers:+.3f} MiB for each worker")


async def tasks(count: int = 1_000_000, workers: int = 2, at_once: int = 5_000) -> None:
    """Send tasks through one runner, some thousands at a time."""
    from aiointerpreters import Runner

    async with Runner(workers=workers) as runner:

        async def send(total: int) -> None:
            for start in range(0, total, at_once):
                await asyncio.gather(*(runner.run(noop, start + n) for n in range(at_once)))

        header(f"{count:,} tasks through a runner of {workers} workers, {at_once:,} at once")
        await send(count // 10)
        warm = state(f"after {count // 10:,} to warm up")
        for part in range(1, 5):
            await send(count // 4)
            now = state(f"after {part * count // 4:,} more")
        grown(warm, now, f"{(now - warm) * 2**20 / count:+.2f} bytes for each task")


async def control(count: int = 400) -> None:
    """Make and destroy interpreters with CPython's own module; nothing of ours is loaded."""
    import _interpreters

    def one_interpreter() -> None:
        interpreter = _interpreters.create("isolated", reqrefs=False)
        _interpreters.exec(interpreter, "import importlib")
        _interpreters.destroy(interpreter)

    header(f"{count} interpreters made and destroyed by CPython's own _interpreters")
    for _ in range(count // 10):
        one_interpreter()
    warm = state(f"after {count // 10} to warm up")
    for number in range(1, count + 1):
        one_interpreter()
        if number % (count // 4) == 0:
            now = state(f"after {number} more")
    assert "aiointerpreters" not in sys.modules
    grown(warm, now, f"{(now - warm) / count:+.3f} MiB for each interpreter")


PARTS = {"runners": runners, "tasks": tasks, "control": control}


def main() -> None:
    """Run one part here, or all, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS)
    part = parser.parse_args().part
    if part:
        asyncio.run(PARTS[part]())
    else:
        show(machine())
        for name in PARTS:
            subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
