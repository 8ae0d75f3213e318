"""Functions of a module that imports orjson."""

from typing import Any

import orjson


def dump(value: Any) -> bytes:
    return orjson.dumps(value)


def load(text: bytes) -> Any:
    return orjson.loads(text)
