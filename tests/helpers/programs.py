"""Run a program of its own, and look at how it ended."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.limits import PROGRAM

TESTS = Path(__file__).parent.parent

#: What no program of ours may leave on its standard error, however it ends.
NOISE = (
    "Fatal Python error",
    "Exception ignored",
    "Exception in thread",
    "Warning:",
    "was never awaited",
    "was never retrieved",
    "was destroyed but it is pending",
    "AddressSanitizer:",
    "runtime error:",  # UndefinedBehaviorSanitizer
)


@dataclass
class Ended:
    status: int
    out: str
    err: str

    def assert_quiet(self) -> None:
        for noise in NOISE:
            assert noise not in self.err, self.err

    def assert_ended(self, status: int = 0) -> None:
        assert self.status == status, f"status {self.status}\n{self.out}\n{self.err}"
        self.assert_quiet()

    def assert_fine(self) -> None:
        """Ended with status 0, and said nothing on standard error.

        Except that a callback took long, which asyncio's debug mode says of a busy machine.
        """
        self.assert_ended(0)
        said = re.sub(r"^Executing .* took \d+\.\d+ seconds\n", "", self.err, flags=re.MULTILINE)
        assert said == ""


def environment() -> dict[str, str]:
    """The environment of this process, in which the helpers and worker functions are found."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def _ended_by(process: subprocess.Popen[str], limit: float) -> Iterator[threading.Event]:
    """Abort the process and its children at the limit; faulthandler shows where they hang."""
    too_late = threading.Event()

    def abort() -> None:
        too_late.set()
        os.killpg(process.pid, signal.SIGABRT)

    timer = threading.Timer(limit, abort)
    timer.start()
    try:
        yield too_late
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()


def run(
    arguments: Sequence[str | os.PathLike[str]],
    *,
    flags: Sequence[str] = (),
    cwd: Path | None = None,
    stdin: str = "",
    interrupt: bool = False,
    env: dict[str, str] | None = None,
    limit: float = PROGRAM,
) -> Ended:
    """Run `python *flags *arguments` to its end; fail if it has not ended at the limit.

    With `interrupt`, send it a Ctrl-C once it has printed a line `ready`.
    """
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *flags, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment() | (env or {}),
        process_group=0,
    )
    before = ""
    with process, _ended_by(process, limit) as too_late:
        if interrupt:
            assert process.stdout is not None
            for line in process.stdout:
                before += line
                if line == "ready\n":
                    process.send_signal(signal.SIGINT)
                    break
        out, err = process.communicate(stdin)
    ended = Ended(process.returncode, before + out, err)
    if too_late.is_set():
        pytest.fail(f"the program did not end\n{ended.out}\n{ended.err}", pytrace=False)
    return ended


class Program:
    """Writes source texts to a folder, and runs them (the fixture `program`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, source: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return path

    def __call__(
        self,
        source: str,
        *arguments: str,
        flags: Sequence[str] = (),
        stdin: str = "",
        interrupt: bool = False,
        env: dict[str, str] | None = None,
        limit: float = PROGRAM,
    ) -> Ended:
        path = self.write("program.py", source)
        return run(
            [path, *arguments],
            flags=flags,
            stdin=stdin,
            interrupt=interrupt,
            env=env,
            limit=limit,
        )
