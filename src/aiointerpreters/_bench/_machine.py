"""Where the suite runs, and what else does meanwhile."""

import contextlib
import os
import platform
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

_PACKAGES = ("aiointerpreters", "anyio", "loky", "aiomultiprocess", "uvloop")


def describe() -> dict[str, Any]:
    """Describe the machine, for the reader of the results."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "python": platform.python_version(),
        "build": " ".join(platform.python_build()),
        "compiler": platform.python_compiler(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": cores(),
        "cpu": _cpu(),
        "versions": versions,
    }


def cores() -> int:
    """Return how many cores we may use."""
    return os.process_cpu_count() or 1


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


class Load:
    """How many cores other programs kept busy since this was made; known on Linux."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._used = _used_cpu()

    def others(self) -> float:
        """Return it. All processes of ours that have ended by now count as ours."""
        machine, ours = (
            after - before for after, before in zip(_used_cpu(), self._used, strict=True)
        )
        return max(0.0, machine - ours) / (time.perf_counter() - self._began)


def _used_cpu() -> tuple[float, float]:
    """Return the CPU seconds used so far: by the whole machine; by us and our ended children."""
    ours = sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    if not sys.platform.startswith("linux"):
        return ours, ours
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _idle, _iowait, *interrupts = map(int, stat.readline().split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK"), ours
