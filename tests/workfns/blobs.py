"""Large bytes, bytearrays and texts."""

import hashlib
import os
from typing import Any

ALPHABETS = {"ascii": "a", "latin-1": "\xe9", "two bytes": "\u6f22", "four bytes": "\U0001f40d"}


def make(kind: str, size: int, seed: int = 1) -> Any:
    """A value of about `size` bytes that is different at each place."""
    pattern = bytes((n * seed) % 251 for n in range(1_009))
    data = (pattern * (size // len(pattern) + 1))[:size]
    if kind == "bytes":
        return data
    if kind == "bytearray":
        return bytearray(data)
    text = "".join(chr(32 + n % 90) for n in data[:997])
    text = (text * (size // len(text or "x") + 1))[: max(size - 1, 0)]
    return text + ALPHABETS[kind] if size else ""


def digest(value: Any) -> tuple[str, int, str]:
    data = value.encode("utf-8") if isinstance(value, str) else value
    return type(value).__name__, len(value), hashlib.sha256(data).hexdigest()


def digest_after(announce_fd: int, wait_fd: int, value: Any) -> tuple[str, int, str]:
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return digest(value)


def make_after(announce_fd: int, wait_fd: int, kind: str, size: int) -> Any:
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return make(kind, size)


def grow(data: bytearray) -> bytearray:
    data.extend(b"more")
    return data


def look_up(table: Any, key: Any) -> Any:
    return table[key]


def contains(collection: Any, item: Any) -> bool:
    return item in collection


def many(kind: str, size: int, count: int) -> list[Any]:
    return [make(kind, size, seed) for seed in range(1, count + 1)]


def large_and_unsendable(size: int) -> Any:
    return [bytes(size), bytearray(size), "x" * size, (item for item in ())]
