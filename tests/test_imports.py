"""Imports in workers: an interruption does not break them off, and both threads may make them."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import Runner
from helpers.gate import Gate, Trace
from helpers.limits import SLOWNESS, SOON
from helpers.process import until
from workfns import coroutines, importing, imports, values

#: No worker is to count as stuck, on however slow a machine.
PATIENT = 10 * SOON


@pytest.fixture
def module(
    gate: Gate, trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """`module(body)`: the name of a new module which does that when it is imported.

    `GATE` and `MARK` are there, the descriptors of the gate and of the trace.
    """
    monkeypatch.syspath_prepend(tmp_path)

    def write(body: str) -> str:
        given = f"GATE, MARK = {gate.fds}, {trace.fd}\n"
        (tmp_path / "slow_to_import.py").write_text(given + body)
        return "slow_to_import"

    return write


WAITS_AND_ENDS = """
import os
from workfns import waiting
waiting.wait_at(*GATE)
for _ in range(1000):
    pass
os.write(MARK, b"i")
"""


class TestInterrupted:
    @pytest.mark.parametrize("function", [importing.square, importing.square_soon])
    def test_what_prepares_a_call_is_not_broken_off(
        self,
        function: Any,
        gate: Gate,
        trace: Trace,
        silent: Callable[[], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The import of the function's module: many packages can't be imported once more then."""

        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner, gate:
                call = runner.submit(function, 2)
                await gate.reached()
                call.cancel()
                gate.open()
                assert await runner.run(function, 3) == 9
                assert trace.marks() == b"i"

        monkeypatch.setenv("AIO_TEST_IMPORTING", " ".join(map(str, (*gate.fds, trace.fd))))
        asyncio.run(main())

    @pytest.mark.parametrize(
        "function",
        [
            imports.by_statement,
            imports.by_importlib,
            imports.by_importlib_within,
            imports.by_statement_soon,
        ],
    )
    def test_what_a_call_imports_itself_is_not_broken_off(
        self,
        function: Any,
        module: Callable[[str], str],
        gate: Gate,
        trace: Trace,
        silent: Callable[[], None],
    ) -> None:
        name = module(WAITS_AND_ENDS)

        async def main() -> None:
            silent()
            async with Runner(workers=1, grace_period=PATIENT) as runner, gate:
                call = runner.submit(function, name, trace.fd)
                await gate.reached()
                call.cancel()
                gate.open()
                assert await runner.run(function, name, trace.fd) == name
                assert trace.marks().count(b"i") == 1

        asyncio.run(main())

    @pytest.mark.parametrize("function", [imports.by_statement, imports.by_statement_soon])
    def test_after_the_grace_period_a_module_that_never_ends_is_stopped(
        self, function: Any, module: Callable[[str], str], gate: Gate, trace: Trace
    ) -> None:
        body = "from workfns import waiting\nwaiting.wait_at(*GATE)\nwhile True: pass"
        name = module(body)

        async def main() -> None:
            async with Runner(workers=1, grace_period=0.05) as runner, gate:
                call = runner.submit(function, name, trace.fd)
                await gate.reached()
                call.cancel()
                gate.open()
                assert await until(lambda: runner.stats().replaced == 1)
                assert await until(lambda: runner.stats().stuck == 0)  # it came back
                assert await runner.run(values.square, 3) == 9

        asyncio.run(main())

    def test_another_thread_of_the_worker_can_still_import(self, tmp_path: Path) -> None:
        """What is interrupted between two bytecodes of importlib would keep a module's lock."""
        names = [f"small{n}" for n in range(3)]
        for name in names:
            (tmp_path / f"{name}.py").write_text("x = 1\n" * 10)

        async def main() -> None:
            chance = random.Random(7)
            async with Runner(workers=1, grace_period=PATIENT) as runner:
                await runner.run(imports.again_soon, str(tmp_path), names, 1)
                for _ in range(200):
                    plain = runner.submit(imports.again_for_ever, str(tmp_path), names)
                    coroutine = runner.submit(imports.again_soon, str(tmp_path), names, 20)
                    await asyncio.sleep(chance.random() * 0.02)  # any moment will do
                    plain.cancel()
                    async with asyncio.timeout(SOON):
                        await coroutine

        asyncio.run(main())


class TestBothThreads:
    @pytest.mark.parametrize("name", ["typing", "dataclasses", "pickle", "traceback", "inspect"])
    def test_a_call_may_import_while_the_loop_begins(self, name: str) -> None:
        """`dataclasses`, for one, takes `typing` as it finds it, half loaded if need be."""

        async def main() -> None:
            async with Runner(workers=4) as runner:
                calls = [runner.submit(imports.import_a_dataclass, name) for _ in range(4)]
                echoes = [runner.submit(coroutines.echo, n) for n in range(8)]
                assert await asyncio.gather(*calls) == [name] * 4
                assert await asyncio.gather(*echoes) == list(range(8))

        for _ in range(int(8 / SLOWNESS)):
            asyncio.run(main())

    def test_the_loop_waits_for_what_its_worker_imports(
        self, module: Callable[[str], str], gate: Gate, trace: Trace
    ) -> None:
        name = module(WAITS_AND_ENDS)

        async def main() -> None:
            async with Runner(workers=1) as runner, gate:
                call = runner.submit(imports.by_statement, name, trace.fd)
                await gate.reached()
                coroutine = runner.submit(coroutines.leave_mark, trace.fd)
                gate.open()
                await asyncio.gather(call, coroutine)
                assert trace.marks().startswith(b"i")

        asyncio.run(main())

    def test_who_waits_for_the_others_import_may_hold_what_that_needs(
        self, module: Callable[[str], str], gate: Gate, trace: Trace
    ) -> None:
        name = module("""
from workfns import imports, waiting
waiting.wait_at(*GATE)
with imports.LOCK:
    pass
""")

        async def main() -> None:
            async with Runner(workers=1, grace_period=PATIENT) as runner, gate:
                imported = runner.submit(imports.by_statement_soon, name, trace.fd)
                await gate.reached()
                holds = runner.submit(imports.import_under_lock, "colorsys", gate.fds[0])
                await gate.reached()
                gate.open()
                async with asyncio.timeout(SOON):
                    assert await holds == "colorsys"
                    assert await imported == name

        asyncio.run(main())

    def test_nothing_is_imported_under_the_lock_with_which_finders_are_asked(
        self, gate: Gate, trace: Trace
    ) -> None:
        """Or it would wait for what the other thread is loading, which needs that lock."""

        async def main() -> None:
            async with Runner(workers=1, grace_period=PATIENT) as runner, gate:
                held = "aiointerpreters._forwarding"  # which sets up logging
                await runner.run(imports.hold_up, held, "logging", *gate.fds)
                call = runner.submit(imports.import_it, held)
                await gate.reached()  # the worker's thread loads it
                coroutine = runner.submit(coroutines.leave_mark, trace.fd)
                await gate.reached()  # and its loop's looks for logging, which asyncio imports
                gate.open()
                await asyncio.gather(call, coroutine)
                assert trace.marks() == b"x"

        asyncio.run(main())

    def test_a_runner_is_closed_while_a_loop_waits_for_an_import(
        self, module: Callable[[str], str], gate: Gate, trace: Trace
    ) -> None:
        name = module(WAITS_AND_ENDS)

        async def main() -> None:
            runner = Runner(workers=1, grace_period=0.05).start()
            async with gate:
                call = runner.submit(imports.by_statement, name, trace.fd)
                await gate.reached()
                coroutine = runner.submit(coroutines.leave_mark, trace.fd)
                assert call.cancel()
                assert coroutine.cancel()
                async with asyncio.timeout(SOON):
                    await runner.aclose()
                assert trace.marks() == b""

        asyncio.run(main())
