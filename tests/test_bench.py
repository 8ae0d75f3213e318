"""`python -m aiointerpreters bench`: what it measures, writes and refuses.

That it measures rightly no test can say; the figures are looked at.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.process import LINUX, eventually
from helpers.programs import Program, run

QUICK = 60.0  # seconds; all sections with all sides are to take no longer

SIZES = ["0 B", "1 KiB", "32 KiB", "1 MiB", "10 MiB"]

#: Tables by name, and their measures.
PROMISED = {
    "round-trip": ["back to back", "after 1 ms", "after 5 ms"],
    "throughput": ["gather", "map"],
    "payload-bytes": SIZES,
    "payload-str": SIZES,
    "payload-memoryview": SIZES,
    "payload-containers": [
        "dict of 20 fields",
        "1,000 ints",
        "1,000 strings",
        "50 JSON records",
    ],
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the suite needs process groups")


def bench(*arguments: str, limit: float = QUICK) -> Any:
    return run(["-m", "aiointerpreters", "bench", *arguments], limit=limit)


@pytest.mark.slow
@pytest.mark.timeout(2 * QUICK)
def test_a_quick_run_measures_what_is_promised_and_writes_all_samples(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.json"
    sides = "ThreadPoolExecutor,ProcessPoolExecutor,futex and eventfd,(asyncio alone)"

    ended = bench(
        *("latency", "throughput", "payloads", "--quick", "--loop", "asyncio"),
        *("--sides", sides, "--json", str(file)),
    )

    ended.assert_ended(0)
    result = json.loads(file.read_text())
    assert result["format"] == 1
    assert result["machine"]["versions"]["aiointerpreters"]
    assert result["settings"]["quick"] is True
    assert result["others_busy"] >= 0
    tables = {table["name"]: table for table in result["tables"]}
    for name, measures in PROMISED.items():
        table = tables[name]
        assert table["title"] in ended.out
        assert table["loop"] == "asyncio"
        assert [measure["name"] for measure in table["measures"]] == measures
        ours, *others = table["rows"]
        assert ours["side"] == "run"
        assert "ThreadPoolExecutor" in [row["side"] for row in others]
        for row in (ours, *others):
            for samples in row["samples"].values():
                assert samples
                assert min(samples) > 0
        assert set(ours["samples"]) == set(measures)


@pytest.mark.slow
def test_a_side_that_cannot_take_a_value_says_so(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    ended = bench(
        *("payloads", "--quick", "--loop", "asyncio", "--sides", "ProcessPoolExecutor"),
        *("--json", str(file)),
    )

    ended.assert_ended(0)
    assert "ProcessPoolExecutor: TypeError: cannot pickle" in ended.out
    tables = {table["name"]: table for table in json.loads(file.read_text())["tables"]}
    rows = {row["side"]: row for row in tables["payload-memoryview"]["rows"]}
    assert rows["ProcessPoolExecutor"]["samples"] == {}
    assert set(rows["ProcessPoolExecutor"]["notes"]) == set(SIZES)


def test_a_side_that_hangs_is_given_up_and_costs_only_what_it_hung_at() -> None:
    from aiointerpreters._bench import latency
    from aiointerpreters._bench._harness import Entry, Settings, Turn, alternate

    for_ever = Turn(latency.round_trips, ("after 1 ms", 1e9), limit=0.2, kind="hangs")
    soon = Turn(latency.round_trips, ("back to back", 0.001))
    entries = [Entry("a row", "(on the loop)", [for_ever, soon])]

    [row] = asyncio.run(alternate(Settings(rounds=2), entries))

    assert row.notes == {"hangs": "took longer than 0.2 s"}
    assert list(row.samples) == ["back to back"]


def test_a_side_whose_process_ends_leaves_a_note() -> None:
    from aiointerpreters._bench import latency
    from aiointerpreters._bench._harness import Entry, Settings, Turn, alternate

    wrong = Turn(latency.round_trips, ("back to back", "no number"))

    [row] = asyncio.run(alternate(Settings(rounds=1), [Entry("a row", "(on the loop)", [wrong])]))

    assert row.samples == {}
    assert row.notes[""].startswith("TypeError: ")


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_a_side_ends_with_all_its_processes_when_the_suite_is_killed() -> None:
    command = (sys.executable, "-m", "aiointerpreters._bench._child")
    side = subprocess.Popen(
        (*command, "ProcessPoolExecutor", "2", "asyncio"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with side:
        assert side.stdin is not None
        assert side.stdout is not None
        assert json.loads(side.stdout.readline()) == {"samples": {}}
        assert len(in_session(side.pid)) > 1
        side.stdin.close()
    assert eventually(lambda: in_session(side.pid) == [])


def in_session(session: int) -> list[int]:
    """The processes of a session, but for those that have ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


def test_a_target_against_the_best_peer_needs_a_peer() -> None:
    from aiointerpreters._bench._targets import computed

    rows = [{"side": "run", "samples": {"break-even": [9.0], "1 ms": [0.5]}}]

    targets = computed([{"name": "break-even", "loop": "asyncio", "rows": rows}])

    assert [target.name for target in targets] == ["break-even size of a task, on a busy loop"]


def test_thinned_samples_keep_their_percentiles() -> None:
    from aiointerpreters._bench._harness import KEPT, percentile, thinned

    samples = [float(number) for number in range(10_000)]

    kept = thinned(samples)

    assert len(kept) == KEPT
    assert (kept[0], kept[-1]) == (0.0, 9999.0)
    for percent in (50, 99):
        assert percentile(kept, percent) == pytest.approx(percentile(samples, percent), rel=0.01)


@pytest.mark.parametrize("spin_ns", [0, 50_000])
@pytest.mark.parametrize(
    "apart",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(
                not sys.platform.startswith("linux") or len(os.sched_getaffinity(0)) < 2,
                reason="needs two cores, and Linux",
            ),
        ),
    ],
)
def test_the_raw_floor_is_a_positive_duration_for_each_round(spin_ns: int, apart: bool) -> None:
    from aiointerpreters._floors import wake

    may_run_on = cores()

    durations = wake(20, spin_ns, 100_000, apart)

    assert len(durations) == 20
    assert min(durations) > 0
    assert cores() == may_run_on


def cores() -> object:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


@pytest.mark.parametrize("arguments", [(0, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_the_raw_floor_refuses_numbers_that_make_no_sense(arguments: tuple[int, int, int]) -> None:
    from aiointerpreters._floors import wake

    with pytest.raises(ValueError, match="at least"):
        wake(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latncy",), "there is no section 'latncy'; there are: latency, throughput, "),
        (("--sides", "run,trio"), "there is no side 'trio'; there are: run, submit, "),
        (("--workers", "0"), "argument --workers: invalid number value: '0'"),
        (("--loop", "trio"), "argument --loop: invalid choice: 'trio'"),
    ],
)
def test_what_does_not_exist_is_refused(arguments: tuple[str, ...], message: str) -> None:
    ended = bench(*arguments)

    ended.assert_ended(2)
    assert message in ended.err
    assert ended.out == ""


def test_the_help_explains_sections_and_sides() -> None:
    ended = bench("--help")

    ended.assert_ended(0)
    assert "  latency     one call at a time" in ended.out
    assert "  ThreadPoolExecutor" in ended.out


def test_importing_the_package_loads_nothing_of_the_suite(program: Program) -> None:
    program("""\
        import sys
        import aiointerpreters
        aiointerpreters.Runner
        assert not [name for name in sys.modules if "_bench" in name or "_floors" in name]
    """).assert_fine()
