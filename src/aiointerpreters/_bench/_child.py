"""One side's process: opens the side, then runs a turn for each line of standard input.

    python -m aiointerpreters._bench._child SIDE WORKERS LOOP

A line names a function of a section, and its arguments, as JSON; what it gives is answered as a
line of JSON. Nothing else gets into that stream, as what the side prints goes to standard error.

The original package's process runs this, too, and there `aiointerpreters` is another package: so
all imports of ours are relative.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

from ._loops import LOOPS
from ._sides import SIDES

#: Seconds that a side has to end its workers.
CLOSING_LIMIT = 10


async def main(side_name: str, workers: int) -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    try:
        opening = SIDES[side_name].open(workers)
        side = await opening.__aenter__()
    except Exception as error:
        answer({"failed": in_a_line(error)})
        raise
    try:
        answer({"samples": {}})
        for line in sys.stdin:
            request = json.loads(line)
            try:
                module = importlib.import_module(f"{__package__}.{request['module']}")
                samples = await getattr(module, request["function"])(side, *request["args"])
            except Exception as error:
                answer({"failed": in_a_line(error)})
                raise
            answer({"samples": samples})
    finally:
        signal.signal(signal.SIGALRM, end_all)
        signal.alarm(CLOSING_LIMIT)
        await opening.__aexit__(None, None, None)


def end_all(*_: object) -> None:
    """End this process and all that it has started; nobody else does if the suite was killed."""
    if os.getpgid(0) == os.getpid():  # it is a session of its own
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def in_a_line(error: Exception) -> str:
    """Say what is wrong, for a cell of a table."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    _, name, count, loop = sys.argv
    with asyncio.Runner(loop_factory=LOOPS[loop]) as loop_runner:
        try:
            loop_runner.run(main(name, int(count)))
        except BaseException:
            traceback.print_exc()
        finally:
            end_all()
