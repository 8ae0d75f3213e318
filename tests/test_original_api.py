"""Code written for the original package of this name runs unchanged."""

import asyncio
import typing

import pytest

from aiointerpreters.runner import InterpreterError, Runner, RunnerError, get_module_info
from aiointerpreters.types import Shareable
from helpers.programs import Program
from workfns import values

USE = """
    import asyncio
    from aiointerpreters.runner import Runner

    def cpu_bound_function(n: int) -> int:
        return sum(i * i for i in range(n + 1))

    async def main() -> None:
        with Runner(workers=5).start() as runner:
            print(await asyncio.gather(
                runner.run(cpu_bound_function, 5), runner.run(cpu_bound_function, n=5)
            ))

    if __name__ == "__main__":
        asyncio.run(main())
"""

TASK_GROUP = """
    import asyncio, os
    from contextlib import contextmanager
    from aiointerpreters.runner import Runner

    @contextmanager
    def announced(what):
        yield
        print(what)

    def cpu_bound_function(n: int) -> int:
        return sum(i * i for i in range(n + 1))

    async def main() -> None:
        with Runner(workers=os.cpu_count() or 10).start() as runner:
            async_function = runner.wrap(cpu_bound_function)
            with announced("ran"):
                async with asyncio.TaskGroup() as tg:
                    tasks = [tg.create_task(async_function(10_000)) for _ in range(10)]
            print({task.result() for task in tasks})

    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_the_gather_of_the_readme(program: Program) -> None:
    ended = program(USE)
    ended.assert_fine()
    assert ended.out == "[55, 55]\n"


def test_the_task_group_of_the_examples(program: Program) -> None:
    ended = program(TASK_GROUP)
    ended.assert_fine()
    assert ended.out == "ran\n{333383335000}\n"


def test_module_info_of_an_importable_function() -> None:
    assert get_module_info(values.square) == ("module", "workfns.values", "square")


def test_module_info_of_a_function_of_the_script(program: Program) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters.runner import Runner, get_module_info

        def square(n):
            return n * n

        async def main():
            with Runner(workers=1).start() as runner:
                kind, path, name = info = get_module_info(square)
                assert (kind, path, name) == ("path", __file__, "square"), info
                print(await runner.run_module_function(info, 7))

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out == "49\n"


def test_run_module_function() -> None:
    async def main() -> None:
        with Runner(workers=1).start() as runner:
            info = get_module_info(values.add)
            assert await runner.run_module_function(info, 1, 2) == 3
            assert await runner.run_module_function(info, 1, right=5) == 6
            assert await runner.run_module_function(("module", "math", "factorial"), 5) == 120

    asyncio.run(main())


def test_run_module_function_by_path(program: Program) -> None:
    path = program.write("elsewhere.py", "def half(n):\n    return n // 2\n")

    async def main() -> None:
        with Runner(workers=1).start() as runner:
            info: tuple[typing.Literal["path"], str, str] = ("path", str(path), "half")
            for _ in range(3):
                assert await runner.run_module_function(info, 8) == 4

    asyncio.run(main())


def test_run_module_function_of_a_name_that_does_not_exist() -> None:
    async def main() -> None:
        with Runner(workers=1).start() as runner:
            with pytest.raises(AttributeError, match="no_such_name"):
                await runner.run_module_function(("module", "math", "no_such_name"))
            with pytest.raises(ModuleNotFoundError):
                await runner.run_module_function(("module", "no_such_module_anywhere", "f"))

    asyncio.run(main())


def test_errors_can_be_caught_as_before() -> None:
    assert issubclass(InterpreterError, Exception)
    assert issubclass(RunnerError, Exception)


def test_module_info_of_what_belongs_to_no_module() -> None:
    def homeless() -> None: ...

    homeless.__module__ = None  # type: ignore[assignment]
    with pytest.raises(RunnerError, match="homeless"):
        get_module_info(homeless)


def test_shareable_is_a_type_for_annotations() -> None:
    def annotated(value: Shareable) -> tuple[Shareable, ...]:
        return (value,)

    assert isinstance(Shareable, typing.TypeAliasType)
    assert typing.get_type_hints(annotated)["value"] is Shareable
    alternatives = typing.get_args(Shareable.__value__)
    for kind in (str, bytes, int, float, bool, type(None), memoryview):
        assert kind in alternatives


def test_a_queue_of_concurrent_interpreters_is_shareable() -> None:
    interpreters = pytest.importorskip("concurrent.interpreters")

    async def main() -> None:
        queue = interpreters.create_queue()
        with Runner(workers=1).start() as runner:
            queue.put("from the caller")
            assert await runner.run(move_item, queue) == "from the caller"
            assert queue.get_nowait() == "from the worker"
            assert await runner.run(values.echo, queue) == queue

    from workfns.queues import move_item

    asyncio.run(main())


def test_everything_public_is_importable_from_the_top() -> None:
    import aiointerpreters
    import aiointerpreters.errors
    import aiointerpreters.runner
    import aiointerpreters.types

    for module in (aiointerpreters.runner, aiointerpreters.types, aiointerpreters.errors):
        for name in module.__all__:
            assert getattr(aiointerpreters, name) is getattr(module, name)
            assert name in aiointerpreters.__all__
