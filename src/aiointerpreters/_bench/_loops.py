"""The event loops that can be measured, by name: asyncio's own, and uvloop's where installed."""

import asyncio
import contextlib
import warnings
from collections.abc import Callable

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}

with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # uvloop uses what 3.14 deprecates
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
