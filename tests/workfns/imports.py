"""Functions that import while they run."""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # `typing` is not to be loaded for it
if TYPE_CHECKING:
    from typing import Any

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


def hold_up(held: str, asked: str, announce_fd: int, wait_fd: int) -> None:
    """From now on `held` waits at the gate when it is loaded; and it is announced when finders,
    which have the import lock, are asked for `asked`.
    """
    sys.meta_path.insert(1, _HoldsUp(held, asked, announce_fd, wait_fd))  # after ours


class _HoldsUp:
    """The finder for that, and the loader of what it holds up."""

    def __init__(self, held: str, asked: str, announce_fd: int, wait_fd: int) -> None:
        self.held, self.asked, self.announce_fd, self.wait_fd = held, asked, announce_fd, wait_fd
        self.path_finder: Any = sys.meta_path[-1]  # without importing anything
        self.loader: Any = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name == self.asked:
            os.write(self.announce_fd, b".")
        if name != self.held:
            return None
        spec = self.path_finder.find_spec(name, path, target)
        assert spec is not None
        self.loader, spec.loader = spec.loader, self  # type: ignore[assignment]
        return spec

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        os.write(self.announce_fd, b".")
        os.read(self.wait_fd, 1)
        self.loader.exec_module(module)


def import_it(name: str) -> str:
    return str(__import__(name).__name__)


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
