"""What goes wrong with processes, and what goes on all the same."""

import asyncio
import contextlib
import gc
import itertools
import math
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import BrokenRunner, ProcessDied, Runner, RunnerError, _wire
from helpers.limits import SOON
from helpers.process import children, until
from helpers.programs import Program
from workfns import logs, refusing, values


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No child, no shared memory, no descriptor."""
    before, others = open_files(), children()
    yield
    gc.collect()
    assert children() <= others  # multiprocessing keeps one, if any test has used that
    assert "memfd:aiointerpreters" not in Path("/proc/self/maps").read_text()
    assert not [name for name in open_files() - before if "memfd" in name]


def open_files() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def run(main: Callable[[Runner], Any], **options: Any) -> Any:
    async def with_runner() -> Any:
        async with Runner(**{"workers": 2, "unsupported": "process"} | options) as runner:
            return await main(runner)

    return asyncio.run(with_runner())


async def read(fifo: str) -> int:
    """What the call that runs says first: the process's id."""
    return int(await asyncio.to_thread(Path(fifo).read_text))


def has_ended(pid: int) -> bool:
    """Whether a process has ended, or does so soon; it may not have been waited for."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 5)[0])
    finally:
        os.close(descriptor)


@pytest.fixture
def always_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next message comes before a wait for it has timed out, however busy the machine is."""
    receive = _wire.Channel.receive
    monkeypatch.setattr(_wire.Channel, "receive", lambda channel, timeout=None: receive(channel))


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Those that there are can be used on."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@contextlib.contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """So that the next ones have greater numbers."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[1] != resource.RLIM_INFINITY and limit[1] < 2 * count:
        pytest.skip("the system allows no more descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count, limit[1]))
    descriptors: list[int] = []
    try:
        for _ in range(count):
            descriptors.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


class TestAProcessThatDies:
    @pytest.mark.parametrize(
        ("call", "status", "text"),
        [
            ((refusing.leave, 7), 7, "it exited with status 7"),
            ((refusing.leave, 0), 0, "it exited with status 0"),
            ((refusing.kill_myself,), -signal.SIGKILL, "it was ended by SIGKILL"),
        ],
    )
    def test_fails_its_own_call_only(self, call: Any, status: int, text: str, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            other = runner.submit(refusing.wait_for, fifo)
            with pytest.raises(ProcessDied, match=text) as caught:
                await runner.run(*call)
            assert caught.value.exit_code == status
            assert await runner.run(refusing.square, 3) == 9
            await asyncio.to_thread(Path(fifo).write_text, "go")
            assert await other == "go"

        run(main)

    def test_by_kill_from_outside(self, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            call = runner.submit(refusing.say_and_hang, fifo)
            os.kill(await read(fifo), signal.SIGKILL)
            with pytest.raises(ProcessDied, match="say_and_hang has died"):
                await call
            assert await runner.run(refusing.square, 3) == 9

        run(main, workers=1)

    def test_while_it_is_idle_harms_nothing(self) -> None:
        async def main(runner: Runner) -> None:
            pid = await runner.run(refusing.pid)
            os.kill(pid, signal.SIGKILL)
            assert has_ended(pid)
            assert await runner.run(refusing.pid) != pid

        run(main, workers=1)

    def test_while_a_stream_runs(self) -> None:
        async def main(runner: Runner) -> None:
            pid = await runner.run(refusing.pid)
            stream = runner.stream(refusing.count_for_ever, "/dev/null")
            assert await anext(stream) == 0
            with pytest.raises(ProcessDied):
                os.kill(pid, signal.SIGKILL)
                async for _ in stream:
                    pass

        run(main, workers=1)


class TestTroubleInTheProgram:
    def test_no_call_gets_the_outcome_of_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where nobody knows how much of it was received."""
        receive = _wire.Channel.receive
        failures = [RuntimeError("something that nobody has thought of")]

        def fail_once(channel: _wire.Channel, timeout: float | None = None) -> Any:
            if failures:
                raise failures.pop()
            return receive(channel, timeout)

        async def main(runner: Runner) -> None:
            await runner.run(refusing.pid)
            monkeypatch.setattr(_wire.Channel, "receive", fail_once)
            with pytest.raises(RuntimeError, match="nobody has thought of"):
                await runner.run(refusing.echo, "first")
            assert await runner.run(refusing.echo, "second") == "second"

        run(main, workers=1)

    def test_no_descriptor_for_a_large_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_wire, "SHARED_FROM", 1000)

        async def main(runner: Runner) -> None:
            view = runner.options(where="process")
            await view.run(refusing.pid)
            with no_more_descriptors():
                with pytest.raises(OSError, match="Too many open files"):
                    await view.run(bytes, 10_000)
            assert await view.run(bytes, 10_000) == bytes(10_000)

        run(main, workers=1)

    def test_no_descriptors_for_a_process(self) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where="process")
            with no_more_descriptors():
                calls = [view.submit(refusing.square, n) for n in range(3)]
                for call in calls:
                    with pytest.raises(RunnerError, match="Too many open files") as caught:
                        await call
                    assert not isinstance(caught.value, BrokenRunner)
            assert await view.run(refusing.square, 3) == 9

        run(main)

    def test_no_descriptors_for_another_process(self, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where="process")
            first = view.submit(refusing.wait_for, fifo)
            with await asyncio.to_thread(open, fifo, "w", encoding="ascii") as writer:
                with no_more_descriptors():
                    second = view.submit(refusing.square, 3)
                    assert runner.stats().queued == 1
                    assert await until(lambda: runner.stats().processes == 1)
                writer.write("go")
            assert [await first, await second] == ["go", 9]

        run(main)

    def test_descriptors_with_great_numbers(self) -> None:
        with many_descriptors(1100):
            expected = list(range(300))

            async def main(runner: Runner) -> None:
                view = runner.options(where="process")
                assert [n async for n in view.stream(refusing.count, 300)] == expected

            run(main, workers=1)


class TestCancelling:
    @pytest.mark.parametrize("function", [refusing.say_and_hang, refusing.say_and_spin])
    def test_a_running_call_kills_its_process(self, function: Any, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            call = asyncio.ensure_future(runner.run(function, fifo))
            pid = await read(fifo)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await runner.run(refusing.pid) != pid
            await runner.drain()
            assert has_ended(pid)
            assert runner.stats().pending == 0

        run(main, workers=1)

    def test_others_go_on(self, fifo: str, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "other")

        async def main(runner: Runner) -> None:
            other = runner.submit(refusing.wait_for, str(tmp_path / "other"))
            call = runner.submit(refusing.say_and_hang, fifo)
            await read(fifo)
            assert call.cancel()
            await asyncio.to_thread((tmp_path / "other").write_text, "go")
            assert await other == "go"

        run(main)

    def test_a_queued_call_is_taken_back(self, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            await runner.run(refusing.pid)
            first = runner.submit(refusing.wait_for, fifo)
            queued = runner.submit(refusing.pid)
            assert runner.stats().queued >= 1
            assert queued.cancel()
            await asyncio.to_thread(Path(fifo).write_text, "go")
            assert await first == "go"
            await runner.drain()
            assert runner.stats().queued == 0

        run(main, workers=1)

    def test_a_call_that_is_not_decided_yet(self) -> None:
        async def main(runner: Runner) -> None:
            for call in (runner.submit(refusing.pid), asyncio.ensure_future(runner.run(max, 1, 2))):
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            assert await runner.run(refusing.square, 3) == 9

        run(main, workers=1)

    def test_timeout(self, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            await runner.run(refusing.pid)
            reader = asyncio.ensure_future(read(fifo))
            with pytest.raises(TimeoutError, match=r"after it had run for 0\.3 seconds"):
                await runner.options(timeout=0.3).run(refusing.say_and_hang, fifo)
            pid = await reader
            assert await runner.run(refusing.pid) != pid
            assert has_ended(pid)

        run(main, workers=1)

    def test_timeout_while_it_logs(self, always_in_time: None) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where="process", timeout=0.3)
            async with asyncio.timeout(SOON):
                with pytest.raises(TimeoutError, match=r"after it had run for 0\.3 seconds"):
                    await view.run(logs.log_for_ever, "app")

        run(main, workers=1)

    def test_timeout_of_a_stream_of_which_all_is_taken(self, always_in_time: None) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where="process", timeout=0.3)
            async with asyncio.timeout(SOON):
                with pytest.raises(TimeoutError, match=r"after it had run for 0\.3 seconds"):
                    async for _ in view.stream(itertools.count):
                        pass

        run(main, workers=1)

    def test_timeout_of_a_stream_of_which_nothing_is_taken(self) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where="process", timeout=0.3, buffer=1)
            stream = view.stream(itertools.count)
            assert await anext(stream) == 0
            assert await until(lambda: runner.stats().busy_processes == 0)
            with pytest.raises(TimeoutError, match=r"after it had run for 0\.3 seconds"):
                async for _ in stream:
                    pass

        run(main, workers=1)

    @pytest.mark.parametrize("timeout", [3e6, 1e10, 1e300])
    def test_a_timeout_may_be_longer_than_the_system_can_wait(self, timeout: float) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where="process", timeout=timeout)
            assert await view.run(refusing.square, 3) == 9
            assert [n async for n in view.stream(refusing.count, 300)] == list(range(300))
            assert await view.run(refusing.square, 4) == 16

        run(main, workers=1)

    @pytest.mark.parametrize("known", [True, False])
    def test_deadline(self, fifo: str, known: bool) -> None:
        async def main(runner: Runner) -> None:
            if known:
                await runner.run(refusing.pid)
            call = runner.submit(refusing.wait_for, fifo)
            with pytest.raises(TimeoutError, match=r"not done 0\.3 seconds after it was made"):
                await runner.options(deadline=0.3).run(refusing.pid)
            await asyncio.to_thread(Path(fifo).write_text, "go")
            assert await call == "go"

        run(main, workers=1)

    def test_a_thread_is_not_stopped_but_its_caller_released(self, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            view = runner.options(where="thread")
            with pytest.raises(TimeoutError, match="a thread can't be stopped"):
                await view.options(timeout=0.1).run(refusing.wait_for, fifo)
            await asyncio.to_thread(Path(fifo).write_text, "go")

        run(main, workers=1)


class TestTheEnd:
    def test_closing_lets_accepted_calls_finish(self) -> None:
        async def main() -> None:
            async with Runner(workers=1, unsupported="process") as runner:
                calls = [runner.submit(refusing.square, n) for n in range(5)]
                calls.append(runner.submit(values.square, 7))
            assert [call.result() for call in calls] == [0, 1, 4, 9, 16, 49]

        asyncio.run(main())

    def test_an_exception_stops_running_and_queued_calls(self, fifo: str) -> None:
        async def main() -> None:
            with pytest.raises(ZeroDivisionError):
                async with Runner(workers=1, unsupported="process") as runner:
                    await runner.run(refusing.pid)
                    calls = [runner.submit(refusing.say_and_hang, fifo), runner.submit(max, 1, 2)]
                    calls.append(runner.submit(refusing.pid))
                    pid = await read(fifo)
                    raise ZeroDivisionError
            assert has_ended(pid)
            await asyncio.wait(calls)
            assert calls[0].cancelled()
            assert calls[2].cancelled()

        asyncio.run(main())

    @pytest.mark.parametrize("where", ["process", "thread"])
    def test_an_exception_stops_a_stream_that_nobody_reads(self, where: Any) -> None:
        async def main() -> None:
            with pytest.raises(ZeroDivisionError):
                async with Runner(workers=1) as runner:
                    view = runner.options(where=where, buffer=1)
                    stream = view.stream(refusing.count_for_ever, "/dev/null")
                    assert [await anext(stream), await anext(stream)] == [0, 1]
                    raise ZeroDivisionError
            with pytest.raises(asyncio.CancelledError):
                while True:
                    await anext(stream)

        asyncio.run(main())

    def test_close_without_a_loop_waits(self) -> None:
        runner = Runner(workers=1, unsupported="process").start()

        async def main() -> int:
            return await runner.run(refusing.pid)

        pid = asyncio.run(main())
        runner.close()
        assert has_ended(pid)

    def test_close_in_a_loop_ends_in_the_background(self) -> None:
        async def main() -> None:
            runner = Runner(workers=1, unsupported="process").start()
            call = runner.submit(refusing.square, 5)
            runner.close()
            assert await call == 25
            await runner.aclose()

        asyncio.run(main())

    def test_close_that_cancels_what_is_pending(self, fifo: str) -> None:
        async def main() -> None:
            runner = Runner(workers=1, unsupported="process").start()
            await runner.run(refusing.pid)
            first = runner.submit(refusing.wait_for, fifo)
            queued = [runner.submit(refusing.pid) for _ in range(3)]
            with await asyncio.to_thread(open, fifo, "w", encoding="ascii") as writer:
                runner.close(cancel_pending=True)  # while the first one reads from there
                writer.write("go")
            await runner.aclose()
            await asyncio.wait([first, *queued])
            assert first.result() == "go"
            assert queued[-1].cancelled()

        asyncio.run(main())

    def test_closing_with_a_grace_period_without_end(self, tmp_path: Path) -> None:
        path = tmp_path / "closed"

        async def main(runner: Runner) -> None:
            stream = runner.options(where="process").stream(refusing.count_for_ever, str(path))
            async for item in stream:
                if item == 300:
                    break
            await stream.aclose()
            assert path.read_text() == "closed"

        run(main, workers=1, grace_period=math.inf)

    def test_an_idle_timeout_without_end(self) -> None:
        async def main(runner: Runner) -> None:
            pid = await runner.run(refusing.pid)
            for _ in range(3):
                assert await runner.run(refusing.pid) == pid

        run(main, workers=2, min_workers=0, idle_timeout=math.inf)

    def test_a_thread_of_a_process_that_logs_on_does_not_keep_it(self, program: Program) -> None:
        program(
            """
            import asyncio
            from aiointerpreters import Runner, _wire
            from workfns import logs

            receive = _wire.Channel.receive
            # The next message comes before a wait for it has timed out, however busy the machine.
            _wire.Channel.receive = lambda channel, timeout=None: receive(channel)

            async def main():
                async with Runner(workers=1, grace_period=0.1) as runner:
                    await runner.options(where="process").run(logs.leave_a_thread_that_logs, "app")

            if __name__ == "__main__":
                import logging
                logging.basicConfig(handlers=[logging.NullHandler()])
                asyncio.run(main())
            """
        ).assert_ended(0)

    def test_a_runner_that_is_dropped_stops(self, fifo: str) -> None:
        async def main() -> int:
            runner = Runner(workers=1, unsupported="process").start()
            call = runner.submit(refusing.say_and_hang, fifo)
            pid = await read(fifo)
            with pytest.warns(ResourceWarning, match="unclosed"):
                del runner
            with pytest.raises(asyncio.CancelledError):
                await call
            return pid

        pid = asyncio.run(main())
        for thread in threading.enumerate():
            if "process" in thread.name:
                thread.join(10)
        assert has_ended(pid)

    def test_a_loop_may_end_before_its_calls(self, fifo: str) -> None:
        with Runner(workers=1, unsupported="process").start() as runner:

            async def begin() -> None:
                await runner.run(refusing.pid)
                runner.submit(refusing.wait_for, fifo)

            async def more() -> int:
                return await runner.run(refusing.square, 4)

            asyncio.run(begin())
            Path(fifo).write_text("go")
            assert asyncio.run(more()) == 16

    def test_drain_waits_for_processes(self, fifo: str) -> None:
        async def main(runner: Runner) -> None:
            call = runner.submit(refusing.wait_for, fifo)
            draining = asyncio.ensure_future(runner.drain())
            await asyncio.to_thread(Path(fifo).write_text, "go")
            await draining
            assert call.done()

        run(main)


class TestPrograms:
    def test_processes_end_with_a_program_that_is_killed(self, program: Program) -> None:
        """By the kernel, whatever runs in them; the pipe is closed when the last one has gone."""
        for portable in ("", "1"):
            ended = program(
                """
                import asyncio, os, signal, sys
                from aiointerpreters import Runner
                from workfns import refusing

                async def main():
                    runner = Runner(workers=2, unsupported="process").start()
                    await runner.run(refusing.pid)
                    os.mkfifo(sys.argv[1])
                    call = runner.submit(refusing.say_and_spin, sys.argv[1])
                    with open(sys.argv[1]) as file:
                        print(file.read())
                    sys.stdout.flush()
                    os.kill(os.getpid(), signal.SIGKILL)

                if __name__ == "__main__":
                    asyncio.run(main())
                """,
                str(program.folder / f"fifo{portable}"),
                env={"AIOINTERPRETERS_PORTABLE": portable},
            )
            # Whoever holds its standard output would have kept us waiting here.
            assert ended.status == -signal.SIGKILL
            assert has_ended(int(ended.out))

    def test_a_program_that_does_not_close_ends_all_the_same(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, os, sys
            from aiointerpreters import Runner
            from workfns import refusing

            runner = Runner(workers=1, unsupported="process")

            async def main():
                runner.start()
                os.mkfifo(sys.argv[1])
                call = runner.submit(refusing.say_and_hang, sys.argv[1])
                pid = await asyncio.to_thread(lambda: open(sys.argv[1]).read())
                print(pid, flush=True)

            if __name__ == "__main__":
                asyncio.run(main())
            """,
            str(program.folder / "fifo"),
        )
        ended.assert_ended(0)
        assert has_ended(int(ended.out))

    def test_functions_of_the_main_script(self, program: Program) -> None:
        program(
            """
            import asyncio, faulthandler, os
            from aiointerpreters import Runner

            print("loaded", __name__)

            class Thing:
                pass

            def make(thing):
                assert type(thing) is Thing
                return Thing(), os.getpid()

            async def main():
                async with Runner(workers=1, unsupported="process") as runner:
                    thing, pid = await runner.run(make, Thing())
                    assert type(thing) is Thing
                    assert pid != os.getpid()

            if __name__ == "__main__":
                asyncio.run(main())
            """
        ).assert_fine()

    def test_ctrl_c_ends_it(self, program: Program) -> None:
        ended = program(
            """
            import asyncio, os, sys
            from aiointerpreters import Runner
            from workfns import refusing

            async def main():
                async with Runner(workers=1, unsupported="process") as runner:
                    os.mkfifo(sys.argv[1])
                    call = runner.submit(refusing.say_and_hang, sys.argv[1])
                    await asyncio.to_thread(lambda: open(sys.argv[1]).read())
                    print("ready", flush=True)
                    await call

            if __name__ == "__main__":
                asyncio.run(main())
            """,
            str(program.folder / "fifo"),
            interrupt=True,
        )
        assert ended.status in (1, -signal.SIGINT, 130), ended.err
        assert "KeyboardInterrupt" in ended.err

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    def test_a_forked_child_has_none_and_keeps_none(self, program: Program) -> None:
        program(
            """
            import asyncio, os, warnings
            from aiointerpreters import Runner, RunnerError
            from workfns import refusing
            warnings.simplefilter("ignore")

            async def ask(runner):
                return await runner.run(refusing.pid)

            if __name__ == "__main__":
                runner = Runner(workers=1, unsupported="process").start()
                asyncio.run(ask(runner))
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        asyncio.run(ask(runner))
                    except RunnerError as error:
                        status = 0 if "forked" in str(error) else 2
                    finally:
                        os._exit(status)
                assert os.waitpid(child, 0)[1] == 0
                asyncio.run(ask(runner))
                runner.close()
            """
        ).assert_fine()


def test_nothing_can_be_started_from_within_a_worker() -> None:
    async def main(runner: Runner) -> None:
        with pytest.raises(RunnerError, match="from within a worker"):
            await runner.run(values.run_in_process, 3)

    run(main)
