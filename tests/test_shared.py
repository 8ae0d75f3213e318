"""Shared(value): sent once, decoded once in each worker, and used in every call."""

import asyncio
import functools
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import NotShareableError, Queue, Runner, Shared
from helpers.gate import Gate, Signals
from helpers.process import LINUX, eventually, native_threads, until
from helpers.programs import Program
from workfns import by_value, classes, pickled, queues, shared, values, views

BIG = {f"word {n}": [n, str(n)] for n in range(1_000)}


class TestArguments:
    """The function receives the plain value."""

    @pytest.mark.parametrize(
        "value",
        [
            None,
            5,
            "text",
            (1, 2),
            [],
            {1: [2]},
            {3},
            bytes(1_000_000),
            bytearray(100),
            "x" * 1_000_000,
            classes.Point(1, 2),
            classes.Level.HIGH,
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_of_any_type(self, value: Any, call: Callable[..., Any]) -> None:
        assert call(values.describe, Shared(value)) == values.describe(value)
        assert call(values.echo, Shared(value)) == value
        assert type(call(values.echo, Shared(value))) is type(value)

    def test_by_position_and_by_keyword(self, call: Callable[..., Any]) -> None:
        lexicon = Shared(BIG)
        assert call(shared.look_up, lexicon, "word 77") == [77, "77"]
        assert call(shared.look_up, table=lexicon, key="word 78") == [78, "78"]

    def test_inside_of_containers_and_objects(self, call: Callable[..., Any]) -> None:
        lexicon = Shared([1, 2])
        args = ([lexicon], {"k": (lexicon,)}, shared.Holder(lexicon, "name"))
        got, _ = call(values.everything, *args)
        assert got == ([[1, 2]], {"k": ([1, 2],)}, shared.Holder([1, 2], "name"))
        nested = {"a": [shared.Holder({"b": lexicon})]}
        assert call(values.echo, nested) == {"a": [shared.Holder({"b": [1, 2]})]}

    def test_in_a_partial(self, call: Callable[..., Any]) -> None:
        assert call(functools.partial(shared.look_up, Shared(BIG)), "word 5") == [5, "5"]
        assert call(functools.partial(shared.look_up, table=Shared(BIG)), key="word 5") == [5, "5"]

    def test_several_at_once(self, call: Callable[..., Any]) -> None:
        one, other = Shared([1]), Shared([2])
        assert call(values.everything, one, other, k=one) == (([1], [2]), {"k": [1]})

    def test_by_submit_and_wrap(self, runner: Runner) -> None:
        async def main() -> None:
            lexicon = Shared(BIG)
            assert await runner.submit(shared.look_up, lexicon, "word 1") == [1, "1"]
            assert await runner.wrap(shared.look_up)(lexicon, "word 1") == [1, "1"]

        asyncio.run(main())

    def test_shared_references_and_circles_in_it(self, call: Callable[..., Any]) -> None:
        assert call(pickled.are_one, Shared(pickled.same_twice("list")))
        assert call(pickled.is_circle, "mixed", Shared(pickled.circle("mixed")))

    def test_a_queue_in_it(self, call: Callable[..., Any]) -> None:
        queue = Queue()
        queue.put("item")
        assert call(queues.get_of_channel, Shared(queues.Channel(queue, "n"))) == ("item", "n")

    def test_a_lambda_in_it(self, call: Callable[..., Any]) -> None:
        number = 5
        assert call(shared.apply, Shared(lambda n: n + number), 6) == 11

    def test_it_says_what_it_is(self) -> None:
        assert "Shared" in repr(Shared([1]))


class TestOnce:
    def test_later_calls_get_the_same_object(self) -> None:
        async def main() -> None:
            lexicon = Shared(shared.Lexicon([1]))
            async with Runner(workers=1) as runner:
                first = await runner.run(shared.identity, lexicon)
                for _ in range(5):
                    assert await runner.run(shared.identity, lexicon) == first
                found = await runner.run(
                    shared.identities,
                    lexicon,
                    [lexicon, {"k": (lexicon,)}],
                    shared.Holder(lexicon),
                    k=lexicon,
                )
                assert found == [first] * 5

        asyncio.run(main())

    def test_native_values_too(self) -> None:
        async def main() -> None:
            lexicon = Shared(BIG)
            async with Runner(workers=1) as runner:
                found = {await runner.run(shared.identity, lexicon) for _ in range(5)}
                assert len(found) == 1
                assert await runner.run(shared.is_same, lexicon, lexicon)

        asyncio.run(main())

    def test_it_is_decoded_once_in_each_worker(self, signals: Signals) -> None:
        async def main() -> None:
            mourned = Shared(shared.Mourned(signals.fd, "name"))
            async with Runner(workers=1) as runner:
                for _ in range(20):
                    assert await runner.run(shared.name_of, mourned) == "name"
                assert await runner.run(shared.nothing, [mourned], shared.Holder(mourned)) is None
                assert await signals.arrive() == b"m"
                assert not signals.any_came()
            async with Runner(workers=2) as runner:
                calls = (runner.run(shared.name_of, mourned) for _ in range(100))
                assert await asyncio.gather(*calls) == ["name"] * 100
                del mourned
                gc.collect()
                await runner.drain()
                rest = await signals.arrive()
                while signals.any_came():
                    rest += await signals.arrive()
                assert 1 <= rest.count(b"m") <= 2

        asyncio.run(main())

    def test_it_is_the_value_as_it_was_when_it_was_shared(self, call: Callable[..., Any]) -> None:
        value = [1]
        lexicon = Shared(value)
        value.append(2)
        assert call(values.echo, lexicon) == [1]

    def test_different_ones_are_kept_apart(self, runner: Runner) -> None:
        async def main() -> None:
            many = [Shared([n]) for n in range(100)]
            got = await asyncio.gather(*(runner.run(values.echo, each) for each in many * 2))
            assert got == [[n] for n in range(100)] * 2

        asyncio.run(main())

    def test_one_that_follows_one_that_is_gone(self, runner: Runner) -> None:
        """At the same address, or under the same number: it is another all the same."""

        async def main() -> None:
            for n in range(300):
                assert await runner.run(values.echo, Shared([n])) == [n]

        asyncio.run(main())


class TestBuffers:
    def test_buffers_in_it_are_not_copied(self) -> None:
        async def main() -> None:
            data = bytearray(1_000)
            lexicon = Shared({"view": memoryview(data)})
            async with Runner(workers=1) as first, Runner(workers=1) as second:
                await first.run(shared.fill, lexicon, 7)
                assert data == b"\7" * 1_000
                data[0] = 8
                assert (await second.run(shared.read, lexicon))[:2] == b"\x08\7"
                await second.run(shared.fill, lexicon, 9)
                assert await first.run(shared.read, lexicon) == b"\x09" * 1_000

        asyncio.run(main())

    def test_buffers_of_objects_in_it_are_not_copied(self, call: Callable[..., Any]) -> None:
        data = bytearray(100_000)
        lexicon = Shared(pickled.Buffer(data))
        call(pickled.write_buffer, lexicon, 1, 7)
        assert data[1] == 7

    def test_they_are_given_back_with_the_last_reference(self, signals: Signals) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            lexicon = Shared({"view": memoryview(exporter)})
            async with Runner(workers=2) as runner:
                for _ in range(10):
                    assert await runner.run(shared.read, lexicon) == b"abc"
                assert not signals.any_came()
                del lexicon
                await signals.arrive()
                assert exporter.lent == exporter.returned

        asyncio.run(main())

    def test_they_are_given_back_if_it_was_never_used(self, signals: Signals) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            lexicon = Shared({"view": memoryview(exporter)})
            assert not signals.any_came()
            del lexicon
            await signals.arrive()

        asyncio.run(main())


class TestDropped:
    """In the workers, when the last reference in main has gone and no call has it."""

    def test_an_idle_worker_drops_it_at_once(self, signals: Signals) -> None:
        async def main() -> None:
            mourned = Shared(shared.Mourned(signals.fd, "name"))
            async with Runner(workers=1) as runner:
                assert await runner.run(shared.name_of, mourned) == "name"
                assert await signals.arrive() == b"m"
                assert not signals.any_came()
                del mourned
                assert await signals.arrive() == b"g"

        asyncio.run(main())

    def test_not_before_the_last_reference_is_gone(self, signals: Signals) -> None:
        async def main() -> None:
            mourned = Shared(shared.Mourned(signals.fd, "name"))
            again = [mourned]
            async with Runner(workers=1) as runner:
                await runner.run(shared.name_of, mourned)
                del mourned
                gc.collect()
                assert await runner.run(shared.name_of, again[0]) == "name"
                assert await signals.arrive() == b"m"
                assert not signals.any_came()
                again.clear()
                assert await signals.arrive() == b"g"

        asyncio.run(main())

    def test_a_call_that_runs_keeps_it(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            mourned = Shared(shared.Mourned(signals.fd, "name"))
            async with Runner(workers=1) as runner, gate:
                running = runner.submit(shared.hold, *gate.fds, mourned)
                await gate.reached()
                del mourned
                gc.collect()
                assert await signals.arrive() == b"m"
                assert not signals.any_came()
                gate.open()
                assert await running == "name"
                assert await signals.arrive() == b"g"

        asyncio.run(main())

    def test_a_call_that_is_queued_keeps_it(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            mourned = Shared(shared.Mourned(signals.fd, "name"))
            async with Runner(workers=1) as runner, gate:
                runner.submit(views.hold, *gate.fds)
                await gate.reached()
                queued = [runner.submit(shared.name_of, mourned) for _ in range(5)]
                del mourned
                gc.collect()
                gate.open()
                assert await asyncio.gather(*queued) == ["name"] * 5
                assert await signals.arrive(2) == b"mg"

        asyncio.run(main())

    def test_a_cancelled_call_does_not_keep_it(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            lexicon = Shared({"view": memoryview(exporter)})
            async with Runner(workers=1) as runner, gate:
                runner.submit(views.hold, *gate.fds)
                await gate.reached()
                queued = runner.submit(shared.read, lexicon)
                del lexicon
                assert not signals.any_came()
                queued.cancel()
                await signals.arrive()
                gate.open()

        asyncio.run(main())

    def test_a_function_may_hold_on_to_the_value(self, signals: Signals) -> None:
        async def main() -> None:
            mourned = Shared(shared.Mourned(signals.fd, "name"))
            async with Runner(workers=1) as runner:
                await runner.run(views.keep, mourned)
                del mourned
                gc.collect()
                await runner.run(values.echo, 1)
                assert await signals.arrive() == b"m"
                assert not signals.any_came()
                await runner.run(views.drop_kept)
                assert await signals.arrive() == b"g"

        asyncio.run(main())

    def test_every_worker_that_had_it_drops_it(self, gate: Gate, signals: Signals) -> None:
        async def main() -> None:
            mourned = Shared(shared.Mourned(signals.fd, "name"))
            async with Runner(workers=3) as runner, gate:
                running = [runner.submit(shared.hold, *gate.fds, mourned) for _ in range(3)]
                await gate.reached(3)
                gate.open()
                assert await asyncio.gather(*running) == ["name"] * 3
                assert await signals.arrive(3) == b"mmm"
                del mourned
                assert await signals.arrive(3) == b"ggg"

        asyncio.run(main())


class TestRunners:
    def test_several_runners_use_it(self) -> None:
        async def main() -> None:
            lexicon = Shared(BIG)
            async with Runner(workers=1) as first, Runner(workers=2) as second:
                for runner in (first, second, first, second):
                    assert await runner.run(shared.look_up, lexicon, "word 3") == [3, "3"]

        asyncio.run(main())

    def test_it_survives_a_runner(self) -> None:
        async def main() -> None:
            lexicon = Shared(BIG)
            async with Runner(workers=1) as first:
                async with Runner(workers=1) as second:
                    for runner in (first, second):
                        assert await runner.run(shared.look_up, lexicon, "word 3") == [3, "3"]
                assert await first.run(shared.look_up, lexicon, "word 4") == [4, "4"]
            async with Runner(workers=1) as third:
                assert await third.run(shared.look_up, lexicon, "word 5") == [5, "5"]

        asyncio.run(main())

    def test_it_may_be_made_before_any_runner_and_dropped_after_all(self, signals: Signals) -> None:
        exporter = views.Exporter(bytearray(b"abc"), signals.fd)
        box = [Shared({"view": memoryview(exporter)})]

        async def main() -> None:
            for _ in range(3):
                async with Runner(workers=1) as runner:
                    assert await runner.run(shared.read, box[0]) == b"abc"
            assert not signals.any_came()

        asyncio.run(main())
        box.clear()
        signals.arrive_blocking()

    def test_from_several_loops_in_threads(self, runner: Runner) -> None:
        lexicon = Shared(BIG)
        failures: list[BaseException] = []

        async def use() -> None:
            for n in range(50):
                assert await runner.run(shared.look_up, lexicon, f"word {n}") == [n, str(n)]

        def run() -> None:
            try:
                asyncio.run(use())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "path"),
        [
            (threading.Lock(), "value:"),
            ([1, threading.Lock()], "value[1]:"),
            ({"key": [0, (threading.Lock(),)]}, "value['key'][1][0]:"),
            (views.released(), "value:"),
        ],
        ids=["plain", "list", "nested", "released view"],
    )
    def test_what_cannot_be_sent_is_refused_at_once_with_its_path(
        self, value: Any, path: str
    ) -> None:
        with pytest.raises(NotShareableError) as caught:
            Shared(value)
        assert str(caught.value).startswith(path)

    def test_what_it_held_is_given_back(self, signals: Signals) -> None:
        async def main() -> None:
            exporter = views.Exporter(bytearray(b"abc"), signals.fd)
            with pytest.raises(NotShareableError):
                Shared([memoryview(exporter), threading.Lock()])
            gc.collect()
            assert await until(lambda: exporter.lent == exporter.returned)

        asyncio.run(main())

    def test_what_cannot_be_rebuilt_fails_its_calls_only(self, runner: Runner) -> None:
        async def main() -> None:
            bad, good = Shared([classes.RaisesWhenRebuilt()]), Shared([1])
            for _ in range(3):
                with pytest.raises((LookupError, NotShareableError), match="refuses to be rebuilt"):
                    await runner.run(shared.nothing, bad)
                assert await runner.run(values.echo, good) == [1]

        asyncio.run(main())


@pytest.mark.skipif(not LINUX, reason="counts threads in /proc")
def test_a_worker_does_not_stay_for_one_of_its_own() -> None:
    before = native_threads()

    async def main() -> None:
        async with Runner(workers=1) as runner:
            await runner.run(shared.keep_own, 100_000)

    asyncio.run(main())
    assert eventually(lambda: native_threads() <= before)


def test_a_worker_that_ends_may_get_one_that_nobody_else_has(program: Program) -> None:
    """The C library fills what is freed at once, so that its use would not go unnoticed."""
    ended = program(
        """
        import asyncio
        from aiointerpreters import Queue, Runner, Shared
        from workfns import shared

        async def main():
            queue = Queue()
            for number in range(10):
                queue.put(Shared({"n": [number]}))
            async with Runner(workers=1) as runner:
                await runner.run(shared.get_at_exit, queue, 10)
            return queue

        for _ in range(10):
            assert asyncio.run(main()).empty()
        """,
        env={"GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0"},
    )
    ended.assert_fine()


class TestChains:
    """A shared value in a shared value, and so on."""

    def test_a_long_one_is_freed(self, program: Program) -> None:
        ended = program("""
            from aiointerpreters import Shared

            shared = Shared(0)
            for _ in range(300_000):
                shared = Shared(shared)
            del shared
            print("freed")
        """)
        ended.assert_fine()
        assert ended.out == "freed\n"

    def test_one_that_is_too_long_to_be_received_fails_its_call_only(
        self, program: Program
    ) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import NotShareableError, Runner, Shared
            from workfns import values

            async def main():
                shared = Shared(0)
                for _ in range(300_000):
                    shared = Shared(shared)
                async with Runner(workers=1) as runner:
                    try:
                        await runner.run(values.echo, shared)
                    except (NotShareableError, RecursionError):
                        print("refused")
                    assert await runner.run(values.square, 3) == 9

            asyncio.run(main())
        """)
        ended.assert_fine()
        assert ended.out == "refused\n"

    def test_a_short_one_arrives_as_what_is_in_it(self, call: Callable[..., Any]) -> None:
        chain = Shared([1])
        for _ in range(50):
            chain = Shared(chain)
        assert call(values.echo, chain) == [1]


@pytest.mark.parametrize("runner", ["closed", "open"])
@pytest.mark.parametrize("late", ["", "atexit.register(lambda: globals().pop('lexicon'))"])
def test_the_program_ends_with_one_that_is_still_shared(
    late: str, runner: str, program: Program
) -> None:
    leave = "async with runner:" if runner == "closed" else "if True:"
    ended = program(f"""
        import atexit
        {late}
        import asyncio
        from aiointerpreters import Runner, Shared
        from workfns import shared

        async def main():
            global runner, lexicon
            lexicon = Shared({{"view": memoryview(bytearray(10)), "n": [1]}})
            runner = Runner(workers=2).start()
            {leave}
                for _ in range(5):
                    await runner.run(shared.fill, lexicon, 7)

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    ended.assert_ended()


def test_a_lambda_may_be_called_with_one(call: Callable[..., Any]) -> None:
    assert call(by_value.apply, lambda table: table["word 3"], Shared(BIG)) == [3, "3"]
