"""Real packages that refuse subinterpreters, in processes: numpy, Pillow, orjson."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import Runner, UnsupportedModule
from workfns import lazily


def shares_memory() -> bool:
    maps = Path("/proc/self/maps")
    return maps.exists() and "memfd:aiointerpreters" in maps.read_text()


def run(main: Callable[[Runner], Any], **options: Any) -> Any:
    async def with_runner() -> Any:
        async with Runner(**{"workers": 2, "unsupported": "process"} | options) as runner:
            return await main(runner)

    return asyncio.run(with_runner())


class TestNumpy:
    np: Any
    arrays: Any

    @pytest.fixture(autouse=True)
    def _load(self) -> None:
        self.np = pytest.importorskip("numpy", reason="numpy has no wheel for this Python")
        from workfns import arrays

        self.arrays = arrays

    def test_the_default_names_its_extension_module(self) -> None:
        async def main(runner: Runner) -> None:
            with pytest.raises(UnsupportedModule, match=r"workfns\.arrays\.zeros") as caught:
                await runner.run(self.arrays.zeros, 3)
            assert caught.value.name.startswith("numpy.")
            assert caught.value.name in str(caught.value)

        run(main, unsupported="error")

    def test_arrays_arrive_as_they_are(self) -> None:
        async def main(runner: Runner) -> None:
            np = self.np
            readonly = np.arange(4)
            readonly.flags.writeable = False
            for array in (
                np.arange(5, dtype="i4"),
                np.arange(12.0).reshape(3, 4)[:, ::2],
                np.asfortranarray(np.arange(6).reshape(2, 3)),
                np.array(["a", "bc"]),
                np.zeros((0, 3)),
                np.zeros(300_000, dtype="u1"),
                readonly,
            ):
                got = await runner.run(self.arrays.describe, array)
                expected = self.arrays.describe(array)
                assert got[:2] == expected[:2]
                assert got[3] == expected[3]

        run(main)

    def test_50_mb_there_and_back(self) -> None:
        async def main(runner: Runner) -> None:
            np = self.np
            array = np.random.default_rng(1).random(50_000_000 // 8)
            got = await runner.run(self.arrays.doubled, array)
            assert np.array_equal(got, array * 2)
            got[0] = 1.0  # it is the program's own
            assert shares_memory() or sys.platform != "linux"
            del got
            await runner.run(self.arrays.zeros, 1)  # so the thread that received it has let it go
            assert not shares_memory()

        run(main, workers=1)

    def test_an_array_for_a_function_that_needs_no_numpy(self) -> None:
        async def main(runner: Runner) -> None:
            assert await runner.run(lazily.type_name, 1) == "int"
            array = self.np.arange(3)
            for call in (runner.run, runner.submit, runner.submit):
                assert await call(lazily.type_name, array) == "ndarray"
            # Only the calls with arrays have gone there.
            assert "type_name" not in str(runner.stats().in_processes)
            assert await runner.run(lazily.type_name, "x") == "str"

        run(main)

    def test_a_map_of_arrays_over_a_function_that_needs_no_numpy(self) -> None:
        async def main(runner: Runner) -> None:
            items = [self.np.arange(3), 1, 2, self.np.arange(3), 3.5]
            got = [name async for name in runner.map(lazily.type_name, items)]
            assert got == ["ndarray", "int", "int", "ndarray", "float"]
            # Only the calls with arrays have gone there.
            assert "type_name" not in str(runner.stats().in_processes)

        run(main)

    def test_a_map_and_a_stream_of_arrays(self) -> None:
        async def main(runner: Runner) -> None:
            np = self.np
            pieces = (np.full(10, n) for n in range(8))
            got = [total async for total in runner.map(self.arrays.total, pieces)]
            assert got == [10.0 * n for n in range(8)]
            big = [part async for part in runner.stream(self.arrays.chunks, 4, 100_000)]
            assert [part[-1] for part in big] == [0, 1, 2, 3]

        run(main)

    def test_in_a_thread_it_is_the_callers_array(self) -> None:
        async def main(runner: Runner) -> None:
            array = self.np.ones(5)
            assert await runner.options(where="thread").run(self.arrays.doubled, array) is array
            assert array.tolist() == [2.0] * 5

        run(main)


def test_pillow() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow has no wheel for this Python")
    from workfns import images

    async def main(runner: Runner) -> None:
        picture = await runner.run(images.make, 640, 480)
        small = await runner.run(images.thumbnail, picture, 64)
        assert small.startswith(b"\x89PNG")
        turned = await runner.run(images.rotated, image.new("L", (900, 700)))
        assert turned.size == (700, 900)

    run(main)


def test_orjson() -> None:
    pytest.importorskip("orjson", reason="orjson has no wheel for this Python")
    from workfns import quick_json

    async def main(runner: Runner) -> None:
        value = {"key": [1, 2.5, None, "text" * 100_000]}
        text = await runner.run(quick_json.dump, value)
        assert await runner.run(quick_json.load, text) == value
        with pytest.raises(ValueError, match="expected"):
            await runner.run(quick_json.load, b"[nonsense")

    run(main)
