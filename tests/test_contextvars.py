"""Context variables follow a call into its worker."""

import asyncio
import contextvars
import functools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aiointerpreters import NotShareableError, Runner, RunnerView
from helpers.programs import Program
from workfns import classes, context, worker
from workfns.context import request_id, user

here: contextvars.ContextVar[int] = contextvars.ContextVar("here")


@pytest.fixture(scope="module")
def following() -> Iterator[Runner]:
    """One worker, whose calls take `request_id` and `user` with them."""
    with Runner(workers=1, context=[request_id, user]).start() as runner:
        yield runner


class TestFollowing:
    def test_what_is_set_at_the_call_is_set_for_the_call(self, following: Runner) -> None:
        async def main() -> None:
            request_id.set("r1")
            user.set(("a", 1))
            assert await following.run(context.seen) == ("r1", ("a", 1))
            assert await following.wrap(context.seen)() == ("r1", ("a", 1))
            assert await following.submit(context.seen_deeply) == ("r1", ("a", 1))

        asyncio.run(main())

    def test_concurrent_calls_have_each_their_own(self, following: Runner) -> None:
        async def one(number: int) -> Any:
            request_id.set(number)
            future = following.submit(context.seen)
            request_id.set("later")
            return await future

        async def main() -> None:
            found = await asyncio.gather(*(one(number) for number in range(100)))
            assert found == [(number, "nobody") for number in range(100)]

        asyncio.run(main())

    def test_what_is_not_set_is_not_set_there(self, following: Runner) -> None:
        async def main() -> None:
            assert await following.run(context.seen) == ("unset", "nobody")
            user.set("somebody")
            assert await following.run(context.seen) == ("unset", "somebody")

        asyncio.run(main())

    def test_what_a_call_sets_is_gone_after_it(self, following: Runner) -> None:
        async def main() -> None:
            assert await following.run(context.change, "left behind") == "unset"
            assert await following.run(context.change, "again") == "unset"
            request_id.set("own")
            assert await following.run(context.change, "again") == "own"
            assert request_id.get() == "own"

        asyncio.run(main())

    def test_arguments_of_any_kind_arrive_beside_it(self, following: Runner) -> None:
        async def main() -> None:
            request_id.set("r2")
            names = {"pairs": 1, "function": 2, "args": 3, "kwargs": 4, "callable": 5, "self": 6}
            found = await following.run(context.seen_with, "a", **names)
            assert found == (("a",), names, ("r2", "nobody"))
            partial = functools.partial(context.seen_with, "a", b="b")
            assert await following.run(partial, "c") == (
                ("a", "c"),
                {"b": "b"},
                ("r2", "nobody"),
            )

        asyncio.run(main())

    def test_values_are_sent_as_arguments_are(self, following: Runner) -> None:
        async def main() -> None:
            data = bytearray(8)
            for value in ({"a": [1, b"x"]}, classes.Point(1, 2), "x" * 100_000, None):
                request_id.set(value)
                assert await following.run(context.seen) == (value, "nobody")
            request_id.set(memoryview(data))
            assert await following.run(context.seen_in_thread) == memoryview(data)

        asyncio.run(main())

    def test_threads_may_take_it_on(self, following: Runner) -> None:
        async def main() -> None:
            request_id.set("r3")
            assert await following.run(context.seen_in_thread) == "r3"

        asyncio.run(main())

    def test_an_exception_is_the_functions_own(self, following: Runner) -> None:
        async def main() -> None:
            request_id.set("r4")
            with pytest.raises(LookupError) as caught:
                await following.run(context.fail)
            assert caught.value.args == ("r4",)
            assert "in fail" in str(caught.value.__cause__)
            assert "in call" not in str(caught.value.__cause__)

        asyncio.run(main())

    def test_functions_that_travel_with_the_call_see_it(self, following: Runner) -> None:
        pytest.importorskip("cloudpickle")

        async def main() -> None:
            request_id.set("r5")
            assert await following.run(lambda: context.seen()[0]) == "r5"

        asyncio.run(main())

    def test_every_loop_and_thread_has_its_own(self, following: Runner) -> None:
        found: list[Any] = []

        def in_thread(number: int) -> None:
            async def main() -> Any:
                request_id.set(number)
                return await following.run(context.seen)

            found.append(asyncio.run(main()))

        threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [(number, "nobody") for number in range(4)]

    def test_what_an_initializer_set_stays_where_the_caller_has_nothing(self) -> None:
        async def main() -> None:
            async with Runner(
                workers=1,
                context=[request_id],
                initializer=context.set_in_worker,
                initargs=("by the initializer",),
            ) as runner:
                assert await runner.run(context.seen) == ("by the initializer", "nobody")
                request_id.set("by the caller")
                assert await runner.run(context.seen) == ("by the caller", "nobody")

        asyncio.run(main())

    def test_two_variables_may_have_the_same_name(self) -> None:
        async def main() -> None:
            variables = [user, context.same_name, user]
            async with Runner(workers=1, context=variables) as runner:
                user.set("first")
                context.same_name.set("second")
                assert await runner.run(context.all_seen) == ("unset", "first", "second")

        asyncio.run(main())

    def test_without_the_option_nothing_follows(self) -> None:
        async def main() -> None:
            async with Runner(workers=1) as runner:
                request_id.set("stays here")
                assert await runner.run(context.seen) == ("unset", "nobody")
                assert not await runner.run(worker.has_module, "aiointerpreters._context")

        asyncio.run(main())


class TestInAProcess:
    """Its coroutines run one after the other in the same event loop."""

    @pytest.fixture
    def in_one_process(self) -> Iterator[RunnerView]:
        options: Any = {"context": [request_id, user]}
        steps = {"initializer": context.set_user_in_worker, "initargs": ("by the initializer",)}
        with Runner(workers=1, **options, **steps).start() as runner:
            yield runner.options(where="process")

    def test_a_coroutine_sees_nothing_of_those_before_it(self, in_one_process: RunnerView) -> None:
        async def with_request() -> None:
            request_id.set("of the first")
            user.set("the first")
            seen = await in_one_process.run(context.seen_in_coroutine)
            assert seen == ("of the first", "the first")
            stream = in_one_process.stream(context.stream_of_seen, 1)
            assert [item async for item in stream] == [("of the first", "the first")]
            assert await in_one_process.run(context.change_in_coroutine, "left") == "of the first"

        async def main() -> None:
            await asyncio.create_task(with_request())  # which has a context of its own
            expected = ("unset", "by the initializer")
            assert await in_one_process.run(context.seen_in_coroutine) == expected
            stream = in_one_process.stream(context.stream_of_seen, 1)
            assert [item async for item in stream] == [expected]
            assert await in_one_process.run(context.seen) == expected

        asyncio.run(main())


class TestRefused:
    def test_a_value_that_cannot_be_sent_is_refused_at_the_call(self, following: Runner) -> None:
        async def main() -> None:
            with socket.socket() as unsendable:
                request_id.set({"peer": [unsendable]})
                with pytest.raises(NotShareableError) as caught:
                    following.submit(context.seen)
                assert str(caught.value).startswith("context['request_id']['peer'][0]: socket")
            request_id.set("fine")
            assert await following.run(context.seen) == ("fine", "nobody")

        asyncio.run(main())

    def test_a_value_that_cannot_be_rebuilt_fails_the_call(self, following: Runner) -> None:
        async def main() -> None:
            request_id.set(classes.RaisesWhenRebuilt())
            with pytest.raises(LookupError, match="refuses to be rebuilt"):
                await following.run(context.seen)
            request_id.set("fine")
            assert await following.run(context.seen) == ("fine", "nobody")

        asyncio.run(main())

    def test_a_variable_that_no_module_holds_is_refused(self) -> None:
        local: contextvars.ContextVar[int] = contextvars.ContextVar("local")
        with pytest.raises(ValueError, match=r"'local'.* at the top level of a module"):
            Runner(context=[local])

    @pytest.mark.parametrize("wrong", ["request_id", 3, None])
    def test_what_is_no_variable_is_refused(self, wrong: Any) -> None:
        with pytest.raises(TypeError, match="context must be context variables"):
            Runner(context=[wrong])

    def test_what_is_no_collection_is_refused(self) -> None:
        with pytest.raises(TypeError):
            Runner(context=request_id)  # type: ignore[arg-type]


class TestMainScript:
    def test_a_variable_of_the_main_script_is_found(self, program: Program) -> None:
        ended = program("""
            import asyncio, contextvars
            from aiointerpreters import Runner

            here = contextvars.ContextVar("here")

            def seen():
                return here.get()

            async def main():
                here.set("in the script")
                async with Runner(workers=1, context=[here]) as runner:
                    print(await runner.run(seen))

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_fine()
        assert ended.out == "in the script\n"

    def test_it_is_not_loaded_for_what_it_has_imported(self, program: Program) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner
            from workfns import context, worker
            from workfns.context import request_id

            async def main():
                request_id.set("r6")
                async with Runner(workers=1, context=[request_id]) as runner:
                    print(await runner.run(context.seen))
                    print(await runner.run(worker.has_module, "__mp_main__"))

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_fine()
        assert ended.out == "('r6', 'nobody')\nFalse\n"

    def test_one_of_a_program_without_a_file_is_refused(self, program: Program) -> None:
        code = (
            "import contextvars; from aiointerpreters import Runner\n"
            "here = contextvars.ContextVar('here')\n"
            "try:\n    Runner(context=[here])\nexcept ValueError as error:\n    print(error)\n"
        )
        ended = program(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])")
        ended.assert_fine()
        assert "'here' is defined in __main__, which has no file" in ended.out
