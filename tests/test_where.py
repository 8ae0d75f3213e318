"""Where calls run, and how what they run in ends with its runner."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import Runner
from helpers.gate import Gate
from helpers.process import children, eventually
from helpers.programs import Program
from workfns import refusing, values, waiting


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


class TestALoopThatEndsBeforeItsRunner:
    """Work is left in a worker when the loop is closed."""

    def test_leaves_no_processes_after_close(self, gate: Gate) -> None:
        async def main() -> None:
            with Runner(workers=2, unsupported="process").start() as runner:
                assert await runner.run(refusing.square, 3) == 9
                assert await runner.run(waiting.leave_mark, gate.fds[0])
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached(2)

        before = children()
        asyncio.run(main())
        assert children() - before
        gate.open()
        assert eventually(lambda: not children() - before)

    def test_leaves_no_processes_after_an_aclose_that_was_cancelled(self, gate: Gate) -> None:
        async def main() -> None:
            runner = Runner(workers=2, unsupported="process").start()
            assert await runner.run(refusing.square, 3) == 9
            assert await runner.run(waiting.leave_mark, gate.fds[0])
            runner.submit(waiting.wait_at, *gate.fds)
            await gate.reached(2)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await runner.aclose()

        before = children()
        asyncio.run(main())
        assert children() - before
        gate.open()
        assert eventually(lambda: not children() - before)

    def test_leaves_nothing_that_listens_to_its_log(self, program: Program) -> None:
        program(
            """
            import asyncio, threading
            from aiointerpreters import Runner
            from helpers.gate import Gate
            from helpers.process import eventually
            from workfns import waiting

            gate = Gate()

            async def main():
                with Runner(workers=1).start() as runner:
                    runner.submit(waiting.wait_at, *gate.fds)
                    await gate.reached()

            if __name__ == "__main__":
                asyncio.run(main())
                assert threading.active_count() > 1
                gate.open()
                assert eventually(lambda: threading.active_count() == 1), threading.enumerate()
            """
        ).assert_fine()
