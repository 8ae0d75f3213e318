"""What a function raises in a worker is raised in the caller; what cannot be, is described."""

import asyncio
import errno
import json
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import InterpreterError, NotShareableError, RemoteTraceback, Runner
from helpers.programs import Program
from workfns import failing, values


def causes(error: BaseException) -> list[BaseException]:
    """The chain of causes, the worker's traceback not among them."""
    chain = []
    cause = error.__cause__
    while cause is not None and not isinstance(cause, RemoteTraceback):
        chain.append(cause)
        cause = cause.__cause__
    return chain


@pytest.fixture(autouse=True)
def _the_workers_are_usable_afterwards(runner: Runner) -> Any:
    yield

    async def main() -> None:
        calls = (runner.run(values.square, n) for n in range(10))
        assert await asyncio.gather(*calls) == [n * n for n in range(10)]

    asyncio.run(main())


class TestOwnTypes:
    @pytest.mark.parametrize(
        "error",
        [
            Exception(),
            ValueError("a", 1, [2]),
            KeyError("key"),
            IndexError(5),
            TypeError("wrong"),
            RuntimeError("a\nb"),
            AssertionError(),
            NotImplementedError("later"),
            ArithmeticError(None),
            StopAsyncIteration(1),
            TimeoutError("late"),
            EOFError(),
            BufferError("b"),
            MemoryError("m"),
            RecursionError("r"),
            UserWarning("w"),
            TimeoutError(),
            asyncio.QueueEmpty(),
            failing.Own("own", {"a": (1,)}),
            failing.Own(),
            failing.Own("\ud800 lone"),
        ],
        ids=lambda error: repr(error).encode("ascii", "backslashreplace").decode(),
    )
    def test_type_and_args_are_kept(self, error: Exception, call: Callable[..., Any]) -> None:
        with pytest.raises(type(error)) as caught:
            call(failing.throw, error)
        assert type(caught.value) is type(error)
        assert caught.value.args == error.args
        assert str(caught.value) == str(error)

    def test_an_error_of_the_interpreter(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            call(failing.divide_by_zero)

    def test_an_exception_whose_base_gets_other_arguments(self, call: Callable[..., Any]) -> None:
        with pytest.raises(failing.TwoArguments) as caught:
            call(failing.raise_two_arguments)
        assert (caught.value.code, caught.value.text) == (7, "seven")
        assert caught.value.args == ("7: seven",)
        assert str(caught.value) == "7: seven"

    def test_an_exception_with_keyword_arguments(self, call: Callable[..., Any]) -> None:
        with pytest.raises(failing.KeywordOnly) as caught:
            call(failing.raise_keyword_only)
        assert caught.value.code == 7
        assert str(caught.value) == "failed"

    def test_an_exception_of_the_standard_library_with_two_arguments(
        self, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(json.JSONDecodeError) as caught:
            call(json.loads, "[1,")
        assert (caught.value.pos, caught.value.doc) == (3, "[1,")

    def test_an_exception_that_knows_how_to_be_rebuilt(self, call: Callable[..., Any]) -> None:
        with pytest.raises(failing.Reducing) as caught:
            call(failing.throw, failing.Reducing(1, 2))
        assert (caught.value.first, caught.value.second) == (1, 2)

    def test_attributes_are_kept(self, call: Callable[..., Any]) -> None:
        with pytest.raises(failing.Own) as caught:
            call(failing.raise_with_attributes)
        assert caught.value.detail == {"page": [1, 2]}  # type: ignore[attr-defined]

    def test_notes_are_kept(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="noted") as caught:
            call(failing.raise_with_notes)
        assert caught.value.__notes__ == ["first note", "second note"]

    def test_os_errors(self, call: Callable[..., Any], tmp_path: Any) -> None:
        missing = str(tmp_path / "missing")
        with pytest.raises(FileNotFoundError) as caught:
            call(failing.open_missing, missing)
        assert caught.value.errno == errno.ENOENT
        assert caught.value.filename == missing
        with pytest.raises(PermissionError) as denied:
            call(failing.throw, OSError(errno.EACCES, "denied", "a", None, "b"))
        assert (denied.value.filename, denied.value.filename2) == ("a", "b")
        with pytest.raises(failing.OwnOSError) as own:
            call(failing.throw, failing.OwnOSError(errno.EIO, "broken", "disk"))
        assert (own.value.errno, own.value.filename) == (errno.EIO, "disk")

    def test_unicode_errors(self, call: Callable[..., Any]) -> None:
        with pytest.raises(UnicodeDecodeError) as decoding:
            call(failing.decode_badly)
        error = decoding.value
        assert (error.encoding, error.object, error.start, error.end) == ("utf-8", b"ab\xff", 2, 3)
        with pytest.raises(UnicodeEncodeError) as encoding:
            call(failing.encode_badly)
        assert encoding.value.object == "ab\udcff"

    def test_import_and_syntax_errors(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ModuleNotFoundError) as missing:
            call(failing.import_missing)
        assert missing.value.name == "no_such_module_anywhere"
        with pytest.raises(SyntaxError) as syntax:
            call(failing.compile_badly)
        assert (syntax.value.filename, syntax.value.lineno) == ("<text>", 1)
        assert syntax.value.text is not None

    def test_a_base_exception_of_the_users_own(self, call: Callable[..., Any]) -> None:
        with pytest.raises((failing.Halt, InterpreterError), match="stop"):
            call(failing.throw, failing.Halt("stop"))


class TestChains:
    def test_the_chain_of_causes_is_kept(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="the top") as caught:
            call(failing.raise_with_causes)
        middle, root = causes(caught.value)
        assert type(middle) is failing.Own
        assert middle.args == ("the middle",)
        assert type(root) is KeyError
        assert root.args == ("the root",)
        assert isinstance(root.__cause__, RemoteTraceback)

    def test_without_causes_the_worker_traceback_is_the_cause(
        self, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            call(failing.divide_by_zero)
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert caught.value.__cause__.__cause__ is None

    def test_a_cause_that_cannot_cross_does_not_hide_the_exception(
        self, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(ValueError, match="the top") as caught:
            call(failing.raise_caused_by_unsendable)
        assert "the cause" in "".join(traceback.format_exception(caught.value))

    def test_causes_in_a_circle_do_not_hang(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="first"):
            call(failing.raise_cyclic_causes)

    def test_groups_are_kept(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ExceptionGroup) as caught:
            call(failing.raise_group)
        assert caught.value.message == "several"
        first, inner = caught.value.exceptions
        assert type(first) is ValueError
        assert isinstance(inner, ExceptionGroup)
        assert [type(error) for error in inner.exceptions] == [failing.Own, FileNotFoundError]

    def test_groups_can_be_caught_by_their_members(self, call: Callable[..., Any]) -> None:
        seen = []
        try:
            call(failing.raise_group)
        except* ValueError:
            seen.append("ValueError")
        except* failing.Own:
            seen.append("Own")
        except* OSError:
            seen.append("OSError")
        assert seen == ["ValueError", "Own", "OSError"]

    def test_groups_of_ones_own(self, call: Callable[..., Any]) -> None:
        with pytest.raises(failing.OwnGroup) as caught:
            call(failing.raise_own_group)
        assert caught.value.exceptions[0].args == (1,)


class TestTraceback:
    def test_the_workers_traceback_is_shown_as_the_process_pool_shows_it(
        self, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(ZeroDivisionError) as caught:
            call(failing.divide_by_zero)
        remote = str(caught.value.__cause__)
        assert remote.startswith('\n"""\nTraceback (most recent call last):\n')
        assert remote.endswith('ZeroDivisionError: division by zero\n"""')
        assert "failing.py" in remote
        assert "in divide_by_zero\n    return 1 / 0" in remote
        shown = "".join(traceback.format_exception(caught.value))
        assert shown.startswith("aiointerpreters.errors.RemoteTraceback: \n") or (
            "RemoteTraceback: \n" in shown
        )
        assert "The above exception was the direct cause of the following exception:" in shown
        assert shown.rstrip().endswith("ZeroDivisionError: division by zero")

    def test_it_shows_causes_contexts_and_notes(self, call: Callable[..., Any]) -> None:
        with pytest.raises(ValueError, match="the top") as caught:
            call(failing.raise_with_causes)
        shown = "".join(traceback.format_exception(caught.value))
        for part in ("the root", "the middle", "the top", "in raise_with_causes"):
            assert part in shown
        with pytest.raises(failing.Own) as handling:
            call(failing.raise_while_handling)
        shown = "".join(traceback.format_exception(handling.value))
        assert "During handling of the above exception, another exception occurred" in shown
        assert "ZeroDivisionError" in shown
        with pytest.raises(ValueError, match="noted") as noted:
            call(failing.raise_with_notes)
        assert "second note" in str(noted.value.__cause__)

    def test_it_hides_the_context_of_from_none(self, call: Callable[..., Any]) -> None:
        with pytest.raises(failing.Own) as caught:
            call(failing.raise_from_nothing)
        shown = "".join(traceback.format_exception(caught.value))
        assert "ZeroDivisionError" not in shown

    def test_it_is_printed_by_a_program_that_does_not_catch_the_exception(
        self, program: Program
    ) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner

            def deeper(n):
                return 1 / n

            def fail():
                return deeper(0)

            async def main():
                async with Runner(workers=1) as runner:
                    await runner.run(fail)

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        ended.assert_ended(1)
        assert "in fail\n    return deeper(0)" in ended.err
        assert "in deeper\n    return 1 / n" in ended.err
        assert "The above exception was the direct cause" in ended.err
        assert ended.err.endswith("ZeroDivisionError: division by zero\n")


class TestDescribed:
    """What cannot be rebuilt arrives as InterpreterError."""

    @pytest.mark.parametrize(
        ("function", "args", "type_name", "message"),
        [
            (failing.exit_with, (3,), "SystemExit", "3"),
            (failing.exit_with, (None,), "SystemExit", "None"),
            (failing.exit_with, ("bye",), "SystemExit", "bye"),
            (failing.interrupt, (), "KeyboardInterrupt", ""),
            (failing.stop_generator, (), "GeneratorExit", ""),
            (failing.cancel, (), "asyncio.exceptions.CancelledError", "from a worker"),
        ],
    )
    def test_type_name_message_and_traceback(
        self,
        function: Any,
        args: tuple[Any, ...],
        type_name: str,
        message: str,
        call: Callable[..., Any],
    ) -> None:
        with pytest.raises(InterpreterError) as caught:
            call(function, *args)
        error = caught.value
        assert error.type_name == type_name
        assert error.message == message
        assert "Traceback (most recent call last):" in error.traceback_text
        assert f"in {function.__name__}" in error.traceback_text
        assert type_name.rpartition(".")[2] in str(error)
        assert message in str(error)

    def test_a_class_that_the_caller_cannot_import(self) -> None:
        async def main() -> None:
            async with Runner(workers=1, initializer=failing.do_without_cloudpickle) as runner:
                await runner.run(failing.raise_local_class)

        with pytest.raises(InterpreterError, match="of a function") as caught:
            asyncio.run(main())
        assert caught.value.type_name.startswith("workfns.failing.")
        assert caught.value.type_name.endswith("Local")

    def test_with_cloudpickle_such_a_class_arrives_by_value(self, call: Callable[..., Any]) -> None:
        with pytest.raises(Exception, match="of a function") as caught:
            call(failing.raise_local_class)
        assert type(caught.value).__name__ == "Local"
        assert type(caught.value).__module__ == "workfns.failing"

    def test_an_attribute_that_cannot_cross_does_not_hide_the_exception(
        self, call: Callable[..., Any]
    ) -> None:
        """It has its own type, without that attribute, or is described."""
        with pytest.raises((failing.HoldsALock, InterpreterError), match="holds a lock"):
            call(failing.raise_holding_a_lock)

    def test_arguments_that_cannot_cross(self, call: Callable[..., Any]) -> None:
        with pytest.raises(InterpreterError, match="with a lock") as caught:
            call(failing.raise_lock_argument)
        assert caught.value.type_name == "ValueError"

    def test_a_group_with_a_member_that_cannot_cross(self, call: Callable[..., Any]) -> None:
        with pytest.raises((InterpreterError, ExceptionGroup), match="several") as caught:
            call(failing.raise_group_with_unsendable)
        assert "in a group" in "".join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize(
        "name",
        ["BrokenStr", "BrokenRepr", "BrokenReduce", "BrokenEverything", "BrokenWhenRebuilt"],
    )
    def test_broken_exceptions_arrive_somehow(self, name: str, call: Callable[..., Any]) -> None:
        with pytest.raises((getattr(failing, name), InterpreterError)) as caught:
            call(failing.raise_broken, name)
        if isinstance(caught.value, InterpreterError):
            assert caught.value.type_name == f"workfns.failing.{name}"
            assert "raise_broken" in caught.value.traceback_text

    def test_stop_iteration_ends_the_call_with_an_error(self, call: Callable[..., Any]) -> None:
        """It cannot be set on a future, as asyncio has it."""
        with pytest.raises((RuntimeError, InterpreterError), match="StopIteration"):
            call(failing.stop_iteration)

    def test_an_interpreter_error_crosses_and_pickles(self, call: Callable[..., Any]) -> None:
        with pytest.raises(InterpreterError) as caught:
            call(failing.exit_with, 3)
        again = call(values.echo, caught.value)
        assert type(again) is InterpreterError
        assert (again.type_name, again.message) == ("SystemExit", "3")
        assert again.traceback_text == caught.value.traceback_text

    def test_a_not_shareable_error_crosses(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match="lock") as caught:
            call(values.lock)
        assert str(call(values.echo, caught.value)) == str(caught.value)


class TestLimits:
    def test_recursion_without_end(self, call: Callable[..., Any]) -> None:
        for _ in range(3):
            with pytest.raises(RecursionError, match="recursion"):
                call(failing.recurse)

    @pytest.mark.parametrize(
        "way",
        [
            "repr",
            "compare",
            "json",
            "json.loads",
            "pickle",
            "deepcopy",
            "getattr",
            "own repr",
            "sort",
            "compile",
            "compile operators",
        ],
    )
    def test_recursion_in_c_code_fails_the_call_and_does_not_crash(
        self, way: str, program: Program
    ) -> None:
        """As it would in a thread of the program's own."""
        ended = program(
            """
            import asyncio, sys
            from aiointerpreters import Runner
            from workfns import failing

            async def main():
                async with Runner(workers=1) as runner:
                    try:
                        await runner.run(failing.recurse_in_c, sys.argv[1])
                    except (RecursionError, MemoryError, SyntaxError) as error:
                        assert error.args
                    assert await runner.run(abs, -1) == 1

            asyncio.run(main())
            """,
            way,
        )
        ended.assert_fine()

    def test_memory_that_cannot_be_had(self, call: Callable[..., Any]) -> None:
        with pytest.raises(MemoryError, match="no memory left"):
            call(failing.raise_memory_error)
        with pytest.raises(MemoryError):
            call(failing.allocate_too_much)


def test_cancelled_error_in_a_worker_does_not_cancel_the_caller(runner: Runner) -> None:
    async def main() -> None:
        task = asyncio.create_task(runner.run(failing.cancel))
        with pytest.raises(InterpreterError):
            await task
        assert not task.cancelled()
        future = runner.submit(failing.cancel)
        await asyncio.wait([future])
        assert not future.cancelled()
        assert isinstance(future.exception(), InterpreterError)

    asyncio.run(main())


def test_exit_in_a_worker_does_not_end_the_program(program: Program) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner
        from workfns import failing

        async def main():
            async with Runner(workers=2) as runner:
                for function, args in [(failing.exit_with, (3,)), (failing.interrupt, ())] * 5:
                    task = asyncio.create_task(runner.run(function, *args))
                    await asyncio.wait([task])
                    print(type(task.exception()).__name__)

        asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out == "InterpreterError\n" * 10


def test_each_call_raises_an_exception_of_its_own(runner: Runner) -> None:
    async def main() -> None:
        calls = (runner.run(failing.throw, ValueError(n)) for n in range(100))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [error.args for error in errors] == [(n,) for n in range(100)]  # type: ignore[union-attr]
        assert len(set(map(id, errors))) == 100

    asyncio.run(main())
