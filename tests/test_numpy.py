"""numpy's arrays: the caller's own memory in a worker, though numpy can't be loaded there."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aiointerpreters import Runner
from workfns import values, views

np = pytest.importorskip("numpy", reason="numpy has no wheel for this Python")


def test_a_worker_fills_an_array_in_place(call: Callable[..., Any]) -> None:
    array = np.zeros(1000, dtype="u1")
    call(views.fill, memoryview(array), 7)
    assert array.tolist() == [7] * 1000


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_layout_of_an_array_arrives(order: Any, call: Callable[..., Any]) -> None:
    array = np.array([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]], order=order)
    for part in (array, array.T, array[:, ::2], array[::-1, 1:], array[0, 0:0]):
        sent = memoryview(part)
        facts = call(views.facts, sent)
        assert facts == views.facts(sent)


def test_an_array_around_a_workers_memory_is_that_memory() -> None:
    async def main() -> None:
        async with Runner(workers=1) as runner:
            array = np.asarray(await runner.run(views.make, 1000, 7))
            assert array.shape == (1000,)
            assert set(array.tolist()) == {7}
            array[:] = 9
            assert await runner.run(values.total, memoryview(array)) == 9000

    asyncio.run(main())


def test_an_array_itself_needs_numpy_in_the_worker(call: Callable[..., Any]) -> None:
    """Which refuses subinterpreters so far: then the call fails by that error, and no other."""
    array = np.arange(5)
    (got,) = asyncio.run(results_of(values.echo, array))
    if isinstance(got, ImportError):
        assert "memoryview(array)" in got.__notes__[-1]
    else:
        assert got.tolist() == array.tolist()
    assert call(values.add, 1, 2) == 3


async def results_of(*call: Any) -> list[Any]:
    async with Runner(workers=1) as runner:
        return await asyncio.gather(runner.run(*call), return_exceptions=True)
