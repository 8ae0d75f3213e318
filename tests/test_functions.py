"""Which functions a runner takes, how a worker finds them, and what it says of the others."""

import asyncio
import functools
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from aiointerpreters import Runner, RunnerError
from helpers.programs import Program
from workfns import classes, coroutines, failing, streams, values, worker
from workfns.values import Arithmetic, Derived


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        pytest.param(values.square, (7,), 49, id="function"),
        pytest.param(values.decorated, (7,), 14, id="decorated function"),
        pytest.param(len, ("four",), 4, id="builtin"),
        pytest.param(math.factorial, (5,), 120, id="function of a C module"),
        pytest.param(operator.add, (1, 2), 3, id="function of an accelerated module"),
        pytest.param(str, (5,), "5", id="type"),
        pytest.param(Fraction, (1, 3), Fraction(1, 3), id="class"),
        pytest.param(classes.Point, (1, 2), classes.Point(1, 2), id="own class"),
        pytest.param(Arithmetic.cube, (3,), 27, id="static method"),
        pytest.param(Arithmetic.name, (), "Arithmetic", id="class method"),
        pytest.param(Derived.name, (), "Derived", id="inherited class method"),
        pytest.param(Derived.cube, (3,), 27, id="inherited static method"),
        pytest.param(Arithmetic.Inner.negate, (3,), -3, id="method of an inner class"),
        pytest.param(Arithmetic.plus, (Arithmetic(1), 2), 3, id="method, unbound"),
        pytest.param(Arithmetic(10).plus, (5,), 15, id="bound method"),
        pytest.param(Arithmetic(10), (5,), 50, id="callable instance"),
        pytest.param(str.upper, ("abc",), "ABC", id="method of a builtin type, unbound"),
        pytest.param("a-b".split, ("-",), ["a", "b"], id="bound method of a str"),
        pytest.param(dict.fromkeys, ("ab",), {"a": None, "b": None}, id="builtin class method"),
        pytest.param(int.from_bytes, (b"\1\0",), 256, id="builtin class method of int"),
        pytest.param(operator.itemgetter(1), ("ab",), "b", id="itemgetter"),
        pytest.param(operator.methodcaller("upper"), ("ab",), "AB", id="methodcaller"),
        pytest.param(functools.partial(values.add, 10), (5,), 15, id="partial"),
        pytest.param(functools.partial(values.add, right=10), (5,), 15, id="partial, keyword"),
        pytest.param(
            functools.partial(functools.partial(values.everything, 1, a=1), 2, b=2),
            (3,),
            ((1, 2, 3), {"a": 1, "b": 2}),
            id="partial of partial",
        ),
        pytest.param(functools.partial(Arithmetic.cube, 2), (), 8, id="partial of static method"),
        pytest.param(functools.partial(Arithmetic, 2), (), Arithmetic(2), id="partial of class"),
        pytest.param(functools.partial(len), ("four",), 4, id="partial of builtin"),
    ],
)
def test_what_can_be_imported_or_pickled_can_be_called(
    function: Callable[..., Any], args: tuple[Any, ...], result: Any, call: Callable[..., Any]
) -> None:
    for _ in range(3):
        got = call(function, *args)
        assert got == result
        assert type(got) is type(result)


def test_keywords_of_a_partial_can_be_overridden(call: Callable[..., Any]) -> None:
    assert call(functools.partial(values.add, right=10), 1, right=20) == 21


def test_each_call_of_a_partial_uses_its_own_arguments(runner: Runner) -> None:
    async def main() -> None:
        partials = [functools.partial(values.add, n) for n in range(200)]
        got = await asyncio.gather(*(runner.run(function, 1) for function in partials))
        assert got == [n + 1 for n in range(200)]

    asyncio.run(main())


def test_an_unsendable_argument_of_a_partial_is_an_error(call: Callable[..., Any]) -> None:
    with pytest.raises(RunnerError, match="lock"):
        call(functools.partial(values.echo, values.lock()))


UNSENDABLE = [
    pytest.param(values.asynchronous_generator, "asynchronous_generator", id="async generator"),
    pytest.param(
        functools.partial(values.asynchronous_generator), "asynchronous_generator", id="its partial"
    ),
]


@pytest.mark.parametrize(("function", "name"), UNSENDABLE)
def test_a_function_that_cannot_be_sent_is_an_error_that_names_it(
    function: Callable[..., Any], name: str, runner: Runner
) -> None:
    async def main() -> None:
        with pytest.raises(RunnerError, match=name):
            await runner.run(function)
        with pytest.raises(RunnerError, match=name):
            runner.submit(function)
        assert await runner.run(values.square, 2) == 4

    asyncio.run(main())


@pytest.mark.parametrize("thing", [42, None, "text", [], object()])
def test_what_is_not_callable_is_an_error(thing: Any, call: Callable[..., Any]) -> None:
    with pytest.raises((RunnerError, TypeError)):
        call(thing)


def test_a_call_with_wrong_arguments_fails_like_any_call(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"square\(\)"):
        call(values.square)
    with pytest.raises(TypeError, match="unexpected keyword"):
        call(values.square, 1, wrong=2)


def test_a_generator_is_a_result_that_cannot_cross(call: Callable[..., Any]) -> None:
    with pytest.raises(RunnerError, match="generator"):
        call(values.numbers_up_to, 3)


def test_a_function_can_be_an_argument_and_a_result(call: Callable[..., Any]) -> None:
    assert call(values.apply, values.square, 3) == 9
    assert call(values.echo, values.square) is values.square
    assert call(values.echo, Arithmetic) is Arithmetic


def test_a_module_that_raises_on_import_fails_each_call_with_that_error(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = "def double(n):\n    return 2 * n\n"
    broken = "raise LookupError('this module cannot be imported today')\n"
    program.write("rewritten_module.py", fine)
    monkeypatch.syspath_prepend(program.folder)
    import rewritten_module  # type: ignore[import-not-found]

    async def main() -> None:
        program.write("rewritten_module.py", broken)
        async with Runner(workers=1) as runner:
            for _ in range(3):
                with pytest.raises(LookupError, match="cannot be imported today"):
                    await runner.run(rewritten_module.double, 4)
                assert await runner.run(values.square, 3) == 9

    asyncio.run(main())


def test_a_module_that_the_worker_cannot_find_fails_the_call(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with Runner(workers=1) as runner:
            assert await runner.run(values.square, 3) == 9
            program.write("found_too_late.py", "def double(n):\n    return 2 * n\n")
            monkeypatch.syspath_prepend(program.folder)
            import found_too_late  # type: ignore[import-not-found]

            for _ in range(2):
                with pytest.raises(ModuleNotFoundError, match="found_too_late"):
                    await runner.run(found_too_late.double, 4)
            assert await runner.run(values.square, 4) == 16

    asyncio.run(main())


def test_a_function_that_is_missing_in_the_workers_module_fails_the_call(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.write("changed_module.py", "def double(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(program.folder)
    import changed_module  # type: ignore[import-not-found]

    async def main() -> None:
        program.write("changed_module.py", "something_else = 'entirely'\n")
        async with Runner(workers=1) as runner:
            for _ in range(2):
                with pytest.raises((AttributeError, RunnerError), match="double"):
                    await runner.run(changed_module.double, 4)
            assert await runner.run(values.square, 3) == 9

    asyncio.run(main())


def test_the_path_of_modules_is_the_one_at_the_start(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.write("found_in_time.py", "def double(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(program.folder)
    import found_in_time  # type: ignore[import-not-found]

    async def main() -> None:
        async with Runner(workers=1) as runner:
            assert await runner.run(found_in_time.double, 4) == 8

    asyncio.run(main())


def test_an_extension_that_refuses_subinterpreters_fails_the_import_only(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.write("uses_readline.py", "import faulthandler, readline\ndef f(): return 1\n")
    pytest.importorskip("readline")
    monkeypatch.syspath_prepend(program.folder)
    import uses_readline  # type: ignore[import-not-found]

    async def main() -> None:
        async with Runner(workers=1) as runner:
            for _ in range(2):
                with pytest.raises(ImportError, match="subinterpreters"):
                    await runner.run(uses_readline.f)
            assert await runner.run(values.square, 3) == 9

    asyncio.run(main())


def test_different_functions_of_one_name_are_kept_apart(runner: Runner) -> None:
    async def main() -> None:
        for _ in range(3):
            assert await runner.run(Arithmetic.name) == "Arithmetic"
            assert await runner.run(Derived.name) == "Derived"
            assert await runner.run(worker.has_module, "sys")
            assert await runner.run(failing.describe_error, ValueError(1)) == (
                "ValueError",
                (1,),
                "1",
            )

    asyncio.run(main())


class TestWhatBelongsElsewhere:
    def test_a_generator_function_belongs_to_stream(self, call: Callable[..., Any]) -> None:
        with pytest.raises(RunnerError, match=r"endless is a generator function.*stream\(\)"):
            call(streams.endless, 0)

    def test_a_coroutine_is_no_function(self, call: Callable[..., Any]) -> None:
        coroutine = coroutines.add(1, 2)
        with pytest.raises(RunnerError, match="not callable: pass the coroutine function and its"):
            call(coroutine)
        coroutine.close()

    def test_a_coroutine_function_belongs_to_run(self, runner: Any) -> None:
        with pytest.raises(RunnerError, match=r"coroutine function.*pass it to run\(\)"):
            runner.stream(coroutines.add, 1, 2)

    def test_map_takes_a_function(self, runner: Any) -> None:
        with pytest.raises(TypeError, match=r"map\(\) takes a function, not int"):
            runner.map(5, [1])
