"""Coroutine functions, run in the event loops of workers."""

import asyncio
import contextlib
import contextvars
import inspect
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

from aiointerpreters import Interrupted, Queue, Runner, worker
from workfns.context import user

context: contextvars.ContextVar[str] = contextvars.ContextVar("context", default="unset")
running = 0
peak = 0
flag = False
left: list[Any] = []


async def add(left: Any, right: Any = 0) -> Any:
    await asyncio.sleep(0)
    return left + right


async def echo(value: Any) -> Any:
    return value


async def open_gate(fd: int) -> None:
    """Wait until there is something to read from `fd`, or its other end is closed."""
    loop = asyncio.get_running_loop()
    own = os.dup(fd)
    opened = loop.create_future()
    loop.add_reader(own, lambda: opened.done() or opened.set_result(None))
    try:
        await opened
    finally:
        loop.remove_reader(own)
        os.close(own)


async def wait_at(announce_fd: int, wait_fd: int, value: Any = None) -> Any:
    """Announce that this runs, then wait until the gate opens; return `value`."""
    global running, peak
    running += 1
    peak = max(peak, running)
    try:
        os.write(announce_fd, b".")
        await open_gate(wait_fd)
        return value
    finally:
        running -= 1


def highest_peak() -> int:
    return peak


async def identity() -> tuple[int, int, int]:
    """Tells workers, their threads and their loops apart."""
    loop = asyncio.get_running_loop()
    left.append(loop)  # so that its address is not used again
    return id(sys.modules), threading.get_native_id(), id(loop)


async def wait_and_identify(announce_fd: int, wait_fd: int) -> tuple[int, int, int]:
    await wait_at(announce_fd, wait_fd)
    return await identity()


def spin_until_flag(announce_fd: int) -> str:
    """Never gives way but as any Python code does."""
    os.write(announce_fd, b".")
    while not flag:
        pass
    return "saw it"


async def set_flag() -> None:
    global flag
    for _ in range(10):
        await asyncio.sleep(0)
    flag = True


async def leave_mark(fd: int, mark: bytes = b"x") -> None:
    os.write(fd, mark)


async def mark_cancellation(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    """Marks: c, if CancelledError comes; f, once its clean-up is done, which takes its time."""
    try:
        await wait_at(announce_fd, wait_fd)
    except asyncio.CancelledError:
        os.write(mark_fd, b"c")
        raise
    finally:
        await asyncio.sleep(0.05)
        os.write(mark_fd, b"f")


async def swallow_one_cancellation(announce_fd: int, wait_fd: int, mark_fd: int) -> str:
    try:
        await wait_at(announce_fd, wait_fd)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    os.write(mark_fd, b"e")
    return "nobody waits"


async def swallow_cancellations(announce_fd: int, wait_fd: int) -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await wait_at(announce_fd, wait_fd)


async def spin(announce_fd: int, mark_fd: int) -> None:
    """Never let the loop run."""
    await asyncio.sleep(0)
    try:
        os.write(announce_fd, b".")
        while True:
            pass
    except asyncio.CancelledError:
        os.write(mark_fd, b"c")
        raise
    finally:
        await asyncio.sleep(0.02)
        os.write(mark_fd, b"f")


async def spin_whatever_comes(announce_fd: int, mark_fd: int) -> None:
    """As spin(), and swallow CancelledError."""
    os.write(announce_fd, b".")
    while True:
        try:
            while True:
                pass
        except asyncio.CancelledError:
            os.write(mark_fd, b"c")


async def clean_up_slowly(announce_fd: int, mark_fd: int, seconds: float) -> None:
    try:
        os.write(announce_fd, b".")
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(seconds)
        os.write(mark_fd, b"cleaned up")


async def should_stop() -> bool:
    return worker().should_stop()


async def mark_should_stop(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    """Mark what should_stop() says before it is cancelled, and in its clean-up: T or F."""
    try:
        os.write(mark_fd, b"FT"[worker().should_stop() :][:1])
        await wait_at(announce_fd, wait_fd)
    finally:
        os.write(mark_fd, b"FT"[worker().should_stop() :][:1])


async def user_after_a_while() -> Any:
    for _ in range(3):
        await asyncio.sleep(0)
    return user.get()


async def spin_in_a_task(announce_fd: int) -> None:
    async def spin() -> None:
        os.write(announce_fd, b".")
        while True:
            pass

    await asyncio.create_task(spin())


async def block_in_get(queue: Queue[Any], announce_fd: int, mark_fd: int) -> None:
    """What one should not do: a blocking call in a coroutine."""
    try:
        os.write(announce_fd, b".")
        queue.get()
    except asyncio.CancelledError:
        os.write(mark_fd, b"c")
        raise


async def fail(text: str) -> None:
    await asyncio.sleep(0)
    error = ValueError(text)
    error.add_note("noted")
    raise error from KeyError("cause")


async def raise_it(name: str) -> None:
    await asyncio.sleep(0)
    raise {
        "KeyboardInterrupt": KeyboardInterrupt,
        "SystemExit": SystemExit,
        "CancelledError": asyncio.CancelledError,
        "GeneratorExit": GeneratorExit,
    }[name]("text")


async def return_a_lock() -> Any:
    return threading.Lock()


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


class Base:
    def __init__(self, base: int) -> None:
        self.base = base

    async def add(self, number: int) -> int:
        return self.base + number

    @classmethod
    async def made(cls, base: int) -> Self:
        return cls(base)

    @staticmethod
    async def twice(number: int) -> int:
        return 2 * number

    async def __call__(self, number: int) -> int:
        return await self.add(number)


@inspect.markcoroutinefunction
def awaitable_of(value: Any) -> Awaitable[Any]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


@inspect.markcoroutinefunction
def not_awaitable() -> int:
    return 42


def adder(left: int) -> Callable[[int], Awaitable[int]]:
    async def add(right: int) -> int:
        return left + right

    return add


async def generate() -> AsyncIterator[int]:
    yield 1


# ---- what asyncio offers ----


async def gather_squares(count: int) -> list[int]:
    async def square(n: int) -> int:
        await asyncio.sleep(0)
        return n * n

    return await asyncio.gather(*(square(n) for n in range(count)))


async def fail_in_a_group(mark_fd: int) -> None:
    async def wait() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            os.write(mark_fd, b"w")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError("one of them")

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        group.create_task(fail())


async def time_out_inside() -> str:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(3600)
    except TimeoutError:
        return "timed out"
    return "did not"


async def identity_of_a_thread() -> tuple[int, int]:
    """Of the loop's thread, and of one that it starts."""
    return threading.get_native_id(), await asyncio.to_thread(threading.get_native_id)


async def run_a_subprocess() -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(6 * 7)", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def double_all(source: Queue[int], target: Queue[int]) -> int:
    """Read numbers until -1 comes."""
    count = 0
    while (number := await source.aget()) >= 0:
        await target.aput(2 * number)
        count += 1
    return count


async def set_context(value: str, announce_fd: int, wait_fd: int) -> tuple[str, str]:
    before = context.get()
    context.set(value)
    await wait_at(announce_fd, wait_fd)
    return before, context.get()


async def describe_own_task() -> tuple[str, str]:
    task = asyncio.current_task()
    assert task is not None
    return repr(task), repr([frame.f_code.co_name for frame in task.get_stack()])


# ---- tasks that calls leave behind ----


async def leave_a_task(announce_fd: int, wait_fd: int, mark_fd: int) -> str:
    """Its marks: d, if it gets done; c, if it is cancelled."""

    async def outlive() -> None:
        try:
            await wait_at(announce_fd, wait_fd)
            os.write(mark_fd, b"d")
        except asyncio.CancelledError:
            os.write(mark_fd, b"c")
            raise

    left.append(asyncio.create_task(outlive()))
    return "left it"


async def leave_a_task_that_exits(name: str) -> None:
    left.append(asyncio.create_task(raise_it(name)))


async def leave_a_failing_task(mark_fd: int) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            os.write(mark_fd, b"f")
            raise LookupError("while it was cancelled")

    left.append(asyncio.create_task(fail_when_cancelled()))
    await asyncio.sleep(0)


async def leave_a_thread(announce_fd: int, wait_fd: int) -> None:
    """An executor's thread, which nobody waits for."""

    def wait() -> None:
        os.write(announce_fd, b".")
        os.read(wait_fd, 1)

    left.append(asyncio.get_running_loop().run_in_executor(None, wait))


async def leave_a_generator(mark_fd: int) -> int:
    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            os.write(mark_fd, b"g")

    generator = generate()
    left.append(generator)
    return await anext(generator)


def break_asyncio() -> None:
    """An initializer: asyncio can't be imported in this worker."""
    sys.modules["asyncio"] = None  # type: ignore[assignment]


async def run_a_runner() -> int:
    async with Runner(workers=1) as runner:
        return await runner.run(add, 20, 22)


async def stay_in_c(announce_fd: int, wait_fd: int) -> None:
    """Hold up the loop, in a call of C that nothing interrupts, until the gate opens."""
    announced = False
    while True:
        try:  # an interruption may come before it is there
            if not announced:
                announced = True
                os.write(announce_fd, b".")
            os.read(wait_fd, 1)
            return
        except (asyncio.CancelledError, Interrupted):
            pass


async def spin_in_the_clean_up(announce_fd: int, mark_fd: int, pauses: int) -> None:
    """When cancelled, await so often, then spin; mark what ends that."""
    try:
        os.write(announce_fd, b".")
        await asyncio.Event().wait()
    finally:
        try:
            for _ in range(pauses):
                await asyncio.sleep(0.01)
            while True:
                pass
        except (asyncio.CancelledError, Interrupted):  # the second one, if the first came early
            os.write(mark_fd, b"c")
            raise


async def raise_interrupted() -> None:
    raise Interrupted


async def touch_its_own_call(method: str) -> str:
    """Do what asyncio would do with the coroutine of a task, from within its own step."""
    call: Any = asyncio.current_task().get_coro()  # type: ignore[union-attr]
    arguments = {"send": (None,), "throw": (RuntimeError(),), "close": ()}[method]
    try:
        getattr(call, method)(*arguments)
    except ValueError as error:
        return str(error)
    return "nothing"
