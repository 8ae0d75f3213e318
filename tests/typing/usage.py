"""Checked by `mypy --strict` (see test_typing.py), never run: what the annotations promise."""

import asyncio
import math
import queue as std_queue
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path
from typing import Any, assert_type

import aiointerpreters
from aiointerpreters import (
    BrokenRunner,
    InterpreterError,
    InterpreterThreadPoolExecutor,
    NotShareableError,
    Queue,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
    RemoteTraceback,
    Runner,
    RunnerError,
    RunnerFull,
    RunnerView,
    Shareable,
    Shared,
    get_module_info,
    interpreter,
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


async def fetch(url: str) -> bytes:
    return url.encode()


def rows(path: Path, *, skip: int = 0) -> Iterator[tuple[int, str]]:
    yield skip, str(path)


def numbers(count: int) -> Generator[int, None, str]:
    yield count
    return "done"


async def ticks(count: int) -> AsyncIterator[float]:
    yield float(count)


async def coroutine_functions(runner: Runner) -> None:
    assert_type(await runner.run(fetch, "url"), bytes)
    assert_type(await runner.submit(fetch, "url"), bytes)
    assert_type(await runner.wrap(fetch)("url"), bytes)
    await runner.run(fetch, b"")  # type: ignore[call-overload]
    async for page in runner.map(fetch, ["url"]):
        assert_type(page, bytes)


async def mapping(runner: Runner) -> None:
    async for links in runner.map(parse, [b""]):
        assert_type(links, list[str])
    async for root in runner.map(math.sqrt, ticks(3), concurrency=5, ordered=False):
        assert_type(root, float)
    mapped = runner.map(math.gcd, range(3), iter([1]))
    assert_type(await anext(mapped), int)
    async with aclosing(mapped) as closing:
        assert_type(await anext(closing), int)
    as_iterator: AsyncIterator[int] = mapped
    print(as_iterator)
    runner.map(parse, 5)  # type: ignore[call-overload]
    runner.map(parse, [b""], concurrency="5")  # type: ignore[call-overload]


async def streaming(runner: Runner) -> None:
    async for row in runner.stream(rows, Path("p"), skip=3):
        assert_type(row, tuple[int, str])
    async for number in runner.stream(numbers, 3):
        assert_type(number, int)
    async for tick in runner.stream(ticks, 3):
        assert_type(tick, float)
    async for word in runner.stream(parse, b""):
        assert_type(word, str)
    async with aclosing(runner.stream(rows, Path("p"))) as closing:
        assert_type(await anext(closing), tuple[int, str])
    runner.stream(rows, "p")  # type: ignore[arg-type]
    runner.stream(math.sqrt, 2)  # type: ignore[arg-type]


async def options(runner: Runner) -> None:
    view = runner.options(timeout=1.5, deadline=3, priority=-1, buffer=10)
    assert_type(view, RunnerView)
    assert_type(view.options(timeout=None), RunnerView)
    assert_type(await view.run(parse, b""), list[str])
    runner.options(priority=1.5)  # type: ignore[arg-type]
    full: type[std_queue.Full] = RunnerFull
    print(full, Runner(max_pending=3))


async def what_is_wrong(runner: Runner) -> None:
    """`warn_unused_ignores` makes each of these an error, if mypy finds nothing wrong in it."""
    await runner.run(parse)  # type: ignore[call-overload]
    await runner.run(parse, "text")  # type: ignore[call-overload]
    await runner.run(parse, b"", lax=True)  # type: ignore[arg-type, call-arg]
    runner.submit(parse, 1)  # type: ignore[call-overload]
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
    await runner.run(tag, Shared({"a": "b"}), "a")  # type: ignore[call-overload]


async def original(runner: OriginalRunner) -> OriginalShareable:
    value: Shareable = (1, "a", (b"", None, 1.5, True), memoryview(b""))
    assert_type(await runner.run_module_function(get_module_info(parse), b""), object)
    return value


def executors(content: bytes) -> None:
    with InterpreterThreadPoolExecutor(2) as executor:
        assert_type(executor.submit(interpreter(parse), content), Future[list[str]])
        assert_type(executor.submit(parse, content), Future[list[str]])
        executor.submit(interpreter(parse), 5)  # type: ignore[arg-type]
        executor.set_as_event_loop_default(asyncio.new_event_loop())
    assert_type(interpreter(parse)(content), list[str])


async def in_threads(content: bytes) -> None:
    assert_type(await asyncio.to_thread(interpreter(parse), content), list[str])


print(aiointerpreters.__all__)
