"""A Queue moves values between main, loops, threads and workers, first in, first out."""

import asyncio
import copy
import gc
import inspect
import itertools
import pickle
import queue as standard_queue
import signal
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aiointerpreters import (
    AioInterpretersError,
    NotShareableError,
    Queue,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
    Runner,
)
from helpers.gate import Gate, Signals
from helpers.limits import SOON
from helpers.process import LINUX, eventually, native_threads
from helpers.programs import Ended, Program
from helpers.sameness import same
from workfns import by_value, classes, pickled, queues, values, views


async def settle() -> None:
    """Let every callback that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def soon[T](awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(SOON):
        return await awaitable


class Thread:
    """A function in a thread, with its result."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(function, args), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self._outcome.append((function(*args), None))
        except BaseException as error:
            self._outcome.append((None, error))

    def result(self) -> Any:
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "the thread hangs"
        ((result, error),) = self._outcome
        if error is not None:
            raise error
        return result


def drained(queue: Any) -> list[Any]:
    items = []
    while True:
        try:
            items.append(queue.get_nowait())
        except (QueueEmpty, QueueShutDown):
            return items


class TestHere:
    """In one interpreter, it is as the standard library's queue."""

    def test_first_in_first_out(self) -> None:
        queue = Queue()
        for n in range(100):
            queue.put(n)
        assert [queue.get() for _ in range(100)] == list(range(100))

    def test_its_size_is_told(self) -> None:
        queue = Queue(maxsize=2)
        assert (queue.maxsize, queue.qsize(), queue.empty(), queue.full()) == (2, 0, True, False)
        queue.put(1)
        assert (queue.qsize(), queue.empty(), queue.full()) == (1, False, False)
        queue.put(2)
        assert (queue.qsize(), queue.empty(), queue.full()) == (2, False, True)

    @pytest.mark.parametrize("maxsize", [0, -1])
    def test_without_a_positive_maxsize_it_is_never_full(self, maxsize: int) -> None:
        queue = Queue(maxsize)
        for n in range(1_000):
            queue.put_nowait(n)
            assert not queue.full()

    def test_the_parameters_are_those_of_the_standard_library(self) -> None:
        assert Queue().maxsize == 0
        assert list(inspect.signature(Queue.put).parameters) == [
            "self",
            "item",
            "block",
            "timeout",
        ]
        assert list(inspect.signature(Queue.get).parameters) == ["self", "block", "timeout"]
        queue = Queue()
        queue.put(item=1, block=False, timeout=None)
        assert queue.get(block=False, timeout=None) == 1
        queue.put(2, True, 0)
        assert queue.get(True, 0) == 2
        queue.shutdown(immediate=False)

    def test_an_empty_queue_raises_empty(self) -> None:
        queue = Queue()
        for get in (
            queue.get_nowait,
            lambda: queue.get(block=False),
            lambda: queue.get(False),
            lambda: queue.get(timeout=0),
            lambda: queue.get(timeout=0.01),
        ):
            with pytest.raises(QueueEmpty):
                get()

    def test_a_full_queue_raises_full(self) -> None:
        queue = Queue(1)
        queue.put(1)
        for put in (
            lambda: queue.put_nowait(2),
            lambda: queue.put(2, block=False),
            lambda: queue.put(2, False),
            lambda: queue.put(2, timeout=0),
            lambda: queue.put(2, timeout=0.01),
        ):
            with pytest.raises(QueueFull):
                put()
        assert drained(queue) == [1]

    def test_a_negative_timeout_is_an_error(self) -> None:
        queue = Queue(1)
        with pytest.raises(ValueError, match="timeout"):
            queue.get(timeout=-1)
        with pytest.raises(ValueError, match="timeout"):
            queue.put(1, timeout=-0.5)
        assert queue.empty()
        queue.put(1)
        with pytest.raises(ValueError, match="timeout"):
            queue.put(1, timeout=-1)
        assert queue.get(block=False, timeout=-1) == 1  # not looked at, as in the standard library

    def test_timeouts_of_any_size(self) -> None:
        queue = Queue()
        thread = Thread(queue.get, True, 1e9)
        other = Thread(queue.get, True, threading.TIMEOUT_MAX)
        queue.put(1)
        queue.put(1)
        assert thread.result() == other.result() == 1

    def test_the_errors_are_those_that_users_would_catch(self) -> None:
        for ours, standard, asyncios in (
            (QueueEmpty, standard_queue.Empty, asyncio.QueueEmpty),
            (QueueFull, standard_queue.Full, asyncio.QueueFull),
            (QueueShutDown, standard_queue.ShutDown, asyncio.QueueShutDown),
        ):
            assert issubclass(ours, AioInterpretersError)
            assert issubclass(ours, standard)
            assert issubclass(ours, asyncios)

    def test_a_blocked_get_wakes_with_the_next_item(self) -> None:
        queue = Queue()
        threads = [Thread(queue.get) for _ in range(3)]
        for n in range(3):
            queue.put(n)
        assert sorted(thread.result() for thread in threads) == [0, 1, 2]

    def test_a_blocked_put_wakes_with_the_next_room(self) -> None:
        queue = Queue(1)
        queue.put("first")
        threads = [Thread(queue.put, n) for n in range(3)]
        assert queue.get() == "first"
        assert sorted(queue.get() for _ in range(3)) == [0, 1, 2]
        for thread in threads:
            thread.result()

    def test_an_item_is_a_copy_even_in_one_interpreter(self) -> None:
        """So that it makes no difference where the other end is."""
        item = [1, [2]]
        queue = Queue()
        queue.put(item)
        item.append(3)
        got = queue.get()
        assert got == [1, [2]]
        assert got is not item

    def test_it_says_what_it_is(self) -> None:
        assert "Queue" in repr(Queue(5))

    def test_different_queues_are_not_equal(self) -> None:
        one, other = Queue(), Queue()
        assert one != other
        assert one == one
        assert one != "queue"
        assert len({one, other}) == 2


class TestItems:
    @pytest.mark.parametrize(
        "item",
        [
            None,
            [1, {"a": (2.5, {b"x"})}],
            classes.Point(1),
            "x" * 1_000_000,
            bytes(1_000_000),
            bytearray(1_000_000),
            memoryview(b"abcdef")[::2],
            pickled.bundle(100_000).data,
            ValueError("as a value"),
        ],
        ids=lambda item: type(item).__name__,
    )
    def test_items_are_the_same_values_as_arguments(
        self, item: Any, call: Callable[..., Any]
    ) -> None:
        queue = Queue()
        queue.put(item)
        call(queues.pass_on, queue, queue, 1)
        assert same(queue.get(), item)

    def test_shared_references_and_circles_in_an_item(self) -> None:
        queue = Queue()
        queue.put(pickled.same_twice("list"))
        queue.put(pickled.circle("mixed"))
        assert pickled.are_one(queue.get())
        assert pickled.is_circle("mixed", queue.get())

    def test_a_lambda_in_an_item(self, call: Callable[..., Any]) -> None:
        queue = Queue()
        queue.put(by_value.adder(5))
        (function,) = call(queues.get, queue)
        assert function(6) == 11

    def test_a_worker_writes_to_the_view_in_an_item(self, call: Callable[..., Any]) -> None:
        queue = Queue()
        data = bytearray(10)
        queue.put(memoryview(data))
        assert call(queues.fill_view_of_item, queue, 7) == 10
        assert data == b"\7" * 10

    def test_an_item_that_cannot_be_sent_is_refused_in_the_putter_with_its_path(
        self, call: Callable[..., Any]
    ) -> None:
        queue = Queue(5)
        queue.put(1)
        for item, path in (
            (threading.Lock(), "item:"),
            ([0, {"k": threading.Lock()}], "item[1]['k']:"),
        ):
            for put in (queue.put, queue.put_nowait):
                with pytest.raises(NotShareableError) as caught:
                    put(item)
                assert str(caught.value).startswith(path)
                assert "lock" in str(caught.value)
            with pytest.raises(NotShareableError) as caught:
                asyncio.run(queue.aput(item))
            assert str(caught.value).startswith(path)
        with pytest.raises(NotShareableError, match=r"item\['key'\]\[1\]"):
            call(queues.put_unsendable, queue, 2)
        assert drained(queue) == [1, 2]
        queue.put(3)
        assert call(queues.get, queue) == [3]

    def test_an_item_that_cannot_be_rebuilt_fails_that_get_only(self) -> None:
        queue = Queue()
        for item in (1, classes.RaisesWhenRebuilt(), 2):
            queue.put(item)
        assert queue.get() == 1
        with pytest.raises((LookupError, NotShareableError), match="refuses to be rebuilt"):
            queue.get()
        assert queue.get() == 2
        assert queue.empty()

    def test_items_give_their_buffers_back(self, signals: Signals) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            queue = Queue()
            for _ in range(3):
                queue.put([memoryview(exporter)])
            assert exporter.returned == 0
            assert queue.get() == [b"abc"]
            await signals.arrive()
            queue.shutdown(immediate=True)
            await signals.arrive(2)
            with pytest.raises(NotShareableError):
                Queue().put([memoryview(exporter), threading.Lock()])
            gc.collect()
            await signals.arrive()
            assert exporter.lent == exporter.returned

        asyncio.run(main())

    def test_a_queue_that_is_collected_gives_its_items_buffers_back(self, signals: Signals) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                queue = Queue()
                queue.put(memoryview(views.Exporter(bytearray(b"abc"), signals.fd)))
                await runner.run(queues.put_lent, queue, b"abc", signals.fd, 2)
                assert queue.qsize() == 3
                assert not signals.any_came()
                del queue
                gc.collect()
                await signals.arrive(3)

        asyncio.run(main())

    def test_a_queue_in_a_queue_that_is_collected_too(self, signals: Signals) -> None:
        async def main() -> None:
            outer, inner = Queue(), Queue()
            inner.put(memoryview(views.Exporter(bytearray(b"abc"), signals.fd)))
            outer.put(inner)
            del inner
            gc.collect()
            assert not signals.any_came()
            del outer
            gc.collect()
            await signals.arrive()

        asyncio.run(main())

    def test_items_outlive_the_worker_that_put_them(self, signals: Signals) -> None:
        async def main() -> None:
            queue = Queue()
            async with Runner(workers=1) as runner:
                await runner.run(queues.put, queue, 1, "x" * 1_000_000, classes.Point(1))
                await runner.run(queues.put_lent, queue, b"abc", signals.fd)
            assert [queue.get() for _ in range(3)] == [1, "x" * 1_000_000, classes.Point(1)]
            view = queue.get()
            assert view == b"abc"
            assert not signals.any_came()
            del view
            await signals.arrive()

        asyncio.run(main())


class TestHandles:
    """A queue is passed by reference: each interpreter has a handle of the same one."""

    def test_a_worker_uses_the_callers_queue(self, call: Callable[..., Any]) -> None:
        queue = Queue(5)
        queue.put("from main")
        assert call(queues.facts, queue) == ("Queue", 5, 1, False, False)
        assert call(queues.move_item, queue) == "from main"
        assert queue.get() == "from the worker"

    def test_a_queue_that_a_worker_made(self, call: Callable[..., Any]) -> None:
        queue = call(queues.make, 3, "a", [1])
        assert type(queue) is Queue
        assert (queue.maxsize, queue.qsize()) == (3, 2)
        queue.put("c")
        with pytest.raises(QueueFull):
            queue.put_nowait("d")
        assert call(queues.get, queue, 3) == ["a", [1], "c"]

    def test_a_queue_outlives_the_worker_that_made_it(self) -> None:
        async def main() -> Any:
            async with Runner(workers=1) as runner:
                return await runner.run(queues.make, 3, "a", [1])

        queue = asyncio.run(main())
        assert [queue.get(), queue.get()] == ["a", [1]]
        queue.put(2)
        assert queue.get() == 2

    def test_in_containers_and_objects(self, call: Callable[..., Any]) -> None:
        queue = Queue()
        queue.put("item")
        assert call(queues.get_of_channel, queues.Channel(queue, "name")) == ("item", "name")
        got = call(values.echo, {"a": [queue, (queue,)], "b": queues.Channel(queue), queue: 1})
        for other in (got["a"][0], got["a"][1][0], got["b"].queue, *list(got)[2:]):
            assert type(other) is Queue
            assert other == queue

    def test_through_another_queue_and_through_itself(self, call: Callable[..., Any]) -> None:
        outer, inner = Queue(), Queue()
        outer.put({"reply to": inner})
        (got,) = call(queues.get, outer)
        got["reply to"].put(5)
        assert inner.get() == 5
        outer.put(outer)
        assert outer.get() == outer

    def test_two_handles_of_one_queue_are_equal(self, call: Callable[..., Any]) -> None:
        queue, other = Queue(), Queue()
        for got in (
            call(values.echo, queue),
            call(values.echo, [queue])[0],
            call(values.echo, queues.Channel(queue)).queue,
        ):
            assert got == queue
            assert not got != queue  # noqa: SIM202
            assert hash(got) == hash(queue)
            assert got in {queue}
            assert got != other

    def test_handles_in_a_worker_are_equal(self) -> None:
        async def main() -> None:
            queue, other = Queue(), Queue()
            async with Runner(workers=1) as runner:
                await runner.run(queues.keep, queue)
                assert await runner.run(queues.equal_to_kept, queue) == (True, True, True)
                assert (await runner.run(queues.equal_to_kept, other))[::2] == (False, False)

        asyncio.run(main())

    def test_the_sender_may_drop_its_own_at_once(self, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                runner.submit(views.hold, *gate.fds)
                await gate.reached()
                queue = Queue()
                queue.put("item")
                future = runner.submit(queues.get, queue)
                del queue
                gc.collect()
                gate.open()
                assert await future == ["item"]

        asyncio.run(main())

    def test_it_lives_as_long_as_a_worker_keeps_it(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                await runner.run(queues.keep, await runner.run(queues.make, 0, "item"))
                gc.collect()
                queue = await runner.run(queues.kept_queue)
                assert queue.get() == "item"

        asyncio.run(main())

    def test_a_worker_asks_and_another_answers(self) -> None:
        async def main() -> None:
            requests, replies = Queue(), Queue()
            async with Runner(workers=2) as runner:
                serving = runner.submit(queues.serve, requests)
                for n in range(10):
                    await requests.aput((replies, n))
                    assert await soon(replies.aget()) == n * n
                await requests.aput(None)
                assert await serving == 10

        asyncio.run(main())

    def test_the_errors_of_a_worker_are_raised_as_what_they_are(
        self, call: Callable[..., Any]
    ) -> None:
        queue = Queue(1)
        with pytest.raises(QueueEmpty):
            call(queues.get_nowait, queue)
        with pytest.raises(QueueEmpty):
            call(queues.get_timed, queue, 0.01)
        queue.put(1)
        with pytest.raises(QueueFull):
            call(queues.put_nowait, queue, 2)
        with pytest.raises(QueueFull):
            call(queues.put_timed, queue, 2, 0.01)
        with pytest.raises(ValueError, match="timeout"):
            call(queues.get_timed, queue, -1)
        queue.shutdown()
        with pytest.raises(QueueShutDown):
            call(queues.put, queue, 2)

    def test_the_errors_in_a_worker_are_those_of_the_standard_library(
        self, call: Callable[..., Any]
    ) -> None:
        assert call(queues.errors) == ["empty True", "full True", "shut down True"]


class TestBetween:
    """Producers and consumers of every sort."""

    def test_items_of_a_producer_keep_their_order(self) -> None:
        async def main() -> None:
            queue = Queue(7)
            async with Runner(workers=3) as runner:
                producing = [runner.submit(queues.put_numbers, queue, n, 500) for n in range(3)]
                threads = [Thread(queues.put_numbers, queue, n, 500) for n in range(3, 5)]
                got = [await soon(queue.aget()) for _ in range(2_500)]
                assert await asyncio.gather(*producing) == [500] * 3
                for thread in threads:
                    assert thread.result() == 500
            for producer in range(5):
                assert [n for who, n in got if who == producer] == list(range(500))

        asyncio.run(main())

    def test_each_item_arrives_once_with_consumers_everywhere(self) -> None:
        async def consume(queue: Any) -> list[Any]:
            items = []
            try:
                while True:
                    items.append(await soon(queue.aget()))
            except QueueShutDown:
                return items

        async def main() -> None:
            queue = Queue(10)
            async with Runner(workers=4) as runner:
                taking = [runner.submit(queues.take_all, queue) for _ in range(2)]
                threads = [Thread(queues.take_all, queue) for _ in range(2)]
                loops = [Thread(lambda: asyncio.run(consume(queue))) for _ in range(2)]
                tasks = [asyncio.create_task(consume(queue)) for _ in range(2)]
                producing = [runner.submit(queues.put_numbers, queue, n, 400) for n in range(2)]
                for n in range(400):
                    await queue.aput((2, n))
                await asyncio.gather(*producing)
                queue.shutdown()
                lists = [*await asyncio.gather(*taking), *await asyncio.gather(*tasks)]
                lists += [thread.result() for thread in threads + loops]
            items = [item for each in lists for item in each]
            assert sorted(items) == [(who, n) for who in range(3) for n in range(400)]
            for each in lists:  # and each consumer sees a producer's items in order
                for producer in range(3):
                    numbers = [n for who, n in each if who == producer]
                    assert numbers == sorted(numbers)

        asyncio.run(main())

    def test_several_loops_in_threads(self) -> None:
        there, back = Queue(1), Queue(1)

        async def answer() -> None:
            for _ in range(300):
                await back.aput(await soon(there.aget()) + 1)

        async def ask() -> None:
            for n in range(300):
                await there.aput(n)
                assert await soon(back.aget()) == n + 1

        threads = [Thread(lambda: asyncio.run(answer())), Thread(lambda: asyncio.run(ask()))]
        for thread in threads:
            thread.result()

    def test_a_loop_in_a_worker(self) -> None:
        async def main() -> None:
            there, back = Queue(1), Queue(1)
            async with Runner(workers=1) as runner:
                serving = runner.submit(queues.use_in_a_loop, there, back, 100)
                for n in range(100):
                    await there.aput(n)
                    assert await soon(back.aget()) == n
                assert await serving == 100

        asyncio.run(main())

    def test_a_bounded_queue_holds_a_fast_producer_back(self) -> None:
        async def main() -> None:
            queue = Queue(3)
            async with Runner(workers=1) as runner:
                producing = runner.submit(queues.put_numbers, queue, 0, 100)
                for n in range(100):
                    assert queue.qsize() <= 3
                    assert await soon(queue.aget()) == (0, n)
                assert await producing == 100

        asyncio.run(main())

    def test_large_items_in_a_bounded_queue(self) -> None:
        async def main() -> None:
            queue = Queue(2)
            async with Runner(workers=1) as runner:
                producing = runner.submit(queues.put_large, queue, 1_000_000, 30)
                for n in range(30):
                    assert await soon(queue.aget()) == (n, bytes([n]) * 1_000_000)
                await producing

        asyncio.run(main())

    def test_items_go_through_a_chain_of_workers(self) -> None:
        async def main() -> None:
            chain = [Queue(2) for _ in range(4)]
            async with Runner(workers=3) as runner:
                for source, target in itertools.pairwise(chain):
                    runner.submit(queues.pass_on, source, target, 200)
                putting = asyncio.create_task(asyncio.to_thread(queues.put, chain[0], *range(200)))
                assert [await soon(chain[-1].aget()) for _ in range(200)] == list(range(200))
                await putting

        asyncio.run(main())

    def test_waiting_does_not_block_the_loop(self) -> None:
        async def main() -> None:
            queue = Queue()
            getting = [asyncio.create_task(queue.aget()) for _ in range(10)]
            await settle()
            assert not any(task.done() for task in getting)
            for n in range(10):
                queue.put(n)
            assert await soon(asyncio.gather(*getting)) == list(range(10))

        asyncio.run(main())


class TestLoops:
    def test_getters_of_a_loop_are_served_in_their_order(self) -> None:
        async def main() -> None:
            queue = Queue()
            tasks = [asyncio.create_task(queue.aget()) for _ in range(5)]
            await settle()
            for n in range(5):
                queue.put_nowait(n)
            assert await soon(asyncio.gather(*tasks)) == [0, 1, 2, 3, 4]

        asyncio.run(main())

    def test_putters_of_a_loop_are_served_in_their_order(self) -> None:
        async def main() -> None:
            queue = Queue(1)
            tasks = [asyncio.create_task(queue.aput(n)) for n in range(5)]
            assert [await soon(queue.aget()) for _ in range(5)] == [0, 1, 2, 3, 4]
            await soon(asyncio.gather(*tasks))

        asyncio.run(main())

    def test_a_cancelled_aget_takes_nothing(self) -> None:
        async def main() -> None:
            queue = Queue()
            cancelled = asyncio.create_task(queue.aget())
            next_one = asyncio.create_task(queue.aget())
            await settle()
            cancelled.cancel()
            queue.put("item")
            assert await soon(next_one) == "item"
            assert cancelled.cancelled()

        asyncio.run(main())

    @pytest.mark.parametrize("steps", range(8))
    @pytest.mark.parametrize("waiting", [0, 1, 5])
    def test_an_aget_that_is_cancelled_as_its_item_comes_loses_nothing(
        self, steps: int, waiting: int
    ) -> None:
        """It returns the item, or the item goes to the next getter."""

        async def main() -> None:
            queue = Queue()
            first = asyncio.create_task(queue.aget())
            others = [asyncio.create_task(queue.aget()) for _ in range(waiting)]
            await settle()
            for n in range(waiting + 1):
                queue.put(n)
            for _ in range(steps):
                await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait([first])
            if first.cancelled():
                queue.put(waiting + 1)
            got = list(await soon(asyncio.gather(*others)))
            if not first.cancelled():
                got.append(first.result())
            got += [await soon(queue.aget()) for _ in range(waiting + 1 - len(got))]
            if first.cancelled():
                got.append(await soon(queue.aget()))
            assert sorted(got) == list(range(waiting + 1 + first.cancelled()))
            assert queue.empty()

        asyncio.run(main())

    def test_a_woken_getter_that_is_cancelled_wakes_the_next(self) -> None:
        async def main() -> None:
            queue = Queue()
            tasks = [asyncio.create_task(queue.aget()) for _ in range(10)]
            await settle()
            queue.put("item")
            for task in tasks[:-1]:
                task.cancel()
            done, _ = await asyncio.wait(tasks[:-1])
            got = [task.result() for task in done if not task.cancelled()]
            if not got:
                got = [await soon(tasks[-1])]
            tasks[-1].cancel()
            assert got == ["item"]

        asyncio.run(main())

    def test_a_cancelled_getter_leaves_the_item_to_a_blocked_thread(self) -> None:
        async def main() -> None:
            queue = Queue()
            task = asyncio.create_task(queue.aget())
            await settle()
            thread = Thread(queue.get)
            queue.put("item")
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                queue.put("other")
                assert task.result() in ("item", "other")
            await asyncio.to_thread(thread.result)

        asyncio.run(main())

    def test_timeouts_around_aget(self) -> None:
        async def main() -> None:
            queue = Queue()
            for _ in range(10):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.001):
                        await queue.aget()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(queue.aget(), 0.001)
            queue.put(1)
            queue.put(2)
            assert await asyncio.wait_for(queue.aget(), SOON) == 1
            assert await queue.aget() == 2

        asyncio.run(main())

    def test_items_of_a_worker_survive_any_number_of_cancellations(self) -> None:
        async def main() -> None:
            queue = Queue(5)
            got: list[Any] = []
            async with Runner(workers=1) as runner:
                producing = runner.submit(queues.put_numbers, queue, 0, 1_000)
                while len(got) < 1_000:
                    task = asyncio.create_task(queue.aget())
                    for _ in range(len(got) % 7):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task])
                    if not task.cancelled():
                        got.append(task.result())
                    else:
                        got.append(await soon(queue.aget()))
                await producing
            assert got == [(0, n) for n in range(1_000)]

        asyncio.run(main())

    def test_a_cancelled_aput_puts_nothing(self) -> None:
        async def main() -> None:
            queue = Queue(1)
            queue.put("first")
            task = asyncio.create_task(queue.aput("second"))
            third = asyncio.create_task(queue.aput("third"))
            await settle()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert await soon(queue.aget()) == "first"
            assert await soon(queue.aget()) == "third"
            await third
            assert queue.empty()

        asyncio.run(main())

    @pytest.mark.parametrize("steps", range(8))
    def test_an_aput_that_is_cancelled_as_room_comes_puts_once_or_not_at_all(
        self, steps: int
    ) -> None:
        async def main() -> None:
            queue = Queue(1)
            queue.put("first")
            task = asyncio.create_task(queue.aput("second"))
            third = asyncio.create_task(queue.aput("third"))
            await settle()
            assert queue.get_nowait() == "first"
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            got = []
            while "third" not in got:
                got.append(await soon(queue.aget()))
            await soon(third)
            assert got == (["third"] if task.cancelled() else ["second", "third"])
            assert queue.empty()

        asyncio.run(main())

    def test_a_cancelled_aput_gives_its_buffers_back(self, signals: Signals) -> None:
        async def main() -> None:
            queue = Queue(1)
            queue.put("first")
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            task = asyncio.create_task(queue.aput(memoryview(exporter)))
            await settle()
            task.cancel()
            await asyncio.wait([task])
            del task
            gc.collect()
            await signals.arrive()
            assert exporter.lent == exporter.returned == 1

        asyncio.run(main())

    def test_a_loop_that_is_closed_with_a_waiting_aget_takes_nothing(self) -> None:
        queue = Queue()
        loop = asyncio.new_event_loop()
        tasks = [loop.create_task(queue.aget()) for _ in range(3)]
        loop.run_until_complete(settle())
        loop.close()
        for n in range(3):
            queue.put(n)
        assert [queue.get(timeout=SOON) for _ in range(3)] == [0, 1, 2]
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_a_loop_that_is_closed_as_an_item_comes_loses_nothing(self) -> None:
        queue = Queue()
        loop = asyncio.new_event_loop()
        task = loop.create_task(queue.aget())
        loop.run_until_complete(settle())
        queue.put("item")  # the loop never gets to hear of it
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
        gc.collect()
        assert queue.get(timeout=SOON) == "item"

    def test_a_loop_that_is_closed_with_a_waiting_aput_puts_nothing(self) -> None:
        queue = Queue(1)
        queue.put("first")
        loop = asyncio.new_event_loop()
        task = loop.create_task(queue.aput("second"))
        loop.run_until_complete(settle())
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
        gc.collect()
        assert queue.get() == "first"
        queue.put("third", timeout=SOON)
        assert queue.get() == "third"
        assert queue.empty()

    def test_asyncio_run_cancels_what_waits_and_the_queue_goes_on(self) -> None:
        queue = Queue()

        async def leave() -> None:
            keep.extend(asyncio.create_task(queue.aget()) for _ in range(5))
            await settle()

        keep: list[Any] = []
        for _ in range(3):
            asyncio.run(leave())
        queue.put(1)
        assert queue.get(timeout=SOON) == 1
        assert asyncio.run(soon(self.put_and_get(queue))) == 2

    @staticmethod
    async def put_and_get(queue: Any) -> Any:
        await queue.aput(2)
        return await queue.aget()

    def test_aget_without_a_running_loop_is_just_a_coroutine(self) -> None:
        coroutine = Queue().aget()
        assert inspect.iscoroutine(coroutine) or isinstance(coroutine, Awaitable)
        coroutine.close()

    def test_in_uvloop(self) -> None:
        uvloop = pytest.importorskip("uvloop")

        async def main() -> None:
            queue = Queue(2)
            async with Runner(workers=1) as runner:
                producing = runner.submit(queues.put_numbers, queue, 0, 100)
                got = [await soon(queue.aget()) for _ in range(100)]
                assert got == [(0, n) for n in range(100)]
                await producing

        uvloop.run(main())


class TestShutDown:
    def test_what_is_there_can_still_be_got(self) -> None:
        queue = Queue()
        queue.put(1)
        queue.put(2)
        queue.shutdown()
        assert queue.get() == 1
        assert queue.get_nowait() == 2
        for get in (queue.get, queue.get_nowait, lambda: queue.get(timeout=SOON)):
            with pytest.raises(QueueShutDown):
                get()
        with pytest.raises(QueueShutDown):
            asyncio.run(queue.aget())

    def test_nothing_more_can_be_put(self, call: Callable[..., Any]) -> None:
        queue = Queue(1)
        queue.put(1)
        queue.shutdown()
        for put in (queue.put, queue.put_nowait, lambda item: queue.put(item, timeout=SOON)):
            with pytest.raises(QueueShutDown):
                put(2)
        with pytest.raises(QueueShutDown):
            asyncio.run(queue.aput(2))
        with pytest.raises(QueueShutDown):
            call(queues.put, queue, 2)
        assert queue.get() == 1

    def test_at_once_the_items_are_dropped(self) -> None:
        queue = Queue()
        queue.put(1)
        queue.shutdown(immediate=True)
        assert queue.empty()
        with pytest.raises(QueueShutDown):
            queue.get()

    def test_it_may_be_repeated_and_made_immediate(self) -> None:
        queue = Queue()
        queue.put(1)
        queue.shutdown()
        queue.shutdown()
        assert queue.qsize() == 1
        queue.shutdown(immediate=True)
        assert queue.qsize() == 0
        queue.shutdown()
        with pytest.raises(QueueShutDown):
            queue.get()

    @pytest.mark.parametrize("immediate", [False, True])
    def test_everyone_who_waits_wakes(self, immediate: bool, signals: Signals) -> None:
        async def main() -> None:
            empty, full = Queue(), Queue(1)
            full.put("first")
            async with Runner(workers=2) as runner:
                worker_calls = [
                    runner.submit(queues.how_it_ends, signals.fd, empty),
                    runner.submit(queues.how_a_put_ends, signals.fd, full),
                ]
                threads = [
                    Thread(queues.how_it_ends, signals.fd, empty),
                    Thread(queues.how_a_put_ends, signals.fd, full),
                ]
                tasks = [
                    asyncio.create_task(empty.aget()),
                    asyncio.create_task(full.aput("second")),
                ]
                await signals.arrive(4)
                await settle()
                empty.shutdown(immediate)
                full.shutdown(immediate)
                assert await asyncio.gather(*worker_calls) == ["QueueShutDown"] * 2
                assert [thread.result() for thread in threads] == ["QueueShutDown"] * 2
                for task in tasks:
                    with pytest.raises(QueueShutDown):
                        await soon(task)
            assert drained(full) == ([] if immediate else ["first"])

        asyncio.run(main())

    def test_a_worker_shuts_it_down_for_everyone(self, call: Callable[..., Any]) -> None:
        queue = Queue()
        thread = Thread(queues.take_all, queue)
        queue.put(1)
        call(queues.shut_down, queue)
        assert thread.result() == [1]

    def test_takers_end_when_all_is_taken(self) -> None:
        async def main() -> None:
            queue = Queue()
            async with Runner(workers=2) as runner:
                taking = [runner.submit(queues.take_all, queue) for _ in range(2)]
                for n in range(100):
                    queue.put(n)
                queue.shutdown()
                left, right = await asyncio.gather(*taking)
            assert sorted(left + right) == list(range(100))

        asyncio.run(main())


PREAMBLE = """
import asyncio, os, signal, sys, threading
from aiointerpreters import Queue, QueueEmpty, Runner
from workfns import queues, values, waiting

signal.signal(signal.SIGINT, signal.default_int_handler)
announced, announce = os.pipe()
empty, full = Queue(), Queue(1)
full.put("first")
"""


def interrupted(ended: Ended) -> None:
    ended.assert_ended(-signal.SIGINT)
    assert ended.err.rstrip().endswith("KeyboardInterrupt")


BLOCKED = {
    "get": "empty.get()",
    "get with timeout": "empty.get(timeout=1000)",
    "put": "full.put('second')",
    "put with timeout": "full.put('second', timeout=1000)",
}


class TestEnding:
    @pytest.mark.parametrize("how", BLOCKED)
    def test_ctrl_c_ends_a_blocked_call_in_main(self, how: str, program: Program) -> None:
        source = PREAMBLE + f'print("ready", flush=True)\n{BLOCKED[how]}\n'
        interrupted(program(source, interrupt=True))

    @pytest.mark.parametrize("how", BLOCKED)
    def test_a_program_that_catches_ctrl_c_uses_the_queue_further(
        self, how: str, program: Program
    ) -> None:
        source = PREAMBLE + textwrap.dedent(f"""
            try:
                print("ready", flush=True)
                {BLOCKED[how]}
            except KeyboardInterrupt:
                pass
            assert full.get() == "first"
            assert full.empty()
            empty.put(1)
            assert empty.get() == 1
            print("went on")
        """)
        ended = program(source, interrupt=True)
        ended.assert_fine()
        assert ended.out == "ready\nwent on\n"

    def test_signal_handlers_run_while_it_is_blocked(self, program: Program) -> None:
        """As for the standard library's queue: the call goes on afterwards."""
        source = PREAMBLE + textwrap.dedent("""
            signal.signal(signal.SIGINT, lambda *_: empty.put("from the handler"))
            print("ready", flush=True)
            print(empty.get())
        """)
        ended = program(source, interrupt=True)
        ended.assert_fine()
        assert ended.out == "ready\nfrom the handler\n"

    @pytest.mark.parametrize("how", ["get", "put"])
    @pytest.mark.parametrize("end", ["exception", "exit", "ctrl-c", "collected", "open"])
    def test_blocked_workers_end_with_their_runner(
        self, how: str, end: str, program: Program
    ) -> None:
        submit = {
            "get": "runner.submit(queues.announce_and_get, announce, empty)",
            "put": "runner.submit(queues.announce_and_put, announce, full, 2)",
        }[how]
        ending = {
            "exception": 'raise LookupError("in the block")',
            "exit": "sys.exit(3)",
            "ctrl-c": 'print("ready", flush=True); await asyncio.Event().wait()',
            "collected": "return",
            "open": "keep.append(runner); return",
        }[end]
        block = "if True:" if end in ("collected", "open") else "async with runner:"
        source = PREAMBLE + textwrap.dedent(f"""
            keep = []

            async def main():
                # Or asyncio might miss a Ctrl-C while it falls asleep.
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
                runner = Runner(workers=2).start()
                {block}
                    keep.extend([{submit} for _ in range(2)])
                    os.read(announced, 1)
                    os.read(announced, 1)
                    {ending}

            asyncio.run(main())
            keep.clear() if {end == "collected"} else None
        """)
        ended = program(source, interrupt=end == "ctrl-c", flags=["-W", "ignore::ResourceWarning"])
        if end == "ctrl-c":
            interrupted(ended)
        else:
            ended.assert_ended({"exception": 1, "exit": 3}.get(end, 0))

    @pytest.mark.parametrize("kind", ["daemon", "task", "loop in a daemon"])
    def test_the_program_ends_while_others_wait(self, kind: str, program: Program) -> None:
        wait = {
            "daemon": """
                def wait():
                    waiting.set()
                    empty.get()
                waiting = threading.Event()
                threading.Thread(target=wait, daemon=True).start()
                waiting.wait()
            """,
            "task": """
                async def main():
                    keep.append(asyncio.create_task(empty.aget()))
                    keep.append(asyncio.create_task(full.aput(2)))
                    await asyncio.sleep(0)
                keep = []
                asyncio.run(main())
            """,
            "loop in a daemon": """
                async def wait():
                    waiting.set()
                    await empty.aget()
                waiting = threading.Event()
                threading.Thread(target=lambda: asyncio.run(wait()), daemon=True).start()
                waiting.wait()
            """,
        }[kind]
        ended = program(PREAMBLE + textwrap.dedent(wait))
        assert ended.status == 0, ended.err
        assert "Fatal Python error" not in ended.err

    @pytest.mark.parametrize("runner", ["closed", "open"])
    def test_the_program_ends_with_items_in_its_queues(self, runner: str, program: Program) -> None:
        leave = "async with runner:" if runner == "closed" else "if True:"
        source = PREAMBLE + textwrap.dedent(f"""
            async def main():
                global runner
                runner = Runner(workers=1).start()
                {leave}
                    await runner.run(queues.put, empty, 1, "x" * 1_000_000, empty)
                    await runner.run(queues.put_lent, empty, b"abc", -1)
                    await runner.run(queues.keep, empty)
                    empty.put(memoryview(bytearray(5)))

            asyncio.run(main())
        """)
        program(source).assert_ended()

    @pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
    @pytest.mark.parametrize("how", ["its own", "the other's"])
    def test_no_worker_stays_for_items_in_a_queue_that_workers_keep(self, how: str) -> None:
        before = native_threads()

        async def main() -> None:
            async with Runner(workers=1) as first, Runner(workers=1) as second:
                if how == "its own":
                    await first.run(queues.keep_own, 100_000)
                    return
                for putter, keeper in ((first, second), (second, first)):
                    queue = Queue[Any]()
                    await putter.run(queues.put_views, queue, 1)
                    await keeper.run(queues.keep, queue)

        asyncio.run(main())
        gc.collect()
        assert eventually(lambda: native_threads() <= before)

    def test_a_worker_that_ends_may_put_items_of_any_size(self) -> None:
        items = [b"small", bytes(100_000), bytearray(100_000), "x" * 100_000, [1, bytes(40_000)]]

        async def main() -> None:
            queue = Queue[Any]()
            async with Runner(workers=1) as runner:
                await runner.run(queues.put_at_exit, queue, *items)
            assert [queue.get_nowait() for _ in items] == items

        asyncio.run(main())

    def test_a_long_chain_of_queues_in_queues_is_freed(self, program: Program) -> None:
        ended = program("""
            from aiointerpreters import Queue

            queue = Queue()
            for _ in range(300_000):
                outer = Queue()
                outer.put(queue)
                queue = outer
            del queue, outer
            print("freed")
        """)
        ended.assert_fine()
        assert ended.out == "freed\n"

    def test_a_queue_may_be_used_at_exit_after_everything_of_ours(self, program: Program) -> None:
        ended = program("""
            import atexit

            def late():
                queue.put([1, b"x" * 1_000_000])
                assert queue.get() == [1, b"x" * 1_000_000]
                print("late")

            atexit.register(late)
            import asyncio
            from aiointerpreters import Queue, Runner
            from workfns import queues

            queue = Queue()
            if __name__ == "__main__":
                with Runner(workers=1).start() as runner:
                    asyncio.run(runner.run(queues.keep, queue))
        """)
        ended.assert_fine()
        assert ended.out == "late\n"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="CPython 3.13 has no such queue")
class TestTheStandardLibrarysQueue:
    """A `concurrent.interpreters.Queue` crosses as itself."""

    @staticmethod
    def make() -> Any:
        from concurrent import interpreters

        return interpreters.create_queue()

    def test_as_an_argument_and_a_result(self, call: Callable[..., Any]) -> None:
        queue = self.make()
        queue.put("from main")
        assert call(queues.move_item, queue) == "from main"
        assert queue.get_nowait() == "from the worker"
        got = call(values.echo, queue)
        assert type(got) is type(queue)
        assert got.id == queue.id

    def test_in_containers_and_objects(self, call: Callable[..., Any]) -> None:
        queue = self.make()
        queue.put("item")
        assert call(queues.get_of_channel, queues.Channel(queue, "name")) == ("item", "name")
        got = call(values.echo, {"a": [queue, (queues.Channel(queue),)]})
        assert got["a"][0].id == got["a"][1][0].queue.id == queue.id

    def test_through_a_queue_of_ours(self, call: Callable[..., Any]) -> None:
        queue, ours = self.make(), Queue()
        ours.put(queue)
        (got,) = call(queues.get, ours)
        got.put(5)
        assert queue.get_nowait() == 5

    @pytest.mark.parametrize("wrap", [lambda q: q, queues.Channel], ids=["plain", "in an object"])
    def test_the_sender_may_drop_its_own_at_once(
        self, wrap: Callable[[Any], Any], gate: Gate
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                runner.submit(views.hold, *gate.fds)
                await gate.reached()
                queue = self.make()
                queue.put("item")
                function = queues.get_of_channel if wrap is queues.Channel else queues.move_item
                future = runner.submit(function, wrap(queue))
                del queue
                gc.collect()
                gate.open()
                got = await future
                assert got in ("item", ("item", ""))

        asyncio.run(main())

    def test_it_is_gone_when_nobody_has_it(self, call: Callable[..., Any]) -> None:
        from concurrent import interpreters

        queue = self.make()
        number = queue.id
        call(values.describe, queue)
        del queue
        gc.collect()

        def gone() -> bool:
            call(gc.collect)
            try:
                interpreters.Queue(number)
            except RuntimeError:  # its QueueNotFoundError
                return True
            return False

        assert eventually(gone)


class TestForReaders:
    def test_arguments_of_a_wrong_type_are_named(self) -> None:
        with pytest.raises(TypeError, match="maxsize must be an integer, not str"):
            Queue(maxsize="x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="timeout must be a number of seconds or None, not str"):
            Queue().get(timeout="x")  # type: ignore[arg-type]

    def test_its_signature_and_repr(self) -> None:
        assert str(inspect.signature(Queue)) == "(maxsize=0)"
        queue = Queue[int](3)
        queue.put_nowait(item=1)
        assert "maxsize=3 items=1" in repr(queue)

    def test_it_is_not_copied_and_no_subclass_is_sent(self, call: Callable[..., Any]) -> None:
        class Mine(Queue[int]):
            pass

        for copy_it in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="neither copied nor pickled"):
                copy_it(Queue())
        with pytest.raises(NotShareableError, match="no subclass"):
            call(values.echo, Mine())
