"""Queues between interpreters: what producers and consumers in workers do."""

import atexit
import os
from dataclasses import dataclass
from typing import Any

from aiointerpreters import Queue, QueueEmpty, QueueFull, QueueShutDown

kept: list[Any] = []


def move_item(queue: Any) -> Any:
    item = queue.get_nowait()
    queue.put("from the worker")
    return item


@dataclass
class Channel:
    queue: Any
    name: str = ""


def put_views(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.put(memoryview(bytearray(64)))


def put_views_of_a_runner(queue: Any, told: Any, workers: int, count: int) -> list[int]:
    """Views of workers of this worker, which end with it. Say where their interpreters were."""
    import asyncio

    from aiointerpreters import Runner

    async def main() -> list[int]:
        initargs = (queue, told, count)
        async with Runner(workers=workers, initializer=put_views_and_tell, initargs=initargs):
            return [await told.aget() for _ in range(workers)]

    return asyncio.run(main())


def put_views_and_tell(queue: Any, told: Any, count: int) -> None:
    put_views(queue, count)
    told.put(address_of_the_interpreter())


def take_views_at(queue: Any, told: Any, addresses: Any) -> None:
    """Tell where this interpreter is; take all views and let go of them if it is one of these."""
    address = address_of_the_interpreter()
    while address in addresses and not queue.empty():
        view = queue.get_nowait()
        assert bytes(view) == bytes(64)
        del view
    told.put(address)


def address_of_the_interpreter() -> int:
    import ctypes

    get = ctypes.pythonapi.PyInterpreterState_Get
    get.restype = ctypes.c_void_p
    address: int = get()
    return address


def put(queue: Any, *items: Any) -> int:
    for item in items:
        queue.put(item)
    return len(items)


def put_unsendable(queue: Any, item: Any) -> None:
    queue.put(item)
    queue.put({"key": [0, (item for item in ())]})


def put_timed(queue: Any, item: Any, timeout: float | None) -> None:
    queue.put(item, timeout=timeout)


def put_numbers(queue: Any, producer: Any, count: int) -> int:
    for number in range(count):
        queue.put((producer, number))
    return count


def put_at_exit(queue: Any, *items: Any) -> None:
    """Put them when this worker ends, in their order."""
    for item in reversed(items):
        atexit.register(queue.put, item)


def keep_own(size: int) -> None:
    """A queue of this worker, with an item in memory of this worker."""
    queue = Queue[Any]()
    queue.put(bytes(size))
    kept.append(queue)


def get(queue: Any, count: int = 1) -> list[Any]:
    return [queue.get() for _ in range(count)]


def get_timed(queue: Any, timeout: float | None) -> Any:
    return queue.get(timeout=timeout)


def get_nowait(queue: Any) -> Any:
    return queue.get_nowait()


def put_nowait(queue: Any, item: Any) -> None:
    queue.put_nowait(item)


def take_all(queue: Any) -> list[Any]:
    """Everything, until the queue is shut down."""
    items = []
    while True:
        try:
            items.append(queue.get())
        except QueueShutDown:
            return items


def announce_and_get(fd: int, queue: Any) -> Any:
    os.write(fd, b".")
    return queue.get()


def announce_and_put(fd: int, queue: Any, item: Any) -> None:
    os.write(fd, b".")
    queue.put(item)


def how_it_ends(fd: int, queue: Any) -> str:
    """The type of what a blocked get raises."""
    os.write(fd, b".")
    try:
        return f"got {queue.get()}"
    except Exception as error:
        return type(error).__name__


def how_a_put_ends(fd: int, queue: Any) -> str:
    os.write(fd, b".")
    try:
        queue.put("one more")
    except Exception as error:
        return type(error).__name__
    return "put"


def make(maxsize: int = 0, *items: Any) -> Any:
    queue: Any = Queue(maxsize)
    for item in items:
        queue.put(item)
    return queue


def facts(queue: Any) -> tuple[str, int, int, bool, bool]:
    return (
        type(queue).__name__,
        queue.maxsize,
        queue.qsize(),
        queue.empty(),
        queue.full(),
    )


def shut_down(queue: Any, immediate: bool = False) -> None:
    queue.shutdown(immediate)


def serve(requests: Any) -> int:
    """Answer each request through the queue that comes with it."""
    count = 0
    while True:
        request = requests.get()
        if request is None:
            return count
        reply_to, number = request
        reply_to.put(number * number)
        count += 1


def keep(queue: Any) -> None:
    kept.append(queue)


def kept_queue() -> Any:
    return kept[-1]


def drop_kept() -> None:
    kept.clear()


def equal_to_kept(queue: Any) -> tuple[bool, bool, bool]:
    return queue == kept[-1], hash(queue) == hash(kept[-1]), queue in {kept[-1]}


def get_of_channel(channel: Channel) -> Any:
    return channel.queue.get(), channel.name


def errors() -> list[str]:
    """What kinds of errors these are, in a worker."""
    import queue as standard

    found = []
    one = Queue(1)
    try:
        one.get_nowait()
    except QueueEmpty as error:
        found.append(f"empty {isinstance(error, standard.Empty)}")
    one.put(1)
    try:
        one.put_nowait(2)
    except QueueFull as error:
        found.append(f"full {isinstance(error, standard.Full)}")
    one.shutdown()
    try:
        one.put_nowait(2)
    except QueueShutDown as error:
        found.append(f"shut down {isinstance(error, standard.ShutDown)}")
    return found


def use_in_a_loop(incoming: Any, outgoing: Any, count: int) -> int:
    """In an event loop of the worker's own."""
    import asyncio

    async def main() -> int:
        for _ in range(count):
            await outgoing.aput(await incoming.aget())
        return count

    return asyncio.run(main())


def fill_view_of_item(queue: Any, byte: int) -> int:
    view = queue.get()
    view[:] = bytes([byte]) * len(view)
    return len(view)


def put_lent(queue: Any, data: bytes, fd: int, count: int = 1) -> None:
    from workfns import views

    for _ in range(count):
        queue.put(views.lend(data, fd))


def put_large(queue: Any, size: int, count: int) -> None:
    for number in range(count):
        queue.put((number, bytes([number % 251]) * size))


def pass_on(source: Any, target: Any, count: int) -> None:
    for _ in range(count):
        target.put(source.get())


def random_work(queue: Any, seed: int, producer: int, count: int) -> None:
    """Put numbers in every way there is, and give up and try again at random."""
    import random

    dice = random.Random(seed)
    number = 0
    while number < count:
        try:
            match dice.randrange(3):
                case 0:
                    queue.put((producer, number))
                case 1:
                    queue.put((producer, number), timeout=dice.random() * 0.002)
                case _:
                    queue.put_nowait((producer, number))
        except QueueFull:
            continue
        number += 1


def random_taking(queue: Any, seed: int) -> list[Any]:
    """Get items in every way there is, until the queue is shut down."""
    import random

    dice = random.Random(seed)
    items = []
    while True:
        try:
            match dice.randrange(3):
                case 0:
                    items.append(queue.get())
                case 1:
                    items.append(queue.get(timeout=dice.random() * 0.002))
                case _:
                    items.append(queue.get_nowait())
        except QueueEmpty:
            continue
        except QueueShutDown:
            return items
