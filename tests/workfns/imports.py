"""Functions that import while they run."""

import _thread
import contextlib
import os
import sys
from collections.abc import Sequence

LOCK = _thread.allocate_lock()


def by_statement(name: str, mark_fd: int) -> str:
    exec(f"import {name}")
    os.write(mark_fd, b"c")
    return name


def by_importlib(name: str, mark_fd: int) -> str:
    import importlib

    importlib.import_module(name)
    os.write(mark_fd, b"c")
    return name


def by_importlib_within(name: str, mark_fd: int) -> str:
    from importlib import import_module

    import_module(name=name)
    os.write(mark_fd, b"c")
    return name


async def by_statement_soon(name: str, mark_fd: int) -> str:
    return by_statement(name, mark_fd)


def import_under_lock(name: str, announce_fd: int) -> str:
    with LOCK:
        os.write(announce_fd, b".")
        __import__(name)
    return name


def import_a_dataclass(name: str) -> str:
    __import__(name)
    __import__("workfns.a_dataclass")
    return name


def _import_again(names: Sequence[str]) -> None:
    for name in names:
        sys.modules.pop(name, None)
        with contextlib.suppress(KeyError):  # somebody else has just taken it away
            __import__(name)


def _extend_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def again_for_ever(folder: str, names: Sequence[str]) -> None:
    _extend_path(folder)
    while True:
        _import_again(names)


async def again_soon(folder: str, names: Sequence[str], times: int) -> None:
    _extend_path(folder)
    for _ in range(times):
        _import_again(names)
