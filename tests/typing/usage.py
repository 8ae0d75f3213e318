"""Checked by `mypy --strict` (see test_typing.py), never run: what the annotations promise."""

import asyncio
import math
import queue as std_queue
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, assert_type

import aiointerpreters
from aiointerpreters import (
    BrokenRunner,
    InterpreterError,
    NotShareableError,
    Queue,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
    RemoteTraceback,
    Runner,
    RunnerError,
    Shareable,
    Shared,
    get_module_info,
)
from aiointerpreters.errors import AioInterpretersError
from aiointerpreters.runner import Runner as OriginalRunner
from aiointerpreters.types import Shareable as OriginalShareable


def parse(page: bytes, *, strict: bool = False) -> list[str]:
    return [page.decode()] if strict else []


def first[T](items: list[T]) -> T:
    return items[0]


def prepare(path: Path, *names: str) -> None: ...


class Document:
    def __init__(self, text: str) -> None:
        self.text = text

    @staticmethod
    def read(path: str) -> "Document":
        return Document(path)

    def length(self) -> int:
        return len(self.text)


async def calling(runner: Runner) -> None:
    assert_type(await runner.run(parse, b"", strict=True), list[str])
    assert_type(await runner.run(math.sqrt, 2), float)
    assert_type(await runner.run(Document, "text"), Document)
    assert_type(await runner.run(Document.read, "path"), Document)
    assert_type(await runner.run(Document.length, Document("")), int)
    assert_type(await runner.run(first, [1]), int)
    assert_type(runner.submit(parse, b""), asyncio.Future[list[str]])
    assert_type(await runner.submit(parse, b""), list[str])

    wrapped = runner.wrap(parse)
    assert_type(await wrapped(b"", strict=True), list[str])
    as_callable: Callable[[bytes], Coroutine[Any, Any, list[str]]] = wrapped
    async with asyncio.TaskGroup() as group:
        assert_type(group.create_task(wrapped(b"")), asyncio.Task[list[str]])
        assert_type(group.create_task(runner.run(parse, b"")), asyncio.Task[list[str]])
        assert_type(group.create_task(as_callable(b"")), asyncio.Task[list[str]])
    one, two = await asyncio.gather(runner.run(parse, b""), runner.submit(math.sqrt, 2))
    assert_type(one, list[str])
    assert_type(two, float)


async def what_is_wrong(runner: Runner) -> None:
    """`warn_unused_ignores` makes each of these an error, if mypy finds nothing wrong in it."""
    await runner.run(parse)  # type: ignore[call-arg]
    await runner.run(parse, "text")  # type: ignore[arg-type]
    await runner.run(parse, b"", lax=True)  # type: ignore[call-arg]
    runner.submit(parse, 1)  # type: ignore[arg-type]
    await runner.wrap(parse)("text")  # type: ignore[arg-type]
    Runner(3)  # type: ignore[call-arg]
    Runner(workers="3")  # type: ignore[arg-type]


async def living() -> None:
    runner = Runner(
        workers=2,
        initializer=prepare,
        initargs=(Path("p"), "a"),
        preload=["json", "re"],
        name="pages",
    )
    assert_type(runner, Runner)
    assert_type(runner.workers, int)
    assert_type(runner.start(), Runner)
    with runner.start() as started:
        assert_type(started, Runner)
    with Runner() as entered:
        assert_type(entered, Runner)
    async with Runner(workers=None) as entered:
        assert_type(entered, Runner)
    runner.close()
    runner.close(cancel_pending=True)
    await runner.aclose(cancel_pending=True)
    await runner.drain()


class Mine(Runner):
    pass


def subclasses() -> None:
    assert_type(Mine(workers=1).start(), Mine)
    with Mine() as mine:
        assert_type(mine, Mine)


def errors(error: Exception) -> None:
    if isinstance(error, InterpreterError):
        assert_type(error.type_name, str)
        assert_type(error.message, str)
        assert_type(error.traceback_text, str)
    if isinstance(error, (RunnerError, NotShareableError, BrokenRunner, RemoteTraceback)):
        print(error)
    base: type[AioInterpretersError] = RunnerError
    runtime: type[RuntimeError] = RunnerError
    wrong_type: type[TypeError] = NotShareableError
    print(base, runtime, wrong_type)


def tag(lexicon: dict[str, int], text: str) -> list[int]:
    return [lexicon[word] for word in text.split()]


def produce(queue: Queue[int], count: int) -> None:
    for number in range(count):
        queue.put(number)
    queue.shutdown()


async def queues(runner: Runner) -> None:
    queue = Queue[int](maxsize=3)
    assert_type(queue, Queue[int])
    runner.submit(produce, queue, 3)
    assert_type(await queue.aget(), int)
    assert_type(queue.get(timeout=1.5), int)
    assert_type(queue.get_nowait(), int)
    await queue.aput(4)
    queue.put(5, block=False)
    queue.put("six")  # type: ignore[arg-type]
    await queue.aput(None)  # type: ignore[arg-type]
    assert_type((queue.qsize(), queue.empty(), queue.maxsize), tuple[int, bool, int])
    queue.shutdown(immediate=True)
    empty: type[std_queue.Empty] = QueueEmpty
    full: type[asyncio.QueueFull] = QueueFull
    shut: type[AioInterpretersError] = QueueShutDown
    print(empty, full, shut)


async def shared(runner: Runner) -> None:
    lexicon = Shared({"a": 1})
    assert_type(await runner.run(tag, lexicon, "a"), list[int])
    await runner.run(tag, Shared({"a": "b"}), "a")  # type: ignore[dict-item]


async def original(runner: OriginalRunner) -> OriginalShareable:
    value: Shareable = (1, "a", (b"", None, 1.5, True), memoryview(b""))
    assert_type(await runner.run_module_function(get_module_info(parse), b""), object)
    return value


print(aiointerpreters.__all__)
