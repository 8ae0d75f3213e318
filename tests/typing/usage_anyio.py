"""As usage.py, for what needs anyio and trio."""

from typing import assert_type

from aiointerpreters import Runner
from aiointerpreters.anyio import current_default_runner, run_sync, started


def parse(page: bytes) -> list[str]:
    return [page.decode()]


async def calling(content: bytes, runner: Runner) -> None:
    assert_type(await run_sync(parse, content), list[str])
    assert_type(await run_sync(parse, content, runner=runner.options(timeout=1)), list[str])
    await run_sync(parse, 5)  # type: ignore[arg-type]
    async with started(runner) as same:
        assert_type(same, Runner)
    assert_type(current_default_runner(), Runner)
