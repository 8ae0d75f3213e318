"""Views sent, kept and dropped in random order while workers come and go; queues under fire.

AIO_STRESS_VIEWS and AIO_STRESS_ITEMS say how many; AIO_STRESS_SEED repeats what a failure printed
(as far as threads allow).
"""

import asyncio
import contextlib
import gc
import os
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from aiointerpreters import Queue, QueueEmpty, QueueFull, QueueShutDown, Runner
from helpers.limits import SLOWNESS, SOON
from helpers.process import LINUX, eventually, native_threads, open_fds, target, wait_once
from workfns import queues, views

VIEWS = int(os.environ.get("AIO_STRESS_VIEWS") or 100_000 / SLOWNESS)
ITEMS = int(os.environ.get("AIO_STRESS_ITEMS") or 20_000 / SLOWNESS)
SEED = int(os.environ.get("AIO_STRESS_SEED") or random.SystemRandom().randrange(2**32))

LIMIT = 300 * SLOWNESS


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """No more threads and file descriptors than before."""
    if not LINUX:
        yield
        return
    wait_once()
    gc.collect()
    threads, descriptors = native_threads(), open_fds()
    yield

    def is_met() -> bool:
        gc.collect()  # once more, if something has ended since: that may have been in a cycle
        return native_threads() <= threads and open_fds() <= descriptors

    assert eventually(is_met), [target(fd) for fd in os.listdir("/proc/self/fd")]


@contextlib.contextmanager
def slots_file(count: int) -> Iterator[int]:
    """A file with more slots than that: each round may overshoot, by a few thousand at most."""
    with tempfile.TemporaryFile() as file:
        file.truncate(count + 100_000)
        try:
            yield file.fileno()
        finally:  # or else whoever gets the same number for a file counts in this one
            if found := views._slots.pop(file.fileno(), None):
                found.close()


class Play:
    """Each exporter, of main and of the workers, counts in a slot of a file what comes back."""

    def __init__(self, fd: int, count: int, dice: random.Random) -> None:
        self.fd = fd
        self.count = count
        self.dice = dice
        self.next_slot = 0
        self.held: list[tuple[memoryview, int]] = []  # with the byte that each is full of
        self.lent: set[int] = set()
        self.doubtful: set[int] = set()  # of calls that were cancelled: lent, or not even made

    def slots(self, count: int) -> range:
        self.next_slot += count
        return range(self.next_slot - count, self.next_slot)

    @property
    def done(self) -> bool:
        return self.next_slot >= self.count

    def own(self, count: int) -> list[tuple[memoryview, int]]:
        """Views of exporters of this interpreter."""
        slots = self.slots(count)
        made = views.lend_slots(self.fd, slots.start, self.sizes(count))
        self.lent.update(slots)
        return [(view, slot % 251) for view, slot in zip(made, slots, strict=True)]

    def sizes(self, count: int) -> list[int]:
        return [self.dice.choice([1, 10, 1_000]) for _ in range(count)]

    def some_held(self) -> list[tuple[memoryview, int]]:
        return self.dice.sample(self.held, min(len(self.held), self.dice.randrange(10)))

    def hold_some(self, found: list[tuple[memoryview, int]]) -> None:
        some = self.dice.sample(found, self.dice.randrange(len(found) + 1))
        self.held += [(view[:], byte) for view, byte in some]

    def drop_some(self) -> None:
        limit = self.dice.choice([0, 50, 500, 2_000])
        self.dice.shuffle(self.held)
        while len(self.held) > limit:
            view, _ = self.held.pop()
            if self.dice.random() < 0.3:
                view.release()

    async def one_call(self, runner: Runner) -> None:
        dice = self.dice
        sent = self.own(dice.randrange(40)) + self.some_held()
        dice.shuffle(sent)
        slots = self.slots(dice.randrange(40))
        future = runner.submit(
            views.check_and_lend,
            [view[:: dice.choice([1, 1, -1])] for view, _ in sent],
            [byte for _, byte in sent],
            self.fd,
            slots.start,
            self.sizes(len(slots)),
            dice.randrange(len(sent) + 1) if dice.random() < 0.5 else 0,
        )
        self.hold_some(sent)
        del sent
        if dice.random() < 0.1:
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)
            future.cancel()
        try:
            results = await future
        except asyncio.CancelledError:
            self.doubtful.update(slots)
            return
        self.lent.update(slots)
        fresh = [(view, slot % 251) for view, slot in zip(results, slots, strict=True)]
        for view, byte in fresh:
            assert view[0] == view[-1] == byte
        self.hold_some(fresh)

    async def play(self) -> None:
        async with Runner(workers=2) as steady:
            while not self.done:
                # Some work in one that stays, and some in one that goes, whose results are kept.
                async with Runner(workers=self.dice.randrange(1, 3)) as brief:
                    for _ in range(self.dice.randrange(1, 8)):
                        runners = [self.dice.choice([steady, brief]) for _ in range(8)]
                        await asyncio.gather(*map(self.one_call, runners))
                        self.drop_some()
                        for view, byte in self.some_held():
                            assert view[0] == byte
                if self.dice.random() < 0.3:
                    gc.collect()

    def returned(self) -> dict[int, int]:
        found = views.slots(self.fd)
        return {slot: found[slot] for slot in range(self.next_slot)}


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_buffer_comes_back_exactly_once(threads: int) -> None:
    print(f"AIO_STRESS_SEED={SEED} AIO_STRESS_VIEWS={VIEWS}")
    count = VIEWS // threads
    with nothing_left(), slots_file(count) as fd:
        failures: list[BaseException] = []
        play = Play(fd, count, random.Random(SEED))

        def run() -> None:
            try:
                asyncio.run(play.play())
            except BaseException as error:
                failures.append(error)

        if threads == 1:
            run()
        else:
            # The second has a file and views of its own, but lives at the same time.
            with slots_file(count) as other:
                second = Play(other, count, random.Random(SEED + 1))

                def run_second() -> None:
                    try:
                        asyncio.run(second.play())
                    except BaseException as error:
                        failures.append(error)

                thread = threading.Thread(target=run_second)
                thread.start()
                run()
                thread.join(LIMIT)
                assert not thread.is_alive()
                assert not failures, failures
                check(second)
        assert not failures, failures
        check(play)


def check(play: Play) -> None:
    """Once the last view is gone, each slot that was lent holds 1, and no other more than that."""
    play.held.clear()
    gc.collect()
    print(f"{play.next_slot} views")

    def all_back() -> bool:
        found = play.returned()
        return all(found[slot] for slot in play.lent)

    back = eventually(all_back)
    found = play.returned()
    missing = [slot for slot in play.lent if not found[slot]]
    assert back, f"{len(missing)} never came back, {missing[:20]}"
    assert Counter(found[slot] for slot in play.lent) == {1: len(play.lent)}
    rest = [slot for slot in found if slot not in play.lent]
    assert all(found[slot] in (0, 1) for slot in rest)
    assert set(rest) == play.doubtful - play.lent


class Fire:
    """Producers and consumers of all sorts on one queue, with cancelling and giving up."""

    def __init__(self, dice: random.Random, count: int) -> None:
        self.dice = dice
        self.count = count
        self.queue: Any = Queue(dice.choice([0, 1, 3, 50]))
        self.taken: list[list[Any]] = []
        self.failures: list[BaseException] = []

    def in_thread(self, function: Any, *args: Any) -> threading.Thread:
        def run() -> None:
            try:
                result = function(*args)
                if result is not None:
                    self.taken.append(result)
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    async def put(self, dice: random.Random, producer: Any) -> None:
        number = 0
        while number < self.count:
            item = (producer, number)
            match dice.randrange(3):
                case 0:
                    await self.queue.aput(item)
                case 1:
                    try:
                        self.queue.put_nowait(item)
                    except QueueFull:
                        await asyncio.sleep(0)
                        continue
                case _:
                    task = asyncio.create_task(self.queue.aput(item))
                    for _ in range(dice.randrange(4)):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                    if task.cancelled():
                        continue  # so it was not put
                    task.result()
            number += 1

    async def take(self, dice: random.Random) -> list[Any]:
        items: list[Any] = []
        while True:
            try:
                match dice.randrange(4):
                    case 0:
                        items.append(await self.queue.aget())
                    case 1:
                        items.append(self.queue.get_nowait())
                    case 2:
                        async with asyncio.timeout(dice.random() * 0.002):
                            items.append(await self.queue.aget())
                    case _:
                        task = asyncio.create_task(self.queue.aget())
                        for _ in range(dice.randrange(4)):
                            await asyncio.sleep(0)
                        task.cancel()
                        await asyncio.wait([task])
                        if not task.cancelled():
                            items.append(task.result())
            except QueueEmpty:
                await asyncio.sleep(0)
            except TimeoutError:
                pass
            except QueueShutDown:
                return items

    async def loop(self, seed: int, name: str, runner: Runner) -> None:
        dice = random.Random(seed)
        taking = [asyncio.create_task(self.take(random.Random(dice.random()))) for _ in range(2)]
        taking += [
            runner.submit(queues.random_taking, self.queue, dice.randrange(2**32)) for _ in range(1)
        ]
        self.started.wait(SOON)
        producing = [
            asyncio.create_task(self.put(random.Random(dice.random()), (name, n))) for n in range(2)
        ]
        producing += [
            runner.submit(
                queues.random_work, self.queue, dice.randrange(2**32), (name, "worker"), self.count
            )
        ]
        await asyncio.gather(*producing)
        with self.lock:
            self.producing -= 1
            last = not self.producing
        if last:
            for thread in self.producers:
                await asyncio.to_thread(thread.join)
            self.queue.shutdown()  # nothing more comes
        self.taken += await asyncio.gather(*taking)

    def play(self) -> None:
        self.started = threading.Event()
        self.lock = threading.Lock()
        self.producing = 2  # loops
        with Runner(workers=4).start() as runner:
            self.producers = [
                self.in_thread(self.produce, self.dice.randrange(2**32), ("thread", n))
                for n in range(2)
            ]
            threads = [
                self.in_thread(queues.random_taking, self.queue, self.dice.randrange(2**32)),
                *(
                    self.in_thread(asyncio.run, self.loop(self.dice.randrange(2**32), name, runner))
                    for name in ("one", "two")
                ),
            ]
            self.started.set()
            for thread in threads:
                thread.join(LIMIT)
                assert not thread.is_alive(), "somebody hangs"
        assert not self.failures, self.failures

    def produce(self, seed: int, producer: Any) -> None:
        queues.random_work(self.queue, seed, producer, self.count)

    def check(self) -> None:
        found = Counter(item for items in self.taken for item in items)
        producers = [(name, n) for name in ("one", "two", "thread") for n in (0, 1)]
        producers += [("one", "worker"), ("two", "worker")]
        assert found == Counter((who, n) for who in producers for n in range(self.count))


@pytest.mark.slow
@pytest.mark.timeout(LIMIT)
def test_each_item_of_a_queue_arrives_exactly_once() -> None:
    print(f"AIO_STRESS_SEED={SEED} AIO_STRESS_ITEMS={ITEMS}")
    dice = random.Random(SEED)
    with nothing_left():
        for _ in range(10):
            fire = Fire(dice, max(ITEMS // 80, 1))
            fire.play()
            fire.check()
