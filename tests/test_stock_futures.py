"""CPython's own tests of executors, with ours and with CPython's: tests/compat/stock_futures.py.

They come with the interpreter: in Debian's package libpythonX.Y-testsuite, which is fetched without
touching the system.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import test

from helpers.limits import CHECKED
from helpers.programs import TESTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHECKED, reason="the checker slows CPython's tests beyond their own limits"),
]

COMPAT = TESTS / "compat"
TOOL = TESTS.parent / "tools" / "debian-package"

#: Seconds for all tests of one side; they take one minute.
LIMIT = 400

type Outcomes = dict[str, str]


@pytest.fixture(scope="module")
def stock_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `test` in full: a part of it is in another package."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"libpython{version}-testsuite"
    fetched = subprocess.run(
        [sys.executable, TOOL, name], capture_output=True, text=True, timeout=300
    )
    if fetched.returncode != 0:
        pytest.skip(f"Debian's package {name} can't be had: {fetched.stderr.strip()[-200:]}")
    folder = tmp_path_factory.mktemp("stock")
    merged = folder / "test"
    merged.mkdir()
    suite = Path(fetched.stdout.strip()) / "usr" / "lib" / f"python{version}" / "test"
    for part in (suite, *map(Path, test.__path__)):
        for entry in part.iterdir():
            if entry.name != "__pycache__" and not (merged / entry.name).exists():
                (merged / entry.name).symlink_to(entry)
    return folder


def run_side(side: str, stock_tests: Path) -> Outcomes:
    results = stock_tests / f"{side}.json"
    ended = subprocess.run(
        [sys.executable, COMPAT / "stock_futures.py", side, results],
        env={**os.environ, "PYTHONPATH": f"{stock_tests}{os.pathsep}{COMPAT}"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    outcomes: Outcomes = json.loads(results.read_text())
    return outcomes


def passed(outcomes: Outcomes) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome == "passed"}


@pytest.fixture(scope="module")
def ours(stock_tests: Path) -> Outcomes:
    return run_side("ours", stock_tests)


@pytest.mark.timeout(LIMIT + 320)
def test_no_stock_test_fails_with_our_executor(ours: Outcomes) -> None:
    failed = {name: why for name, why in ours.items() if why.startswith("failed")}
    assert not failed, "\n".join(f"{name}: {why}" for name, why in failed.items())
    assert len(passed(ours)) >= 30  # CPython 3.13 has fewest


@pytest.mark.timeout(2 * LIMIT + 320)
@pytest.mark.skipif(sys.version_info < (3, 14), reason="CPython 3.13 has no such executor")
def test_our_executor_passes_as_many_stock_tests_as_the_standard_librarys(
    ours: Outcomes, stock_tests: Path
) -> None:
    stdlib = run_side("stdlib", stock_tests)
    print(f"ours: {len(passed(ours))} of {len(ours)}, the stdlib's: {len(passed(stdlib))}")
    assert ours.keys() == stdlib.keys()
    assert len(passed(ours)) >= len(passed(stdlib))
