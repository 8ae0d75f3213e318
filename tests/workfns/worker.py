"""What a worker says about itself, and state that it keeps."""

import atexit
import os
import sys
import threading
import warnings
from typing import Any

calls = 0
prepared: list[Any] = []


def count_calls() -> int:
    """How often this worker has called this."""
    global calls
    calls += 1
    return calls


def prepare(*items: Any) -> None:
    """An initializer."""
    prepared.append(items)


def prepare_with_mark(fd: int) -> None:
    os.write(fd, b"i")


def fail_to_prepare(reason: str = "not prepared") -> None:
    raise LookupError(reason)


def exit_while_preparing() -> None:
    raise SystemExit(3)


def what_was_prepared() -> list[Any]:
    return list(prepared)


def identity() -> int:
    """Tells the workers that are alive apart."""
    return threading.get_native_id()


def has_module(name: str) -> bool:
    return name in sys.modules


def surroundings() -> dict[str, Any]:
    return {
        "argv": list(sys.argv),
        "path": list(sys.path),
        "cwd": os.getcwd(),
        "flags": tuple(sys.flags),
        "xoptions": dict(sys._xoptions),
        "warnoptions": list(sys.warnoptions),
        "executable": sys.executable,
        "prefix": sys.prefix,
    }


def environment_variable(name: str) -> str | None:
    return os.environ.get(name)


def warn_of_deprecation() -> str:
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    return "warned"


def asserts_are_on() -> bool:
    try:
        assert False  # noqa: PT015
    except AssertionError:
        return True
    return False


def run_an_event_loop() -> int:
    import asyncio

    async def main() -> int:
        await asyncio.sleep(0)
        return 42

    return asyncio.run(main())


def start_a_runner() -> Any:
    import asyncio

    from aiointerpreters import Runner

    async def main() -> Any:
        async with Runner(workers=1) as runner:
            return await runner.run(abs, -1)

    return asyncio.run(main())


def run_a_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(42))
    thread.start()
    thread.join()
    return found[0]


def leave_a_thread_behind(announce_fd: int, wait_fd: int, mark_fd: int) -> None:
    """Start a thread that outlives this call, until the gate opens."""

    def wait_and_mark() -> None:
        os.write(announce_fd, b".")
        os.read(wait_fd, 1)
        os.write(mark_fd, b"t")

    threading.Thread(target=wait_and_mark).start()


def mark_at_exit(fd: int, mark: bytes) -> None:
    atexit.register(os.write, fd, mark)


def run_a_subprocess() -> str:
    import subprocess

    return subprocess.check_output([sys.executable, "-c", "print(6 * 7)"], text=True)
