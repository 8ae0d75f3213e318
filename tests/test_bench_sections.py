"""Sections of `python -m aiointerpreters bench` about whole pools; what they are made of.

That they measure rightly no test can say; the figures are looked at.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from aiointerpreters import Runner
from helpers.limits import SLOWNESS
from helpers.programs import run

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the suite needs process groups")

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")

#: Tables by name, the row of the floor, and some of the measures.
PROMISED = {
    "speed-up": (None, {"parse HTML", "render", "tokenize", "JSON", "numbers", "300 us"}),
    "scaling": ("(processes alone)", {"numbers, 1 ms", "parse HTML, 1 ms"}),
    "break-even": (None, {"10 us", "1 ms", "added to a lone call"}),
    "start-up": ("(bare interpreters)", {"8 workers"}),
    "memory": ("(bare interpreters)", {"each worker"}),
    "lag": ("(idle loop)", {"p50", "p99", "max"}),
    "cpu-lightly-loaded": ("(asyncio alone)", {"CPU time", "calls"}),
    "cpu-idle": ("(asyncio alone)", {"CPU time", "wake-ups"}),
}


@LINUX
@pytest.mark.slow
@pytest.mark.timeout(120 * SLOWNESS)
def test_a_quick_run_measures_whole_pools_and_says_which_targets_it_meets(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    sections = ("real-work", "start-up", "memory", "lag", "cpu")

    ended = run(
        [
            *("-m", "aiointerpreters", "bench", *sections, "--quick", "--loop", "asyncio"),
            *("--sides", "ThreadPoolExecutor,(asyncio alone)", "--json", str(file)),
        ],
        limit=100,
    )

    ended.assert_ended(0)
    tables = {table["name"]: table for table in json.loads(file.read_text())["tables"]}
    assert set(tables) == set(PROMISED)
    for name, (floor, measures) in PROMISED.items():
        rows = {row["side"]: row["samples"] for row in tables[name]["rows"]}
        assert next(iter(rows)) == "run"
        for side in ("run", floor) if floor else ("run",):
            assert measures <= set(rows[side]), (name, side)
            assert all(rows[side].values())
    assert "start-up of 8 workers, against bare interpreters" in ended.out
    assert "targets are met." in ended.out


# ---- bare interpreters ----


class TestBareInterpreters:
    def test_the_time_that_they_take_is_returned(self) -> None:
        from aiointerpreters._floors import interpreters

        assert interpreters(3) > 0

    @LINUX
    def test_they_live_while_the_function_runs(self) -> None:
        from aiointerpreters._floors import interpreters

        names: list[str] = []

        def name_threads() -> None:
            names.extend(
                path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")
            )

        interpreters(5, name_threads)

        assert names.count("aio-floor") >= 5

    def test_an_exception_of_the_function_is_raised_when_they_have_ended(self) -> None:
        from aiointerpreters._floors import interpreters

        def fail() -> None:
            raise LookupError("nothing here")

        with pytest.raises(LookupError, match="nothing here"):
            interpreters(2, fail)
        assert interpreters(1) > 0

    @pytest.mark.parametrize("threads", [0, -1])
    def test_no_threads_are_refused(self, threads: int) -> None:
        from aiointerpreters._floors import interpreters

        with pytest.raises(ValueError, match="at least 1"):
            interpreters(threads)


# ---- meetings ----


def test_a_meeting_is_over_when_every_worker_has_come() -> None:
    from aiointerpreters._bench._meeting import Meeting

    async def main() -> None:
        with Meeting() as meeting:
            async with Runner(workers=3) as runner:
                for _ in range(2):
                    await meeting.hold(runner.run, 3)
                    assert runner.stats().done % 3 == 0

    asyncio.run(main())


# ---- work ----


class TestWork:
    def test_each_kind_does_what_it_says(self) -> None:
        from aiointerpreters._bench import _tasks

        def result(kind: str, amount: int) -> Any:
            work = _tasks.KINDS[kind]
            return work.function(*work.arguments(amount))

        assert result("parse HTML", 4)[-1] == ("/wiki/Page_3?from=21&lang=en", "page 3")
        assert result("render", 3).count("<tr ") == 3
        assert "Article &lt;2&gt;" in result("render", 3)
        assert result("tokenize", 5)["COMMENT"] == 5
        customers = json.loads(result("JSON", 3))
        assert customers["Customer 2"] == {
            "amount": 4.0,
            "items": ["item 0", "item 1"],
            "orders": 1,
        }
        assert result("numbers", 10) == pytest.approx(1 / 3)

    def test_amounts_grow_with_the_time_that_they_are_to_take(self) -> None:
        from aiointerpreters._bench._tasks import sized

        small, large = sized("numbers", [1e-5, 1e-3])

        assert 1 <= small < large


# ---- break-even ----


class TestBreakEven:
    def test_it_lies_where_the_ratio_crosses_one(self) -> None:
        from aiointerpreters._bench.real_work import crossing

        assert crossing([(1.0, 2.0), (4.0, 0.5)]) == pytest.approx(2.0)
        assert crossing([(1.0, 4.0), (10.0, 1.0), (100.0, 0.25)]) == pytest.approx(10.0)

    def test_what_pays_everywhere_pays_from_the_first_size_on(self) -> None:
        from aiointerpreters._bench.real_work import crossing

        assert crossing([(3.0, 0.9), (10.0, 0.6)]) == 3.0

    def test_what_never_pays_has_none(self) -> None:
        from aiointerpreters._bench.real_work import crossing

        assert crossing([(3.0, 3.0), (10.0, 1.2)]) is None

    def test_it_must_pay_for_good(self) -> None:
        from aiointerpreters._bench.real_work import crossing

        assert crossing([(1.0, 2.0), (2.0, 0.5), (4.0, 2.0), (16.0, 0.5)]) == pytest.approx(8.0)


# ---- targets ----


def a_table(name: str, rows: dict[str, dict[str, list[float]]], loop: str = "asyncio") -> Any:
    rows_as_json = [{"side": side, "samples": samples} for side, samples in rows.items()]
    return {"name": name, "loop": loop, "rows": rows_as_json}


class TestTargets:
    def test_they_are_computed_from_medians(self) -> None:
        from aiointerpreters._bench._targets import computed

        start_up = a_table(
            "start-up",
            {
                "run": {"8 workers": [20.0, 21.0, 99.0]},
                "(bare interpreters)": {"8 workers": [20.0, 20.0, 1.0]},
            },
        )

        [target] = computed([start_up])

        assert target.met
        assert (target.wanted, target.got) == ("≤ 1.10 times", "1.05 times")

    def test_one_that_is_missed_says_so(self) -> None:
        from aiointerpreters._bench._targets import summary

        memory = a_table(
            "memory",
            {
                "run": {"each worker": [3000.0]},
                "(bare interpreters)": {"each worker": [2500.0]},
            },
        )

        text = summary([memory])

        assert "≤ 200 kB" in text
        assert "500 kB   MISSED" in text
        assert "0 of 1 targets are met." in text

    def test_what_was_not_measured_is_left_out(self) -> None:
        from aiointerpreters._bench._targets import computed, summary

        assert computed([a_table("throughput", {"run": {"gather": [3e5]}})])[0].met
        assert summary([]) == ""
