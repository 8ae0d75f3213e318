"""What the suite calls in workers: importable by every peer, and little is imported here.

The original package's workers find it under another package's name; so nothing here imports ours.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # each worker would keep them in memory
    from collections.abc import Callable
    from typing import Any


def noop(value: object = None) -> object:
    """Do nothing: only the way there and back is measured."""
    return value


def nap(seconds: float) -> None:
    """Keep a worker occupied, so that the next call starts another one."""
    time.sleep(seconds)


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call it: for aiomultiprocess, which runs coroutine functions only."""
    return function(*args)
