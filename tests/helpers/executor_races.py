"""Threads submit, cancel, interrupt, wait and shut down at random: each future is settled once.

    python -m helpers.executor_races [--seconds N] [--seed N]

A thread in `result()` and the executor's own deliver results side by side, while others cancel. For
each future: it is done in the end, its callback has run once, it has the result, or the error, that
belongs to its call, or was cancelled, and a `cancel()` that said so has come true.
"""

import argparse
import concurrent.futures
import contextlib
import random
import threading
import time
from typing import Any

from aiointerpreters import CallFuture, Executor
from helpers.process import eventually
from workfns import values


class Count:
    """How many callbacks have been called."""

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, _: Any) -> None:
        with self._lock:
            self.calls += 1


def pause(seconds: float) -> float:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def check(number: int, kind: str, future: CallFuture[Any], was_cancelled: bool) -> None:
    assert future.done(), (number, kind, future)
    if was_cancelled:
        assert future.cancelled(), (number, kind, future)
    if future.cancelled():
        return
    error = future.exception(0)
    match kind:
        case "fails":
            assert isinstance(error, ZeroDivisionError), error
        case "bytes":
            assert future.result(0) == bytes(number * 1000), number
        case _:
            assert error is None, (number, error)
            assert future.result(0) == number * number, number


#: What callbacks got, whose exceptions would only be logged.
wrong: list[Any] = []


def call_and_wait(executor: Executor) -> None:
    """As a callback: it may wait while another thread leads, stops to, or cancels."""
    with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):  # it is shut down
        result = executor.submit(values.square, 7).result()
        if result != 49:
            wrong.append(result)


def act(executor: Executor, seed: int, done: Count, results: list[Any]) -> None:
    """One thread's part, until the executor is shut down."""
    dice = random.Random(seed)
    while True:
        kept: list[tuple[int, str, CallFuture[Any], list[bool]]] = []
        try:
            for _ in range(dice.randrange(1, 30)):
                number = dice.randrange(1000)
                kind = dice.choice(["square", "square", "square", "fails", "bytes"])
                match kind:
                    case "fails":
                        future: CallFuture[Any] = executor.submit(divmod, number, 0)
                    case "bytes":
                        future = executor.submit(values.zeros, number * 1000)
                    case _:
                        future = executor.submit(values.square, number)
                future.add_done_callback(done)
                if dice.random() < 0.05:
                    future.add_done_callback(lambda _: call_and_wait(executor))
                entry = (number, kind, future, [False])
                results.append(entry)
                kept.append(entry)
        except RuntimeError:
            return
        for _, _, future, cancelled in kept:
            match dice.randrange(6):
                case 0:
                    cancelled[0] = future.cancel()
                case 1:
                    cancelled[0] = future.interrupt()
                case 2:
                    future.running()
                case 3:
                    concurrent.futures.wait([future], 0.001)
                case 4:
                    with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
                        future.exception(dice.choice([0, 0.0001, None]))
                case _:
                    pass


def meddle(entries: list[Any], dice: random.Random, until: float) -> None:
    """Cancel and wait for what other threads have submitted."""
    while time.monotonic() < until:
        if entries:
            _, _, future, cancelled = dice.choice(entries[-100:])
            match dice.randrange(3):
                case 0:
                    cancelled[0] = future.interrupt() or cancelled[0]
                case 1:
                    cancelled[0] = future.cancel() or cancelled[0]
                case _:
                    with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
                        future.exception(dice.choice([0, 0.0001, 0.001]))
        time.sleep(0)


def play_round(seed: int) -> int:
    dice = random.Random(seed)
    executor = Executor(dice.randrange(1, 4))
    done = Count()
    results: list[list[Any]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=act, args=(executor, dice.randrange(2**32), done, entries))
        for entries in results
    ]
    threads.append(
        threading.Thread(
            target=meddle,
            args=(results[0], random.Random(seed), time.monotonic() + dice.random() / 4),
        )
    )
    for thread in threads:
        thread.start()
    pause(dice.random() / 3)
    executor.shutdown(wait=dice.random() < 0.5, cancel_futures=dice.random() < 0.5)
    for thread in threads:
        thread.join()
    executor.shutdown()
    entries = [entry for part in results for entry in part]
    concurrent.futures.wait([future for _, _, future, _ in entries])
    for number, kind, future, cancelled in entries:
        check(number, kind, future, cancelled[0])
    # A callback runs after its future is done.
    eventually(lambda: done.calls >= len(entries))
    assert not wrong, wrong
    assert done.calls == len(entries), (done.calls, len(entries))
    return len(entries)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    seed, calls = options.seed, 0
    while time.monotonic() < end:
        print(f"seed {seed}", flush=True)
        calls += play_round(seed)
        seed += 1
    print(f"{calls} calls")


if __name__ == "__main__":
    main()
