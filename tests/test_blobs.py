"""Large bytes, bytearrays and texts: equal on the other side, and let go by the sender."""

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import NotShareableError, Runner
from helpers.gate import Gate
from helpers.limits import SOON
from helpers.process import until
from helpers.programs import Program
from helpers.sameness import same
from workfns import blobs, classes, values, views

KIB, MIB = 2**10, 2**20
KINDS = ["bytes", "bytearray", *blobs.ALPHABETS]
SIZES = [
    *(size + d for size in (4 * KIB, 16 * KIB, 64 * KIB, 128 * KIB, MIB) for d in (-1, 0, 1)),
    4 * MIB,
]


def grows(data: bytearray) -> bool:
    try:
        data.append(1)
    except BufferError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
class TestThereAndBack:
    @pytest.mark.parametrize("size", SIZES)
    def test_a_large_value_comes_back_as_it_was(
        self, kind: str, size: int, call: Callable[..., Any]
    ) -> None:
        value = blobs.make(kind, size)
        assert call(blobs.digest, value) == blobs.digest(value)
        assert same(call(values.echo, value), value)
        assert same(call(blobs.make, kind, size), value)

    def test_it_does_so_inside_of_others(self, kind: str, call: Callable[..., Any]) -> None:
        value = blobs.make(kind, MIB)
        nested = {"a": [1, (value, {"b": value[:-1]})], "c": value[1:], "d": classes.Point(1)}
        assert same(call(values.echo, nested), nested)
        assert same(call(values.echo, value=[value]), [value])

    def test_many_in_one_value_keep_their_order(self, kind: str, call: Callable[..., Any]) -> None:
        expected = blobs.many(kind, 100 * KIB, 30)
        assert same(call(values.echo, expected), expected)
        assert same(call(blobs.many, kind, 100 * KIB, 30), expected)

    @pytest.mark.timeout(120)
    def test_a_hundred_megabytes(self, kind: str, call: Callable[..., Any]) -> None:
        size = 100_000_000 // (4 if kind == "four bytes" else 2 if kind == "two bytes" else 1)
        value = blobs.make(kind, size)
        got = call(values.echo, value)
        assert type(got) is type(value)
        assert got == value

    def test_the_caller_gets_a_copy_of_its_own(self, kind: str, call: Callable[..., Any]) -> None:
        value = blobs.make(kind, MIB)
        got = call(values.echo, value)
        assert got is not value
        if kind == "bytearray":
            got[0] ^= 255
            assert got != value
            got.append(0)  # and nobody holds it

    def test_it_outlives_its_runner(self, kind: str) -> None:
        async def main() -> Any:
            async with Runner(workers=1) as runner:
                return await runner.run(blobs.make, kind, 4 * MIB)

        got = asyncio.run(main())
        gc.collect()
        assert same(got, blobs.make(kind, 4 * MIB))

    def test_the_sender_lets_go_after_the_call(self, kind: str, runner: Runner) -> None:
        async def main() -> None:
            value = blobs.make(kind, 4 * MIB)
            before = sys.getrefcount(value)
            await runner.run(blobs.digest, value)
            await runner.run(views.nothing, [value, (value,)])
            assert await until(lambda: sys.getrefcount(value) <= before)
            queued = [runner.submit(blobs.digest, value) for _ in range(10)]
            for future in queued:
                future.cancel()
            del queued, future
            with pytest.raises(NotShareableError):
                await runner.run(values.everything, value, [value], threading.Lock())
            assert await until(lambda: gc.collect() >= 0 and sys.getrefcount(value) <= before)

        asyncio.run(main())

    def test_the_sender_may_drop_it_at_once(self, kind: str, gate: Gate) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                held = runner.submit(blobs.digest_after, *gate.fds, blobs.make(kind, MIB))
                await gate.reached()
                queued = [
                    runner.submit(blobs.digest, blobs.make(kind, MIB, seed)) for seed in range(1, 9)
                ]
                gc.collect()
                gate.open()
                assert await held == blobs.digest(blobs.make(kind, MIB))
                for seed, future in enumerate(queued, 1):
                    assert await future == blobs.digest(blobs.make(kind, MIB, seed))

        asyncio.run(main())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bytearray"])
@pytest.mark.parametrize("size", [64 * KIB, 4 * MIB])
class TestHashable:
    def test_as_keys_and_elements(self, kind: str, size: int, call: Callable[..., Any]) -> None:
        value, other = blobs.make(kind, size), blobs.make(kind, size, 3)
        for nested in ({value: 1, other: value}, {value, other}, frozenset({value, (other,)})):
            assert same(call(values.echo, nested), nested)

    def test_they_are_found_by_their_hash(
        self, kind: str, size: int, call: Callable[..., Any]
    ) -> None:
        value = blobs.make(kind, size)
        assert call(blobs.look_up, {value: "found"}, value) == "found"
        assert call(blobs.contains, {value}, value)
        assert call(values.echo, {value: "found"})[value] == "found"


class TestBytearrays:
    @pytest.mark.parametrize("size", [64 * KIB, MIB, 16 * MIB])
    def test_one_that_is_sent_can_be_resized_after_the_call(self, size: int, gate: Gate) -> None:
        """Before, it is as it was sent: either it can't be resized, or that changes nothing."""

        async def main() -> None:
            data = bytearray(size)
            async with Runner(workers=1) as runner, gate:
                runner.submit(blobs.digest_after, *gate.fds, b"")
                await gate.reached()
                queued = runner.submit(blobs.digest, data)
                try:
                    data.append(1)
                except BufferError:
                    pass
                else:
                    del data[-1]
                gate.open()
                assert await queued == blobs.digest(bytearray(size))
                assert await until(lambda: grows(data))

        asyncio.run(main())

    def test_one_that_is_sent_cannot_be_resized_in_flight(self, gate: Gate) -> None:
        async def main() -> None:
            data = bytearray(16 * MIB)
            async with Runner(workers=1) as runner, gate:
                runner.submit(blobs.digest_after, *gate.fds, b"")
                await gate.reached()
                queued = runner.submit(blobs.digest, [data])
                for change in (data.clear, lambda: data.extend(b"x")):
                    with pytest.raises(BufferError):
                        change()
                queued.cancel()
                assert await until(lambda: grows(data))
                gate.open()

        asyncio.run(main())

    def test_the_receivers_is_its_own_to_resize(self, call: Callable[..., Any]) -> None:
        data = bytearray(MIB)
        got = call(blobs.grow, data)
        assert got == bytes(MIB) + b"more"
        got.extend(b"!")
        assert data == bytes(MIB)

    def test_a_workers_can_be_resized_after_its_call(self, call: Callable[..., Any]) -> None:
        for _ in range(5):
            assert len(call(blobs.grow, call(values.echo, bytearray(MIB)))) == MIB + 4


class TestInterrupted:
    """Large results that arrive when nobody wants them any more."""

    def test_cancelling_as_a_large_result_arrives(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                for steps in range(60):
                    futures = [
                        runner.submit(blobs.make, kind, 2 * MIB) for kind in ("bytes", "ascii")
                    ]
                    tasks = [asyncio.create_task(runner.run(values.zeros, 2 * MIB))]
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    for each in (*futures, *tasks):
                        each.cancel()
                    if steps % 10 == 0:
                        assert await runner.run(values.square, 3) == 9
                assert await runner.run(values.zeros, MIB) == bytes(MIB)

        asyncio.run(main())

    def test_cancelling_in_the_very_callback_of_another(self, silent: Callable[[], None]) -> None:
        async def main() -> None:
            silent()
            async with Runner(workers=2) as runner:
                futures = [runner.submit(values.zeros, MIB) for _ in range(20)]
                for one, other in zip(futures, reversed(futures), strict=True):
                    one.add_done_callback(lambda _, other=other: other.cancel())
                await asyncio.wait(futures)
                assert await runner.run(values.zeros, MIB) == bytes(MIB)

        asyncio.run(main())

    @pytest.mark.parametrize("steps", [0, 1, 5, 50, 500])
    def test_the_loop_is_closed_as_large_results_arrive(self, steps: int) -> None:
        async def leave() -> None:
            for kind in KINDS:
                runner.submit(blobs.make, kind, 4 * MIB)
                runner.submit(values.echo, blobs.make(kind, MIB))
            for _ in range(steps):
                await asyncio.sleep(0)

        with Runner(workers=2).start() as runner:
            for _ in range(5):
                asyncio.run(leave())
            assert asyncio.run(runner.run(values.zeros, MIB)) == bytes(MIB)

    def test_the_loop_is_closed_by_another_thread_as_soon_as_it_may(self) -> None:
        with Runner(workers=2).start() as runner:
            failures: list[BaseException] = []

            def use() -> None:
                try:
                    for _ in range(10):
                        loop = asyncio.new_event_loop()
                        loop.run_until_complete(submit())
                        loop.close()
                except BaseException as error:
                    failures.append(error)

            async def submit() -> None:
                kept = [runner.submit(values.zeros, MIB) for _ in range(4)]
                await kept[0]

            threads = [threading.Thread(target=use) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
                assert not thread.is_alive()
            assert not failures

    def test_the_runner_is_closed_as_large_results_arrive(self) -> None:
        """Accepted work is done, and its results are whole."""

        async def main() -> None:
            async with Runner(workers=2) as runner:
                futures = [runner.submit(blobs.make, "bytes", 2 * MIB, n) for n in range(1, 20)]
            for n, future in enumerate(futures, 1):
                assert blobs.digest(await future) == blobs.digest(blobs.make("bytes", 2 * MIB, n))

        asyncio.run(main())

    @pytest.mark.parametrize("wait", ["aclose", "drain"])
    def test_afterwards_every_large_result_is_there(self, wait: str) -> None:
        """Also those that only had to be copied yet."""

        async def main() -> None:
            for _ in range(3):
                async with Runner(workers=2) as runner:
                    futures = [runner.submit(values.zeros, 20 * MIB) for _ in range(6)]
                    await getattr(runner, wait)()
                    assert all(future.done() for future in futures)
                    assert [len(future.result()) for future in futures] == [20 * MIB] * 6

        asyncio.run(main())

    def test_an_exception_leaves_the_block_as_large_results_arrive(self) -> None:
        async def main() -> None:
            for steps in range(0, 200, 20):
                with pytest.raises(LookupError):
                    async with Runner(workers=2) as runner:
                        futures = [runner.submit(blobs.make, "bytes", 2 * MIB) for _ in range(10)]
                        for _ in range(steps):
                            await asyncio.sleep(0)
                        raise LookupError
                for future in futures:
                    future.cancel()

        asyncio.run(main())

    def test_a_large_result_that_cannot_cross_as_a_whole(self, call: Callable[..., Any]) -> None:
        for _ in range(5):
            with pytest.raises(NotShareableError, match=r"result\[3\]"):
                call(blobs.large_and_unsendable, 4 * MIB)
        assert call(values.zeros, MIB) == bytes(MIB)

    @pytest.mark.parametrize("end", ["pass", "sys.exit(3)", "os._exit(3)", "raise LookupError"])
    def test_the_program_ends_as_large_results_arrive(self, end: str, program: Program) -> None:
        ended = program(f"""
            import asyncio, os, sys
            from aiointerpreters import Runner
            from workfns import values

            async def main():
                global runner
                runner = Runner(workers=2).start()
                data = bytearray(2_000_000)
                for _ in range(20):
                    runner.submit(values.zeros, 2_000_000)
                    runner.submit(values.echo, data)
                await runner.run(values.zeros, 2_000_000)
                {end}

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_ended({"pass": 0, "raise LookupError": 1}.get(end, 3))
