"""Where calls run, and how what they run in ends with its runner."""

import asyncio
import contextlib
import gc
import importlib
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError, _wire
from aiointerpreters._where import Elsewhere
from helpers.gate import Gate
from helpers.limits import SOON
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


def waiting_module(name: str, fifo: str, folder: Path, then: str = "") -> Any:
    """Make a module whose import waits in a worker until someone has written to a FIFO."""
    (folder / f"{name}.py").write_text(
        f"import os\n"
        f"from aiointerpreters import current_worker\n"
        f"if current_worker() is not None and os.getpid() == {os.getpid()}:\n"
        f"    with open({fifo!r}) as fifo:\n"
        f"        fifo.read()\n"
        f"{then}\n"
        f"class Value: pass\n"
        f"def pid():\n"
        f"    return os.getpid()\n"
    )
    return importlib.import_module(name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of modules that can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def send(runner: Runner, how: str, fn: Any, *args: Any) -> asyncio.Future[Any]:
    if how == "run":
        return asyncio.ensure_future(runner.run(fn, *args))
    return runner.submit(fn, *args)


class TestAClosedRunner:
    @pytest.mark.parametrize("where", ["process", "thread"])
    def test_has_no_other_place_to_go_to_either(self, where: Any) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                pass
            with pytest.raises(RunnerError, match="the runner is closed"):
                await runner.options(where=where).run(values.square, 3)

        before = children()
        asyncio.run(main())
        assert children() <= before

    @pytest.mark.parametrize("how", ["run", "submit"])
    @pytest.mark.parametrize("args", [([1],), (range(1),)])
    def test_refuses_calls_that_might_be_moved_while_it_ends(
        self, how: str, args: Any, gate: Gate
    ) -> None:
        async def main() -> None:
            runner = Runner(workers=1, unsupported="process").start()
            assert await runner.run(len, b"known") == 5
            last = runner.submit(waiting.wait_at, *gate.fds)
            await gate.reached()
            runner.close()
            with pytest.raises(RunnerError, match="the runner is closed"):
                await send(runner, how, len, *args)
            assert runner.stats().processes == 0
            gate.open()
            await last
            await runner.aclose()

        asyncio.run(main())

    @pytest.mark.parametrize("how", ["run", "submit"])
    @pytest.mark.parametrize("refuses", [True, False])
    def test_cancels_calls_whose_place_is_not_known_yet(
        self, how: str, refuses: bool, fifo: str, folder: Path
    ) -> None:
        name = f"cancelled_{how}_{refuses}"
        module = waiting_module(name, fifo, folder, "import faulthandler" if refuses else "")

        async def main() -> None:
            runner = Runner(workers=1, unsupported="process").start()
            call = send(runner, how, module.pid)
            with await asyncio.to_thread(open, fifo, "w", encoding="ascii"):
                runner.close(cancel_pending=True)  # while the worker reads from there
            await asyncio.wait([call], timeout=SOON)
            assert call.cancelled()
            await runner.aclose()
            assert runner.stats().done <= 1  # the probe

        asyncio.run(main())

    @pytest.mark.parametrize("how", ["run", "submit"])
    def test_cancels_calls_that_come_back(self, how: str, fifo: str, folder: Path) -> None:
        name = f"came_back_{how}"
        module = waiting_module(name, fifo, folder, "import faulthandler")

        async def main() -> None:
            runner = Runner(workers=1, unsupported="process").start()
            assert await runner.run(values.echo, 1) == 1
            call = send(runner, how, values.echo, module.Value())
            with await asyncio.to_thread(open, fifo, "w", encoding="ascii"):
                runner.close(cancel_pending=True)
            await asyncio.wait([call], timeout=SOON)
            assert call.cancelled()
            await runner.aclose()

        asyncio.run(main())

    @pytest.mark.parametrize("how", ["run", "submit"])
    def test_keeps_a_call_that_is_decided_while_it_closes(
        self, how: str, fifo: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The loop is another thread's, and comes to it in the midst of close()."""
        module = waiting_module(f"kept_{how}", fifo, folder)
        runner = Runner(workers=1, unsupported="process").start()
        writers: Queue[Any] = Queue()

        async def main() -> Any:
            call = send(runner, how, module.pid)
            writers.put(await asyncio.to_thread(open, fifo, "w", encoding="ascii"))
            return await call

        def close_in_steps(self: Elsewhere, *args: bool) -> None:
            writer.close()
            wait([outcome], SOON)
            close(self, *args)

        close = Elsewhere.close
        with ThreadPoolExecutor(1) as thread:
            outcome = thread.submit(asyncio.run, main())
            writer = writers.get(timeout=SOON)
            monkeypatch.setattr(Elsewhere, "close", close_in_steps)
            runner.close()
            assert outcome.result(SOON) == os.getpid()

    def test_a_forked_child_goes_nowhere_else(self, program: Program) -> None:
        program(
            """
            import asyncio, os, warnings
            from aiointerpreters import Runner, RunnerError, _wire
            from workfns import values
            warnings.simplefilter("ignore")

            async def ask(runner, where):
                return await runner.options(where=where).run(values.square, 3)

            if __name__ == "__main__":
                runner = Runner(workers=1).start()
                child = os.fork()
                if child == 0:
                    status = 0
                    for where in ("process", "thread"):
                        try:
                            asyncio.run(ask(runner, where))
                        except RunnerError as error:
                            status |= "forked" not in str(error)
                        else:
                            status = 2
                    os._exit(status)
                assert os.waitpid(child, 0)[1] == 0
                runner.close()
            """
        ).assert_fine()


class TestWithoutALoop:
    @pytest.mark.parametrize("where", [None, "process", "thread"])
    def test_submit_says_so_as_ever(self, where: Any) -> None:
        with Runner(workers=1, unsupported="process").start() as runner:
            with pytest.raises(RunnerError, match="no event loop is running"):
                runner.options(where=where).submit(values.square, 3)
            assert runner.stats().pending == 0
        with pytest.raises(RunnerError, match="the runner is closed"):
            runner.options(where=where).submit(values.square, 3)


@pytest.mark.parametrize("how", ["run", "submit"])
def test_a_loop_is_not_kept_by_what_is_not_decided_in_it(how: str, gate: Gate) -> None:
    async def main(runner: Runner) -> weakref.ref[asyncio.AbstractEventLoop]:
        runner.options(where="interpreter").submit(waiting.wait_at, *gate.fds)
        await gate.reached()
        call = send(runner, how, values.square, 3)  # which waits behind that to be decided
        await asyncio.wait([call], timeout=0)
        return weakref.ref(asyncio.get_running_loop())

    async def wait(runner: Runner) -> None:
        await asyncio.wait([runner.submit(values.square, 4)], timeout=0)

    with Runner(workers=1, unsupported="process").start() as runner:
        loop = asyncio.run(main(runner))
        asyncio.run(wait(runner))  # for which the pool lets go of loops that are closed
        gc.collect()
        assert loop() is None
        gate.open()


def test_a_result_for_which_there_is_no_memory_fails_its_own_call() -> None:
    async def main() -> None:
        async with Runner(workers=1) as runner:
            view = runner.options(where="process")
            process = await view.run(refusing.limit_files, _wire.SHARED_FROM // 2)
            with pytest.raises(OSError, match="File too large"):
                await view.run(bytes, _wire.SHARED_FROM)
            assert await view.run(refusing.pid) == process

    asyncio.run(main())
