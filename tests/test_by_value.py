"""Lambdas, closures and what a REPL defines cross by value, where cloudpickle is installed."""

import asyncio
import copyreg
import functools
import gc
import textwrap
import types
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import cloudpickle
import pytest

from aiointerpreters import NotShareableError, Runner, RunnerError
from helpers import programs
from helpers.gate import Gate, Trace
from helpers.process import until
from helpers.programs import Program
from workfns import by_value, values, waiting

factor = 2


class TestFunctions:
    def test_a_lambda(self, call: Callable[..., Any]) -> None:
        assert call(lambda x: x + 1, 2) == 3
        assert call(lambda *args, **kwargs: (args, kwargs), 1, [2], three=3) == (
            (1, [2]),
            {"three": 3},
        )

    def test_a_closure(self, call: Callable[..., Any]) -> None:
        number = 5
        assert call(lambda x: x + number, 2) == 7

    def test_functions_within_functions(self, call: Callable[..., Any]) -> None:
        outer = by_value.nested(1)
        assert call(outer(10), 100) == 111
        assert call(outer, 10)(100) == 111

    def test_a_closure_that_calls_itself(self, call: Callable[..., Any]) -> None:
        assert call(by_value.factorial(), 10) == 3_628_800

    def test_closures_that_call_each_other(self, call: Callable[..., Any]) -> None:
        def even(n: int) -> bool:
            return n == 0 or odd(n - 1)

        def odd(n: int) -> bool:
            return n != 0 and even(n - 1)

        assert call(even, 10)
        assert not call(odd, 10)

    def test_defaults_and_keyword_defaults(self, call: Callable[..., Any]) -> None:
        assert call(lambda x=[1, 2], *, y={"k": (3,)}: (x, y)) == ([1, 2], {"k": (3,)})

    def test_a_function_that_is_no_longer_found_by_its_name(self, call: Callable[..., Any]) -> None:
        assert call(values.original_shadowed) == "the one that was meant"
        assert call(values.echo, values.original_shadowed)() == "the one that was meant"

    def test_partials_and_wrappers(self, call: Callable[..., Any]) -> None:
        assert call(functools.partial(lambda a, b, c=0: (a, b, c), 1, c=3), 2) == (1, 2, 3)
        assert call(values.doubled(lambda n: n + 1), 2) == 6

    def test_wrap_and_submit_take_them(self, runner: Runner) -> None:
        async def main() -> None:
            assert await runner.wrap(lambda x: x + 1)(2) == 3
            assert await runner.submit(lambda x: x + 1, 2) == 3

        asyncio.run(main())

    def test_modules_and_importable_functions_are_referred_to_by_name(
        self, call: Callable[..., Any]
    ) -> None:
        def use_modules() -> Any:
            import math

            return math.floor(2.5), values.square(3), by_value.times_rebuilt

        floor, square, function = call(use_modules)
        assert (floor, square) == (2, 9)
        assert function is by_value.times_rebuilt

    def test_what_it_raises_is_raised(self, call: Callable[..., Any]) -> None:
        with pytest.raises(LookupError, match="from a closure"):
            call(by_value.raising())

    def test_a_buffer_in_a_closure_is_the_callers_own(self, call: Callable[..., Any]) -> None:
        data = bytearray(1_000)
        view = memoryview(data)

        def write() -> None:
            view[0] = 7

        call(write)
        assert data[0] == 7

    def test_a_large_closure(self, call: Callable[..., Any]) -> None:
        table = {n: str(n) * 10 for n in range(10_000)}
        data = bytes(1_000_000)
        assert call(lambda n: (table[n], len(data)), 77) == ("77" * 10, 1_000_000)

    def test_a_closure_over_what_cannot_be_sent_is_refused(self, call: Callable[..., Any]) -> None:
        generator = (n for n in ())
        with pytest.raises(RunnerError, match="generator"):
            call(lambda: generator)
        with pytest.raises(NotShareableError, match=r"args\[0\]\[1\].*"):
            call(values.echo, [1, lambda: generator])
        assert call(lambda: 1) == 1

    def test_asynchronous_generator_functions_are_refused_all_the_same(
        self, call: Callable[..., Any]
    ) -> None:
        async def generator_function() -> AsyncIterator[int]:
            yield 1

        with pytest.raises(RunnerError, match=r"generator_function.*stream"):
            call(generator_function)

    def test_an_initializer(self) -> None:
        number = 5

        def prepare(other: int) -> None:
            by_value.kept.append(number + other)

        async def main() -> None:
            async with Runner(workers=1, initializer=prepare, initargs=(2,)) as runner:
                assert await runner.run(lambda: by_value.kept) == [7]

        asyncio.run(main())


class TestValues:
    def test_lambdas_are_arguments(self, call: Callable[..., Any]) -> None:
        number = 3
        assert call(by_value.apply, lambda x: x + number, 2) == 5
        nested = [lambda n: n + 1, lambda n: n * 10, by_value.adder(5)]
        assert call(by_value.apply_all, nested, 1) == 25
        assert call(by_value.apply_all, functions=tuple(nested), value=2) == 35

    def test_lambdas_are_results(self, call: Callable[..., Any]) -> None:
        assert call(by_value.adder, 5)(6) == 11
        got = call(by_value.lambdas)
        assert (got["double"](4), got["both"][0](4), got["both"][1][0](4)) == (8, 5, 6)
        assert call(lambda: lambda n: n + 1)(1) == 2

    def test_an_instance_of_a_local_class_arrives(self, call: Callable[..., Any]) -> None:
        kind = by_value.a_class()
        assert call(by_value.kind_and_number, kind(5)) == ("Local", 5)
        assert call(lambda: kind(5).plus(2).number) == 7

    def test_its_result_is_of_the_callers_own_class(self, call: Callable[..., Any]) -> None:
        kind = by_value.a_class()
        for _ in range(3):
            assert type(call(values.echo, kind(5))) is kind
            assert type(call(by_value.plus, kind(5), 2)) is kind
            assert call(by_value.plus, kind(5), 2) == kind(7)
            assert call(values.echo, kind) is kind
            assert call(values.echo, {kind(1): [kind(2)]}) == {kind(1): [kind(2)]}

    def test_a_local_class_is_one_class_in_a_worker(self) -> None:
        async def main() -> None:
            kind = by_value.a_class()
            async with Runner(workers=1) as runner:
                assert await runner.run(by_value.same_kind, kind(1), kind(2))
                for n in range(3):
                    assert await runner.run(by_value.keep_kind_of, kind(n)) == 1
                assert await runner.run(by_value.keep_kind_of, by_value.a_class()(1)) == 2

        asyncio.run(main())

    def test_a_class_of_a_worker_arrives_with_its_instance(self, call: Callable[..., Any]) -> None:
        got = call(by_value.instance_of_a_class)
        assert by_value.kind_and_number(got) == ("Local", 5)
        assert got.plus(1).number == 6


class TestNeverStale:
    def test_a_closure_over_a_variable_that_changes(self, runner: Runner) -> None:
        async def main() -> None:
            number = 0

            def current() -> int:
                return number

            for number in range(20):
                assert await runner.run(current) == number

        asyncio.run(main())

    def test_a_closure_over_something_that_is_changed_in_place(self, runner: Runner) -> None:
        async def main() -> None:
            items: list[Any] = []
            table: dict[str, Any] = {"deep": [items]}

            def count() -> tuple[int, int]:
                return len(items), len(table["deep"][0])

            for n in range(10):
                assert await runner.run(count) == (n, n)
                items.append(n)

        asyncio.run(main())

    def test_a_function_whose_globals_change(self, runner: Runner) -> None:
        async def main() -> None:
            global factor
            try:
                for factor in range(5):
                    assert await runner.run(lambda n: n * factor, 10) == factor * 10  # noqa: B023
            finally:
                factor = 2

        asyncio.run(main())

    def test_defaults_that_change(self, runner: Runner) -> None:
        async def main() -> None:
            box = [0]

            def unbox(box: list[int] = box) -> int:
                return box[0]

            for box[0] in range(5):
                assert await runner.run(unbox) == box[0]
            unbox.__defaults__ = ([77],)
            assert await runner.run(unbox) == 77

        asyncio.run(main())

    def test_a_function_whose_code_is_replaced(self, runner: Runner) -> None:
        async def main() -> None:
            def function() -> str:
                return "old"

            def other() -> str:
                return "new"

            assert await runner.run(function) == "old"
            function.__code__ = other.__code__
            assert await runner.run(function) == "new"

        asyncio.run(main())

    def test_a_closure_over_another_that_changes(self, runner: Runner) -> None:
        async def main() -> None:
            def inner() -> str:
                return "old"

            def outer() -> str:
                return inner()

            assert await runner.run(outer) == "old"

            def inner() -> str:  # noqa: F811
                return "new"

            assert await runner.run(outer) == "new"

        asyncio.run(main())

    def test_lambdas_that_look_alike(self, runner: Runner) -> None:
        async def main() -> None:
            functions = [lambda n=n: n for n in range(50)]
            functions += [(lambda m: lambda: m)(n) for n in range(50)]
            functions += [lambda: 1, lambda: True, lambda: 1.0, lambda: "1"]
            got = [await runner.run(function) for function in functions]
            expected = [*range(50), *range(50), 1, True, 1.0, "1"]
            assert list(map(repr, got)) == list(map(repr, expected))

        asyncio.run(main())

    def test_a_lambda_at_the_address_of_one_that_is_gone(self, runner: Runner) -> None:
        async def main() -> None:
            for n in range(300):
                assert await runner.run(eval(f"lambda: {n}")) == n

        asyncio.run(main())

    def test_a_call_has_the_variable_as_it_was_when_it_was_made(self, gate: Gate) -> None:
        async def main() -> None:
            number = 1
            async with Runner(workers=1) as runner, gate:
                runner.submit(waiting.wait_at, *gate.fds)
                await gate.reached()
                futures = []
                for number in range(10):
                    futures.append(runner.submit(lambda: number))  # noqa: B023
                gate.open()
                assert await asyncio.gather(*futures) == list(range(10))

        asyncio.run(main())


class TestKeptInTheWorker:
    def test_a_function_is_sent_once_and_stays_the_same_object(self) -> None:
        def own_id(_: int) -> int:
            return id(own_id)

        async def main() -> None:
            async with Runner(workers=1) as runner:
                found = [await runner.run(own_id, n) for n in range(20)]
                found += await asyncio.gather(*(runner.submit(own_id, n) for n in range(100)))
                assert len(set(found)) == 1

        asyncio.run(main())

    def test_equal_lambdas_are_one_function_there(self) -> None:
        async def main() -> None:
            def make() -> Any:
                def own_id() -> int:
                    return id(own_id)

                return own_id

            async with Runner(workers=1) as runner:
                assert len({await runner.run(make()) for _ in range(20)}) == 1

        asyncio.run(main())

    def test_what_can_change_in_place_is_rebuilt_for_every_call(self, trace: Trace) -> None:
        async def main() -> None:
            marking = by_value.Marking(trace.fd, "name")
            function = lambda n, m=marking: (m.name, n)  # noqa: E731
            async with Runner(workers=1) as runner:
                calls = [runner.submit(function, n) for n in range(100)]
                assert await asyncio.gather(*calls) == [("name", n) for n in range(100)]
                assert trace.marks() == b"." * 100

        asyncio.run(main())

    def test_no_call_sees_what_another_has_changed(self, runner: Runner) -> None:
        async def main() -> None:
            count = [0]

            def step() -> int:
                count[0] += 1
                return count[0]

            assert [await runner.run(step) for _ in range(5)] == [1] * 5
            count[0] = 5
            assert [await runner.run(step) for _ in range(5)] == [6] * 5

        asyncio.run(main())

    def test_a_function_that_refers_to_itself_is_forgotten_when_it_is_gone(
        self, call: Callable[..., Any]
    ) -> None:
        def make() -> Any:
            def again(n: int) -> int:
                return n and again(n - 1)

            return again

        function = make()
        assert call(function, 3) == 0
        gone = weakref.ref(function)
        del function
        gc.collect()
        assert gone() is None

    def test_what_is_dropped_meanwhile_may_send_another(self, runner: Runner) -> None:
        """An exporter's end runs code of its own: nothing of ours may be locked then."""

        class Sender(bytearray):
            def __del__(self) -> None:
                sent.append(runner.submit(lambda: 1))

        sent: list[Any] = []

        async def main() -> None:
            async with Runner(workers=1) as other:  # which keeps nothing when it has ended
                for _ in range(10):
                    view = memoryview(Sender(b"abc"))
                    assert await other.run(lambda view=view: view[0]) == 97
                    del view
            for number in range(300):  # more than are kept
                await runner.run(by_value.make_lambda(number))
            assert await asyncio.gather(*sent) == [1] * len(sent)

        asyncio.run(main())


class TestChangesInMemory:
    def test_a_bytearray_that_is_changed(self, runner: Runner) -> None:
        async def main() -> None:
            for size in (10, 100_000):
                data = bytearray(size)
                function = lambda data=data: data[0]  # noqa: E731
                assert await runner.run(function) == 0
                data[0] = 7
                assert await runner.run(function) == 7
                data.append(1)  # nothing of it is held any more

        asyncio.run(main())

    def test_a_view_is_given_back_after_the_call(self, runner: Runner) -> None:
        async def main() -> None:
            data = bytearray(b"abc")
            view = memoryview(data)
            assert await runner.run(lambda: bytes(view)) == b"abc"
            view.release()
            gc.collect()
            assert await until(lambda: resizes(data))

        asyncio.run(main())

    def test_the_names_of_keyword_defaults(self, call: Callable[..., Any]) -> None:
        def function(*, a: int = 1, b: int = 2) -> tuple[int, int]:
            return a, b

        assert call(function) == (1, 2)
        function.__kwdefaults__ = {"b": 1, "a": 2}
        assert call(function) == (2, 1)

    def test_a_module_that_nobody_can_import(self, call: Callable[..., Any]) -> None:
        module = types.ModuleType("made_up")
        module.value = 1  # type: ignore[attr-defined]
        function = lambda: module.value  # noqa: E731
        assert call(function) == 1
        module.value = 2  # type: ignore[attr-defined]
        assert call(function) == 2

    def test_a_module_that_is_sent_by_value(
        self, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        get = by_value.get_setting
        function = lambda: get()  # noqa: E731
        cloudpickle.register_pickle_by_value(by_value)
        try:
            assert call(function) == 1
            monkeypatch.setattr(by_value, "setting", 2)
            assert call(function) == 2
        finally:
            cloudpickle.unregister_pickle_by_value(by_value)

    def test_reducers_that_are_registered_later_count(self, call: Callable[..., Any]) -> None:
        function = lambda: by_value.Reduced().origin  # noqa: E731
        assert call(function) == "itself"
        reduced = by_value.Reduced()
        copyreg.pickle(by_value.Reduced, by_value.reduce_to_copyreg)
        try:
            assert call(lambda: reduced.origin) == "copyreg"
        finally:
            del copyreg.dispatch_table[by_value.Reduced]


def resizes(data: bytearray) -> bool:
    try:
        data.append(0)
    except BufferError:
        return False
    return True


WITHOUT = """
import sys
sys.modules["cloudpickle"] = None
import asyncio
from aiointerpreters import NotShareableError, Runner, RunnerError
from workfns import by_value, values

def outer():
    def inner():
        return 1
    return inner

async def main():
    async with Runner(workers=1) as runner:
        for function in (lambda: 1, outer()):
            for make in (runner.run, runner.submit):
                try:
                    await make(function)
                except RunnerError as error:
                    assert "aiointerpreters[cloudpickle]" in str(error), error
                    print("refused")
        try:
            await runner.run(values.echo, [1, lambda: 1])
        except NotShareableError as error:
            assert "args[0][1]" in str(error), error
            assert "aiointerpreters[cloudpickle]" in str(error), error
            print("refused")
        assert await runner.run(values.square, 3) == 9

if __name__ == "__main__":
    asyncio.run(main())
"""


class TestWithoutCloudpickle:
    def test_lambdas_are_refused_by_an_error_that_says_what_to_install(
        self, program: Program
    ) -> None:
        ended = program(WITHOUT)
        ended.assert_fine()
        assert ended.out == "refused\n" * 5

    def test_functions_of_a_repl_are_refused_by_an_error_that_says_what_to_install(
        self,
    ) -> None:
        ended = programs.run(
            ["-c", WITHOUT.replace("(lambda: 1, outer())", "(lambda: 1, outer)")],
        )
        ended.assert_fine()
        assert ended.out == "refused\n" * 5

    def test_it_is_not_imported_for_what_needs_it_not(self, program: Program) -> None:
        ended = program("""
            import asyncio, sys
            from aiointerpreters import Runner
            from workfns import classes, values, worker

            async def main():
                async with Runner(workers=1) as runner:
                    assert await runner.run(values.echo, {"a": classes.Point(1)})
                    assert not await runner.run(worker.has_module, "cloudpickle")

            if __name__ == "__main__":
                asyncio.run(main())
                assert "cloudpickle" not in sys.modules
        """)
        ended.assert_fine()


REPL = """
import asyncio
from aiointerpreters import Runner
from dataclasses import dataclass
factor = 2
@dataclass
class Pair:
    left: int
    right: int = 0

def helper(n):
    return n * factor

def use(n):
    return helper(n) + 1

def swap(pair):
    return Pair(pair.right, pair.left)

async def main():
    global factor, helper
    async with Runner(workers=1) as runner:
        print(await runner.run(lambda x: x + 1, 2))
        print(await runner.run(use, 5))
        factor = 10
        print(await runner.run(use, 5))
        def helper(n): return -n
        print(await runner.run(use, 5))
        got = await runner.run(swap, Pair(1, 2))
        print(got, type(got) is Pair)
        print(await runner.run(sorted, [3, 1], key=lambda n: n))
        print(await runner.wrap(use)(1))

asyncio.run(main())
"""
REPL_OUT = "3\n11\n51\n-4\nPair(left=2, right=1) True\n[1, 3]\n0\n"


class TestInteractive:
    def test_in_a_command(self) -> None:
        ended = programs.run(["-c", REPL])
        ended.assert_fine()
        assert ended.out == REPL_OUT

    def test_in_standard_input(self) -> None:
        ended = programs.run(["-"], stdin=REPL)
        ended.assert_fine()
        assert ended.out == REPL_OUT

    def test_at_the_prompt(self) -> None:
        ended = programs.run(["-i", "-q"], stdin=REPL + "\n")
        ended.assert_quiet()
        assert "Traceback" not in ended.err
        assert ended.out.replace(">>> ", "").replace("... ", "") == REPL_OUT

    def test_at_the_prompt_of_asyncio(self) -> None:
        source = textwrap.dedent("""
            from aiointerpreters import Runner
            runner = Runner(workers=1).start()
            factor = 2
            await runner.run(lambda x: x * factor, 21)
            factor = 3
            await runner.run(lambda x: x * factor, 21)
            def double(x): return x * 2

            await runner.run(double, 35)
            await runner.aclose()
        """)
        ended = programs.run(["-m", "asyncio"], stdin=source, env={"PYTHON_BASIC_REPL": "1"})
        ended.assert_quiet()
        assert "Traceback" not in ended.err
        shown = ended.out.replace(">>> ", "").replace("... ", "")
        for expected in ("42", "63", "70"):
            assert expected in shown

    def test_lambdas_of_a_script_that_has_a_file(self, program: Program) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner

            factor = 2

            class Item:
                def __init__(self, n):
                    self.n = n

            def importable(item):
                return Item(item.n * factor)

            async def main():
                global factor
                async with Runner(workers=1) as runner:
                    print(await runner.run(lambda x: x * factor, 21))
                    factor = 3
                    print(await runner.run(lambda x: x * factor, 21))
                    got = await runner.run(importable, Item(1))
                    print(type(got) is Item, got.n)
                    got = await runner.run(lambda item: item, Item(1))
                    print(type(got) is Item, got.n)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_fine()
        assert ended.out == "42\n63\nTrue 2\nTrue 1\n"
