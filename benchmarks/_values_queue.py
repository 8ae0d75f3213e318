"""Items from a worker to the event loop through a queue: ours, and the standard library's."""

import asyncio
import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

from _common import at_least, duration, no_collections, ratio, show, table
from _work import BlockingQueue, nap, produce, return_balls

from aiointerpreters import Queue, Runner

ITEMS: dict[str, object] = {"int": 12_345, "str of 100": "abcdefghij" * 10}
SIZES = {"unbounded": 0, "maxsize 1000": 1000, "maxsize 100": 100}
FIRST_COUNT, HIGHEST_COUNT = 500, 200_000
NOTES = """
- The producer is `for …: queue.put(item)` in a worker of our Runner, whoever's queue it is. Items
  per second are counted from the producer's call to the last item's arrival in a coroutine.
- *to_thread*: `await asyncio.to_thread(queue.get)`, what the standard library has for this. *one
  thread*: a thread of one's own that gets, and hands on with call_soon_threadsafe; it also takes
  more out of a bounded queue than its maxsize allows. *polled*: `get_nowait()`, and `await
  asyncio.sleep(0)` where that finds nothing: it keeps a core busy, also while nothing comes.
- A wait of the standard library's own get() or put() is a sleep of 10 ms at a time.
- *ping-pong*: the loop puts into one queue, a worker gets and puts into another, the loop gets.
"""


class AnyQueue(BlockingQueue, Protocol):
    """What ours and the standard library's queue have in common."""

    def put_nowait(self, item: Any, /) -> None:
        """Put without waiting."""

    def get_nowait(self) -> Any:
        """Get without waiting."""


@dataclass(frozen=True)
class Way[Q: AnyQueue]:
    """How a coroutine uses a kind of queue."""

    name: str
    make: Callable[[int], Q]
    put: Callable[[Q, object], Awaitable[object]]
    receive: Callable[[Q, int], Awaitable[object]]  # so many items


# ---- the ways ----


async def aput(items: Queue[Any], item: object) -> None:
    """Put with our queue's own method."""
    await items.aput(item)


async def aget(items: Queue[Any], count: int) -> None:
    """Get with our queue's own method."""
    for _ in range(count):
        await items.aget()


async def put_nowait(items: AnyQueue, item: object) -> None:
    """Put into an unbounded queue."""
    items.put_nowait(item)


async def to_thread(items: AnyQueue, count: int) -> None:
    """Let a thread of the loop's executor wait for each item."""
    for _ in range(count):
        await asyncio.to_thread(items.get)


async def one_thread(items: AnyQueue, count: int) -> None:
    """Let one thread wait for all items."""
    loop = asyncio.get_running_loop()
    received = asyncio.Queue[object]()

    def hand_on() -> None:
        for _ in range(count):
            loop.call_soon_threadsafe(received.put_nowait, items.get())

    threading.Thread(target=hand_on).start()
    for _ in range(count):
        await received.get()


async def polled(items: AnyQueue, count: int) -> None:
    """Ask again and again."""
    for _ in range(count):
        while True:
            try:
                items.get_nowait()
                break
            except queue.Empty:
                await asyncio.sleep(0)


def all_ways() -> list[Way[Any]]:
    """Return every way there is in this Python, ours first."""
    ways: list[Way[Any]] = [Way("aget", Queue, aput, aget)]
    if sys.version_info >= (3, 14):
        from concurrent.interpreters import create_queue

        for receive in (to_thread, one_thread, polled):
            ways.append(Way(receive.__name__.replace("_", " "), create_queue, put_nowait, receive))
    return ways


# ---- measuring ----


async def items_per_second(
    runner: Runner, way: Way[Any], item: object, maxsize: int, count: int
) -> float:
    """Let a worker produce, and receive it all."""
    items = way.make(maxsize)
    with no_collections():
        began = time.perf_counter()
        producer = runner.submit(produce, items, item, count)
        await way.receive(items, count)
        took = time.perf_counter() - began
    await producer
    return count / took


async def ping_pong(runner: Runner, way: Way[Any], seconds: float) -> list[float]:
    """Send a ball there and back, again and again; each one's time in microseconds."""
    there, back = way.make(0), way.make(0)
    worker = runner.submit(return_balls, there, back)
    samples = []
    with no_collections():
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            await way.put(there, 1)
            await way.receive(back, 1)
            samples.append((time.perf_counter() - began) * 1e6)
    await way.put(there, None)
    await worker
    return samples


async def measure(workers: int, rounds: int, seconds: float) -> None:
    """Let the ways take turns; the first round only warms up. Each tells how many items fit."""
    ways = all_ways()
    # what is sent -> a way's name -> items per second
    rates: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    balls: dict[str, list[float]] = defaultdict(list)
    counts: dict[tuple[str, str], int] = {}
    async with Runner(workers=workers) as runner:
        await asyncio.gather(*(runner.run(nap, 0.1) for _ in range(2 * workers)))
        for round_number in range(rounds + 1):
            for item_name, item in ITEMS.items():
                for size_name, maxsize in SIZES.items():
                    what = f"{item_name}, {size_name}"
                    for way in ways:
                        count = counts.get((what, way.name), FIRST_COUNT)
                        rate = await items_per_second(runner, way, item, maxsize, count)
                        fit = min(int(rate * seconds), HIGHEST_COUNT)
                        counts[what, way.name] = max(fit, FIRST_COUNT)
                        if round_number:
                            rates[what][way.name].append(rate)
            for way in ways:
                times = await ping_pong(runner, way, seconds)
                if round_number:
                    balls[way.name] += times
    report(ways, rates, balls)


def report(
    ways: list[Way[Any]], rates: dict[str, dict[str, list[float]]], balls: dict[str, list[float]]
) -> None:
    """Print the table and the targets."""
    ours, *peers = (way.name for way in ways)
    rows = []
    for what, by_way in rates.items():
        rate = median(by_way[ours])
        rows.append([what, f"{rate:,.0f}/s"])
        for name in peers:
            theirs = median(by_way[name])
            rows[-1] += [f"{theirs:,.0f}/s", ratio(rate / theirs)]
    fastest = median(balls[ours])
    rows.append(["ping-pong", duration(fastest)])
    for name in peers:
        rows[-1] += [duration(median(balls[name])), ratio(median(balls[name]) / fastest)]
    show("From a worker to the event loop through a queue\n")
    table(["", ours, *(cell for name in peers for cell in (name, "ours is faster"))], rows)
    if not peers:
        show("Nothing beside it: concurrent.interpreters needs Python 3.14.")
    else:
        for what, by_way in rates.items():
            times = median(by_way[ours]) / median(by_way[to_thread.__name__.replace("_", " ")])
            at_least(f"{what}: items per second against to_thread", times, 10)
    show(f"\n{NOTES.strip()}")
