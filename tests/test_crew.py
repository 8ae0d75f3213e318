"""What serves calls elsewhere than in a subinterpreter, without a runner (_crew.py)."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from aiointerpreters import RunnerError
from aiointerpreters._crew import Call, Crew, Server
from aiointerpreters._processes import Process, ProcessCall, Processes, Settings
from aiointerpreters._threads import ThreadCall, Threads
from helpers.limits import SOON
from helpers.process import eventually
from workfns import refusing


@pytest.fixture
def threads() -> Iterator[Threads]:
    crew = Threads(2, "test")
    yield crew
    crew.close(True, True)
    crew.join()


def submit(crew: Threads, function: Any, *args: Any) -> None:
    crew.submit(ThreadCall(function, args, {}, lambda _, error: None))


def let_two_idle(crew: Threads) -> None:
    both = threading.Barrier(2)
    for _ in range(2):
        submit(crew, both.wait, SOON)
    assert eventually(lambda: len(crew._changed._waiters) == 2)  # type: ignore[attr-defined]


def test_idle_servers_do_not_wake_each_other(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_two_idle(threads)
    notify, goes_on = threads._changed.notify, threads._goes_on
    woken: list[int] = []
    turns = threading.Semaphore(0)

    def counting(n: int = 1) -> None:
        woken.append(n)
        notify(n)

    def next_turn(server: Any) -> bool:
        turns.release()
        return goes_on(server)

    monkeypatch.setattr(threads._changed, "notify", counting)
    monkeypatch.setattr(threads, "_goes_on", next_turn)
    threads.resize(2)
    for _ in range(2):
        assert turns.acquire(timeout=SOON)
    assert woken == [2]


class Outcomes:
    """What became of calls, as they end."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def put(self, result: Any, error: BaseException | None) -> None:
        self._queue.put((result, error))

    def next(self) -> Any:
        result, error = self._queue.get(timeout=SOON)
        if error is not None:
            raise error
        return result


def ends_soon(crew: Crew) -> bool:
    ended = threading.Event()
    crew.when_ended(ended.set)
    return ended.wait(SOON)


class Scripted(Crew):
    """Servers that do as a test says."""

    def __init__(
        self,
        size: int,
        set_up: Callable[[Server], None],
        serve: Callable[[Call], Any],
        hurry: Callable[[Server], None] = lambda _: None,
        tear_down: Callable[[Server], None] = lambda _: None,
        **options: Any,
    ) -> None:
        super().__init__(size, "test", **options)
        self.script = (set_up, serve, hurry, tear_down)

    def make_server(self, index: int) -> Server:
        return ScriptedServer(self, index)


class ScriptedServer(Server):
    def __init__(self, crew: Scripted, index: int) -> None:
        super().__init__(crew, index)
        self.script = crew.script

    def set_up(self) -> None:
        self.script[0](self)

    def serve(self, call: Call) -> tuple[Any, BaseException | None]:
        return self.script[1](call), None

    def hurry(self) -> None:
        self.script[2](self)

    def tear_down(self) -> None:
        if self.is_ready:
            self.script[3](self)


def test_closing_stops_a_set_up_whose_call_another_server_takes() -> None:
    runs, go_on = threading.Semaphore(0), threading.Event()
    is_set_up, hurried = threading.Event(), threading.Event()

    def set_up(server: Server) -> None:
        if server.index == 1:
            is_set_up.set()
            hurried.wait()
            raise RunnerError("it was hurried")

    def serve(_: Call) -> None:
        runs.release()
        go_on.wait()

    crew = Scripted(2, set_up, serve, lambda _: hurried.set())
    outcomes = Outcomes()
    try:
        crew.submit(Call(0, outcomes.put))
        assert runs.acquire(timeout=SOON)
        crew.submit(Call(0, outcomes.put))
        assert is_set_up.wait(SOON)
        crew.close()
        assert not hurried.is_set()
        go_on.set()
        assert ends_soon(crew)
        assert [outcomes.next(), outcomes.next()] == [None, None]
    finally:
        hurried.set()
        go_on.set()


def test_a_call_fails_where_no_thread_can_take_the_place_of_one_that_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = Outcomes()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def tear_down(_: Server) -> None:
        """It leaves; but there is a call again."""
        crew.submit(Call(0, outcomes.put))
        monkeypatch.setattr(threading.Thread, "start", start)

    def nothing(_: Any) -> None:
        pass

    crew = Scripted(1, nothing, nothing, tear_down=tear_down, idle_timeout=0.0)
    crew.submit(Call(0, outcomes.put))
    assert outcomes.next() is None
    with pytest.raises(RunnerError, match="a thread could not be started: can't start new thread"):
        outcomes.next()
    crew.close()
    assert ends_soon(crew)


class TestAProcessThatDiedWhileItWasIdle:
    """The next call is there already while another process is started."""

    @pytest.fixture
    def outcomes(self) -> Outcomes:
        return Outcomes()

    @pytest.fixture
    def crew(self, outcomes: Outcomes) -> Iterator[Processes]:
        crew = Processes(1, "test", Settings(None, {}, None, 1.0))
        crew.submit(ProcessCall(refusing.pid, (), {}, outcomes.put))
        pid = outcomes.next()
        # That it runs a call is known to its thread for a moment longer.
        assert eventually(lambda: len(crew._changed._waiters) == 1)  # type: ignore[attr-defined]
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        yield crew
        crew.close(True, True)
        crew.join()

    @pytest.fixture
    def before(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Any], None]:
        """Have something done once, before something is called the next time."""

        def have_done(owner: Any, name: str, act: Callable[[], Any]) -> None:
            function = getattr(owner, name)

            def act_and_call(*args: Any, **options: Any) -> Any:
                monkeypatch.setattr(owner, name, function)
                act()
                return function(*args, **options)

            monkeypatch.setattr(owner, name, act_and_call)

        return have_done

    def test_closing_lets_the_call_finish(
        self, crew: Processes, outcomes: Outcomes, before: Any
    ) -> None:
        before(subprocess, "Popen", crew.close)
        crew.submit(ProcessCall(refusing.square, (3,), {}, outcomes.put))
        assert outcomes.next() == 9
        assert ends_soon(crew)

    @pytest.mark.parametrize("step", [(Process, "tear_down"), (subprocess, "Popen")])
    def test_a_call_that_is_abandoned_does_not_run(
        self, crew: Processes, outcomes: Outcomes, before: Any, step: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "made"
        call = ProcessCall(os.mkdir, (str(path),), {}, outcomes.put)
        before(*step, call.abandon)
        crew.submit(call)
        crew.submit(ProcessCall(refusing.square, (3,), {}, outcomes.put))
        assert outcomes.next() == 9
        assert not path.exists()
