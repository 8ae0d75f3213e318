"""Nothing grows with use: memory, file descriptors, threads. Each program measures itself."""

import re
import sys
from pathlib import Path

import pytest

from helpers import programs
from helpers.limits import CHECKED, SLOWNESS
from helpers.process import LINUX

LEAKS = Path(__file__).parent / "leaks"

pytestmark = [
    pytest.mark.skipif(not LINUX, reason="measures by /proc"),
    pytest.mark.skipif(CHECKED, reason="the checker's own memory grows"),
]


def grown_by(name: str, *arguments: str, limit: float = 55) -> float:
    ended = programs.run([LEAKS / f"{name}.py", *arguments], limit=limit * SLOWNESS)
    ended.assert_fine()
    found = re.search(r"^grown by (-?[\d.]+)$", ended.out, re.MULTILINE)
    assert found, ended.out
    return float(found[1])


@pytest.mark.parametrize(
    "name",
    [
        "tasks",
        "executor",
        "failures",
        "cancelled",
        "coroutines",
        "interrupts",
        "expiries",
        "payloads",
        "loops",
        "views",
        "small_views",
        "blobs",
        "queues",
        "shared",
        "lambdas",
        "logs",
    ],
)
def test_the_process_does_not_grow(name: str) -> None:
    grown_by(name)


@pytest.mark.slow
@pytest.mark.timeout(600 * SLOWNESS)
def test_a_million_tasks_leave_nothing_behind() -> None:
    grown_by("tasks", "--rounds", "1000", limit=550)


@pytest.mark.slow
@pytest.mark.timeout(1_800 * SLOWNESS)
def test_a_million_lambdas_leave_nothing_behind() -> None:
    grown_by("lambdas", "--rounds", "1000", limit=1_700)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="CPython 3.13 leaks every interpreter")
@pytest.mark.timeout(120 * SLOWNESS)
def test_views_that_outlive_their_runners_leave_nothing_behind() -> None:
    grown_by("views_of_runners", limit=110)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="CPython 3.13 leaks every interpreter")
@pytest.mark.timeout(120 * SLOWNESS)
def test_replaced_workers_leave_nothing_behind() -> None:
    grown_by("renewals", limit=110)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="CPython 3.13 leaks every interpreter")
@pytest.mark.timeout(120 * SLOWNESS)
def test_200_runners_leave_nothing_behind() -> None:
    grown_by("runners", limit=110)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="CPython 3.13 leaks every interpreter")
@pytest.mark.timeout(120 * SLOWNESS)
def test_runners_of_coroutines_leave_nothing_behind() -> None:
    grown_by("runners_of_coroutines", limit=110)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 does not leak interpreters")
@pytest.mark.timeout(120 * SLOWNESS)
def test_runners_leak_no_more_than_the_interpreters_of_cpython() -> None:
    size = ("--warm-up", "5", "--rounds", "40")
    ours = grown_by("runners", *size, "--allowed", "inf", limit=55)
    theirs = grown_by("bare_interpreters", *size, limit=55)
    assert ours < theirs * 1.25 + 6
