"""Functions that are interrupted, that can't be, and that say which worker runs them."""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from time import sleep
from typing import Any

from aiointerpreters import Interrupted, Queue, current_worker, worker

# ---- code that never ends by itself, but can be interrupted ----


class Finalised:
    """Whose finalizer takes up most of the time."""

    def __del__(self) -> None:
        for _ in range(20_000):
            pass


def spin_in_finalizers() -> None:
    while True:
        Finalised()


def spin_in_a_loop() -> None:
    while True:
        pass


def spin_in_a_generator() -> None:
    def count() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    for _ in count():
        pass


def spin_in_nested_calls() -> None:
    def call(depth: int) -> None:
        if depth:
            call(depth - 1)
        else:
            spin_in_a_loop()

    call(50)


def spin_in_recursion() -> None:
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    fibonacci(500)


def spin_in_a_comprehension() -> None:
    sum(1 for _ in iter(int, 1))


def spin_in_a_constructor() -> None:
    class Spinning:
        def __init__(self) -> None:
            spin_in_a_loop()

    Spinning()


def spin_in_another_module() -> None:
    import textwrap

    while True:
        textwrap.wrap("some words " * 10, 20)


def spin_in_a_callback_of_c_code() -> None:
    sorted([1, 2, 3], key=lambda _: spin_in_a_loop())


def spin_in_an_event_loop() -> None:
    import asyncio

    async def main() -> None:
        while True:  # noqa: ASYNC110 - it waits for nothing
            await asyncio.sleep(0)

    asyncio.run(main())


def sleep_long() -> None:
    time.sleep(1_000)


def sleep_long_by_another_name() -> None:
    sleep(1_000.5)


def sleep_as_long_as_can_be() -> None:
    time.sleep(threading.TIMEOUT_MAX * 0.95)


def get_from_an_empty_queue() -> None:
    Queue[int]().get()


def put_into_a_full_queue() -> None:
    queue = Queue[int](1)
    queue.put(1)
    queue.put(2)


WITHOUT_END: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        spin_in_a_loop,
        spin_in_a_generator,
        spin_in_nested_calls,
        spin_in_recursion,
        spin_in_a_comprehension,
        spin_in_a_constructor,
        spin_in_another_module,
        spin_in_a_callback_of_c_code,
        spin_in_finalizers,
        spin_in_an_event_loop,
        sleep_long,
        sleep_long_by_another_name,
        sleep_as_long_as_can_be,
        get_from_an_empty_queue,
        put_into_a_full_queue,
    )
}


def go_on(way: str, announce_fd: int, mark_fd: int) -> None:
    """Do that until it is interrupted; mark what is seen of that."""

    @contextlib.contextmanager
    def managed() -> Iterator[None]:
        try:
            yield
        finally:
            os.write(mark_fd, b"m")

    try:
        with managed():
            os.write(announce_fd, b".")
            WITHOUT_END[way]()
    except Exception:
        os.write(mark_fd, b"E")
        raise
    except Interrupted:
        os.write(mark_fd, b"i")
        raise
    finally:
        os.write(mark_fd, b"f")


class SpinsWhenUnpickled:
    def __init__(self, announce_fd: int, mark_fd: int) -> None:
        self.fds = (announce_fd, mark_fd)

    def __getstate__(self) -> tuple[int, int]:
        return self.fds

    def __setstate__(self, fds: tuple[int, int]) -> None:
        go_on("spin_in_a_loop", *fds)


class SpinsWhenPickled:
    def __init__(self, announce_fd: int, mark_fd: int) -> None:
        self.fds = (announce_fd, mark_fd)

    def __reduce__(self) -> Any:
        go_on("spin_in_a_loop", *self.fds)


def return_what_spins_when_pickled(announce_fd: int, mark_fd: int) -> Any:
    return SpinsWhenPickled(announce_fd, mark_fd)


# ---- what happens after the interruption ----


def finish_in_peace(announce_fd: int, mark_fd: int) -> None:
    """Clean up in every way that takes a while, and is not to be interrupted again."""
    try:
        try:
            os.write(announce_fd, b".")
            spin_in_a_loop()
        finally:
            time.sleep(0.02)
            os.write(mark_fd, b"s")
            sum(n * n for n in range(200_000))
            os.write(mark_fd, b"w")
    except Interrupted:
        time.sleep(0.02)
        queue = Queue[int]()
        threading.Timer(0.02, queue.put, (1,)).start()
        queue.get()
        os.write(mark_fd, b"q")
        raise


def finish_in_peace_amid_other_exceptions(announce_fd: int, mark_fd: int) -> None:
    try:
        os.write(announce_fd, b".")
        spin_in_a_loop()
    finally:
        try:
            raise LookupError
        except LookupError:
            time.sleep(0.02)
            os.write(mark_fd, b"l")


def finish_a_generator_in_peace(announce_fd: int, mark_fd: int) -> None:
    def generate() -> Iterator[int]:
        try:
            yield 1
        finally:
            time.sleep(0.02)
            os.write(mark_fd, b"g")

    generator = generate()
    next(generator)
    os.write(announce_fd, b".")
    try:
        spin_in_a_loop()
    finally:
        generator.close()


def should_stop_before_and_after(announce_fd: int, mark_fd: int) -> None:
    try:
        os.write(mark_fd, b"s" if worker().should_stop() else b"-")
        os.write(announce_fd, b".")
        spin_in_a_loop()
    finally:
        os.write(mark_fd, b"s" if worker().should_stop() else b"-")


def stop_when_asked(announce_fd: int) -> None:
    """Hold the interruption off, and look by oneself."""
    os.write(announce_fd, b".")
    while True:
        try:
            while not worker().should_stop():
                pass
            return
        except Interrupted:
            pass


def turn_into_another(announce_fd: int) -> None:
    try:
        os.write(announce_fd, b".")
        spin_in_a_loop()
    except Interrupted:
        raise LookupError("instead") from None


def raise_interrupted() -> None:
    raise Interrupted("by myself")


def fail_with_an_exception_caused_by_interrupted() -> None:
    raise ValueError("caused") from Interrupted("by myself")


# ---- code that can't be interrupted ----


def is_open(wait_fd: int) -> bool:
    return bool(select.select([wait_fd], [], [], 0)[0])


def stay(announce_fd: int, wait: Callable[[], object], mark_fd: int) -> None:
    """Be in `wait` until that returns. An interruption may come before it is there."""
    announced = False
    try:
        while True:
            try:
                if not announced:
                    announced = True
                    os.write(announce_fd, b".")
                wait()
                return
            except Interrupted:
                pass
    finally:
        os.write(mark_fd, b"f")


def swallow_until(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    def spin() -> None:
        while not is_open(wait_fd):
            pass

    stay(announce_fd, spin, mark_fd)


def swallow_and_mark_until(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    def spin() -> None:
        try:
            while not is_open(wait_fd):
                pass
        except Interrupted:
            os.write(mark_fd, b"i")

    stay(announce_fd, lambda: [spin() for _ in iter(lambda: is_open(wait_fd), True)], mark_fd)


def read_until(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    stay(announce_fd, lambda: os.read(wait_fd, 1), mark_fd)


def lock_until(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    lock = threading.Lock()
    lock.acquire()

    def release() -> None:
        os.read(wait_fd, 1)
        lock.release()

    threading.Thread(target=release).start()
    stay(announce_fd, lambda: is_open(wait_fd) or lock.acquire(), mark_fd)


def hold_the_gil_until(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    import ctypes

    read = ctypes.PyDLL(None).read  # does not let go of the GIL
    buffer = ctypes.create_string_buffer(1)
    stay(announce_fd, lambda: read(wait_fd, buffer, 1), mark_fd)


def end_by_oneself(announce_fd: int, wait_fd: int, outcome: str) -> Any:
    """Once the gate is open; interruptions are held off."""
    announced = False
    while not is_open(wait_fd):
        try:
            if not announced:
                announced = True
                os.write(announce_fd, b".")
            os.read(wait_fd, 1)
        except Interrupted:
            pass
    try:
        if outcome == "exception":
            raise ValueError("failed after the gate")
        return (item for item in ()) if outcome == "unsendable result" else "result"
    except Interrupted:  # it had been on its way
        return "result"


def hold_up_the_set_up(announce_fd: int, wait_fd: int) -> None:
    """An initializer."""
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)


def hold_up_all_but_one(pass_fd: int, announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    """An initializer: whoever gets a byte from the first pipe need not wait."""
    try:
        os.read(pass_fd, 1)
    except BlockingIOError:
        read_until(announce_fd, wait_fd, mark_fd)


# ---- sleeping ----


def sleep_at_least(seconds: Any) -> bool:
    start = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - start >= seconds


def sleep_in_a_thread(seconds: float) -> bool:
    slept: list[bool] = []
    thread = threading.Thread(target=lambda: slept.append(sleep_at_least(seconds)))
    thread.start()
    thread.join()
    return slept[0]


class Index:
    def __index__(self) -> int:
        return 0


SLEEPS: dict[str, Any] = {
    "zero": 0,
    "zero float": 0.0,
    "negative zero": -0.0,
    "short": 0.0001,
    "false": False,
    "decimal": Decimal("0.002"),
    "fraction": Fraction(1, 500),
    "index": Index(),
    "negative": -1,
    "negative float": -0.5,
    "nan": float("nan"),
    "infinite": float("inf"),
    "huge": 10**400,
    "too long": 1e300,
    "text": "1",
    "none": None,
    "complex": 1j,
}


def outcome_of_sleep(name: str) -> tuple[str, str]:
    """Its result, or the type and text of its exception."""
    try:
        return ("", repr(time.sleep(SLEEPS[name])))
    except BaseException as error:
        return (type(error).__name__, str(error))


def outcome_of_sleep_without_arguments() -> str:
    try:
        time.sleep()  # type: ignore[call-arg]
    except TypeError:
        return "TypeError"
    return ""


# ---- the worker ----


def index() -> int:
    return worker().index


def index_at(announce_fd: int, wait_fd: int) -> int:
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return worker().index


def name_and_repr() -> tuple[str, str]:
    return (worker().name, repr(worker()))


def index_in_a_thread() -> tuple[int, int]:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(worker().index))
    thread.start()
    thread.join()
    return (found[0], worker().index)


def is_always_the_same() -> bool:
    return worker() is worker() is current_worker()


def remember(value: Any) -> None:
    worker().state.value = value


def recall(default: Any = None) -> Any:
    return getattr(worker().state, "value", default)


def prepare_with_index(mark_fd: int) -> None:
    """An initializer."""
    worker().state.value = f"prepared {worker().index}"
    os.write(mark_fd, bytes([48 + worker().index]))


calls = 0


def count_calls() -> tuple[int, Any]:
    """How many calls this worker has had, with what its initializer left."""
    global calls
    calls += 1
    return (calls, recall())


def number_of_calls_at(announce_fd: int, wait_fd: int) -> int:
    global calls
    calls += 1
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return calls


def break_all_but_the_first(read_fd: int) -> None:
    """An initializer that raises in all workers but those for which a byte is in the pipe."""
    if not is_open(read_fd):
        raise LookupError("no second worker")
    os.read(read_fd, 1)


def get_from(queue: Queue[Any], announce_fd: int) -> Any:
    os.write(announce_fd, b".")
    return queue.get()


def should_stop() -> bool:
    return worker().should_stop()


def spin_and_turn_into(announce_fd: int, outcome: str) -> str:
    """Return that when it is interrupted, or raise LookupError if it says "raises"."""
    try:
        go_on("spin_in_a_loop", announce_fd, announce_fd)
    except Interrupted:
        if outcome == "raises":
            raise LookupError from None
    return outcome
