"""The annotations promise what users rely on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("uses", ["usage.py", "usage_anyio.py"])
def test_a_type_checker_agrees_with_the_uses(uses: str, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    if uses == "usage_anyio.py":
        for name in ("anyio", "trio"):
            pytest.importorskip(name, reason=f"{name} has no wheel for this Python")
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "mypy", "--strict", "--no-incremental", "--cache-dir", os.devnull),
            "--config-file=",
            str(TESTS / "typing" / uses),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(TESTS.parent / "src")},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_says_that_it_is_typed() -> None:
    import importlib.resources

    assert importlib.resources.files("aiointerpreters").joinpath("py.typed").is_file()
