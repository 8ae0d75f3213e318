"""What serves calls elsewhere than in a subinterpreter, without a runner (_crew.py)."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aiointerpreters._threads import ThreadCall, Threads
from helpers.limits import SOON
from helpers.process import eventually


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
