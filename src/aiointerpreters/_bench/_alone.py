"""A process that does tasks and nothing else: what the machine's cores can do together.

    python -m aiointerpreters._bench._alone

A line of standard input names a kind of task, an amount of work, and how many. It answers when it
has prepared them; after the next line it does them, and answers again.
"""

import json
import subprocess
import sys
import time

from ._tasks import KINDS


class Alone:
    """Such processes, from the side of who starts them. They end with it."""

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-m", __name__]
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            for _ in range(count)
        ]

    def take(self, how_many: int, kind: str, amount: int, tasks: int) -> float:
        """Have the first of them do so many tasks each, at the same time: how many seconds."""
        processes = self._processes[:how_many]
        _have(processes, json.dumps([kind, amount, tasks]))
        began = time.perf_counter()
        _have(processes, "go")
        return time.perf_counter() - began


def _have(processes: list[subprocess.Popen[bytes]], line: str) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n".encode())
    for process in processes:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("a process that does tasks alone has died")


def main() -> None:
    """Be such a process."""
    for line in sys.stdin:
        kind, amount, tasks = json.loads(line)
        function, arguments = KINDS[kind].function, KINDS[kind].arguments(amount)
        print("prepared", flush=True)
        sys.stdin.readline()
        for _ in range(tasks):
            function(*arguments)
        print("done", flush=True)


if __name__ == "__main__":
    main()
