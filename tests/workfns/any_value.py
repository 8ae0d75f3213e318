"""Looking at any value whatever."""

from collections import deque
from typing import Any

from helpers.sameness import view_facts


def unfolded(value: Any) -> Any:
    """The same in native values only, with every view told by what it says of itself."""
    if isinstance(value, memoryview):
        return "memoryview", *view_facts(value)
    name = type(value).__qualname__
    if isinstance(value, (list, tuple, deque)):
        return name, [unfolded(item) for item in value]
    if isinstance(value, dict):
        return name, [(unfolded(key), unfolded(item)) for key, item in value.items()]
    if isinstance(value, (set, frozenset)):
        return name, sorted(repr(unfolded(item)) for item in value)
    if value is None or type(value) in (bool, int, float, complex, str, bytes, bytearray):
        return value
    if hasattr(value, "__dict__") and type(value).__module__.startswith("workfns"):
        return name, unfolded(vars(value)) if type(value).__repr__ is object.__repr__ else [
            unfolded(part) for part in vars(value).values()
        ]
    return name, repr(value)
