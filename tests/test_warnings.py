"""Warnings of workers are shown by the program, as its filters say."""

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner
from helpers.gate import Signals
from helpers.programs import Program
from workfns import logs


def caught_from(fn: Callable[..., Any], /, *args: Any, action: Any = "always") -> list[Any]:
    """What the program is shown of the warnings of one call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)

        async def main() -> None:
            async with Runner(workers=1) as runner:
                await runner.run(fn, *args)

        asyncio.run(main())
    return caught


class TestShown:
    def test_a_warning_is_shown_by_the_program(self) -> None:
        [warning] = caught_from(logs.warn, "mind this")
        assert str(warning.message) == "mind this"
        assert warning.category is UserWarning
        assert warning.filename == logs.__file__
        with open(logs.__file__) as file:
            assert "warnings.warn(text, category" in file.readlines()[warning.lineno - 1]

    @pytest.mark.parametrize("category", [RuntimeWarning, logs.OwnWarning])
    def test_it_keeps_its_category(self, category: type[Warning]) -> None:
        [warning] = caught_from(logs.warn, "of a kind", category)
        assert warning.category is category
        assert type(warning.message) is category

    def test_a_category_that_cannot_be_rebuilt_is_a_user_warning(self) -> None:
        [picky] = caught_from(logs.warn_pickily)
        assert (picky.category, str(picky.message)) == (UserWarning, "3: very")
        [local] = caught_from(logs.warn_of_local_class)
        assert (local.category, str(local.message)) == (UserWarning, "of a local class")

    def test_a_closed_runner_has_nothing_more_to_show(self) -> None:
        """What several calls and workers say has all come when the runner is closed."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")

            async def main() -> None:
                async with Runner(workers=2) as runner:
                    calls = (runner.run(logs.warn_always, f"call {n}", 10) for n in range(20))
                    await asyncio.gather(*calls)

            asyncio.run(main())
        assert len(caught) == 200

    def test_it_is_printed_as_any_other(self, program: Program) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner
            from workfns import logs

            async def main():
                async with Runner(workers=1) as runner:
                    await runner.run(logs.warn, "on stderr")

            if __name__ == "__main__":
                asyncio.run(main())
        """)
        assert ended.status == 0
        assert ended.err.endswith(
            ": UserWarning: on stderr\n  warnings.warn(text, category, stacklevel=1)\n"
        )
        assert ended.err.count("on stderr") == 1


class TestFilters:
    def test_what_several_workers_say_is_shown_once_if_the_filters_say_so(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")

            async def main() -> None:
                for _ in range(3):  # three workers, one after the other
                    async with Runner(workers=1) as runner, Runner(workers=1) as other:
                        await asyncio.gather(
                            runner.run(logs.warn, "the same"), other.run(logs.warn, "the same")
                        )

            async def hold() -> None:
                async with Runner(workers=1):  # one listener for all of them
                    await main()

            asyncio.run(hold())
        assert [str(warning.message) for warning in caught] == ["the same"]

    def test_the_programs_filters_decide(self) -> None:
        assert caught_from(logs.warn, "ignored", action="ignore") == []

    def test_a_filter_of_the_program_may_name_the_module(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", module=r"workfns\.logs$")

            async def main() -> None:
                async with Runner(workers=1) as runner:
                    await runner.run(logs.warn, "from there")

            asyncio.run(main())
        assert caught == []

    def test_an_error_filter_of_the_program_shows_it_and_stops_nothing(self) -> None:
        shown: list[str] = []
        show = warnings.showwarning
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
            try:

                async def main() -> None:
                    async with Runner(workers=1) as runner:
                        await runner.run(logs.warn, "first")
                        await runner.run(logs.warn, "second")

                asyncio.run(main())
            finally:
                warnings.showwarning = show
        assert shown == ["first", "second"]

    def test_an_error_filter_in_the_worker_raises_in_the_task(self, program: Program) -> None:
        ended = program(
            """
            import asyncio
            from aiointerpreters import Runner
            from workfns import logs

            async def main():
                async with Runner(workers=1) as runner:
                    try:
                        await runner.run(logs.warn, "raised")
                    except UserWarning as warning:
                        print(repr(warning))

            if __name__ == "__main__":
                asyncio.run(main())
            """,
            flags=("-W", "error"),
        )
        ended.assert_fine()
        assert ended.out == "UserWarning('raised')\n"

    def test_a_worker_can_filter_its_own(self) -> None:
        async def main() -> None:
            async with Runner(
                workers=1, initializer=logs.simple_filter, initargs=("ignore",)
            ) as runner:
                await runner.run(logs.warn, "ignored there")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(main())
        assert caught == []


class TestInTheWorker:
    def test_code_that_catches_warnings_gets_them(self) -> None:
        async def main() -> list[str]:
            async with Runner(workers=1) as runner:
                return await runner.run(logs.catch_own_warning)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert asyncio.run(main()) == ["caught here"]
        assert caught == []

    def test_code_may_show_them_itself(self, signals: Signals) -> None:
        async def main() -> bytes:
            async with Runner(workers=1) as runner:
                await runner.run(logs.show_by_hand, signals.fd)
                await runner.run(logs.warn, "by hand")
            return await signals.arrive(7)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert asyncio.run(main()) == b"by hand"
        assert caught == []

    def test_without_logging_the_worker_prints_them(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async def main() -> None:
            async with Runner(workers=1, logging=False) as runner:
                await runner.run(logs.warn, "printed there")

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(main())
        assert caught == []
        assert "UserWarning: printed there" in capfd.readouterr().err
