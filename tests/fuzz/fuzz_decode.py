"""Fuzz the decoder of messages: `make fuzz` runs this.

First come the inputs that once went wrong, in corpus/ and in deep_inputs(), then libFuzzer, which
starts from messages of ordinary values and from what earlier runs found (in the work folder).
"""

import argparse
import ctypes
import gc
import os
import resource
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from aiointerpreters import Queue, Shared, _core

HERE = Path(__file__).parent
MAX_SIZE = 4096  # of libFuzzer's inputs
ALLOWED = 1024  # MiB that decoding the first inputs may take

# The sanitizer's library must not get into the programs that it starts: its symbolizer would hang.
os.environ.pop("LD_PRELOAD", None)

# A call by ctypes with the GIL held, as an extension's function.
target = ctypes.PyDLL(_core.__file__)
for name, result, parameters in [
    ("fuzz_start", ctypes.py_object, 4),
    ("fuzz_encode", ctypes.py_object, 1),
    ("fuzz_one", None, 1),
    ("fuzz_run", None, 1),
]:
    function = getattr(target, name)
    function.restype = result
    function.argtypes = [ctypes.py_object] * parameters


class Plain:
    """Something that goes as a pickle."""


def things_to_hold() -> list[object]:
    """One of each kind that a message holds: lent, viewed, shared."""
    size = 32 * 1024  # lent from this size on
    return [
        b"b" * size,
        bytearray(b"B" * size),
        "a" * size,
        "\xe9" * size,
        "\u20ac" * size,
        "\U0001f40d" * size,
        memoryview(b"read only"),
        memoryview(bytearray(range(24))).cast("B", (2, 3, 4)),
        memoryview(b"every other")[::2],
        Queue(),
        Shared({"list": [1, 2], "view": memoryview(b"shared"), "lent": b"s" * size}),
    ]


def ordinary_values() -> Iterator[object]:
    yield from (None, True, False, 0, -1, 2**63, -(2**200), 1.5, 1 - 2j)
    yield from ("", "a", "\xe9", "abc", "\xe9t\xe9", "\u20ac\u20ac", "\U0001f40d!", "\ud800")
    yield from (b"", b"bytes", bytearray(b"more"))
    yield from ((), [], {}, set(), frozenset())
    yield from ((1, "two", b"3"), [None, [True, [False]]], {"key": 1, (2, 3): {}, None: []})
    yield from ({1, "a", (2, b"b")}, frozenset({frozenset(), 1}))
    yield from (Plain(), [Plain, {Plain: Plain()}])


def ordinary_messages() -> Iterator[bytes]:
    encode = target.fuzz_encode
    for value in ordinary_values():
        yield encode(value)
    yield encode((1, [2])) + encode({})
    yield encode(Plain) + encode((1, "two")) + encode({"key": None})


def deep_inputs() -> Iterator[tuple[str, bytes]]:
    """Yield the inputs that only hurt where there is much of them."""

    def nested(tag: bytes, count: int, levels: int) -> bytes:
        return (tag + struct.pack("=Q", count)) * levels

    for tag in b"tldszp":
        levels = 300_000
        one = bytes([tag])
        yield f"deep {one!r}", one * levels if tag == ord("p") else nested(one, 1, levels)
    # Each promises as many values as there are bytes left.
    for tag in b"tl":
        levels = 20_000
        yield f"greedy {bytes([tag])!r}", nested(bytes([tag]), 9 * levels // 2, levels)


def replay() -> None:
    """Decode what went wrong once."""
    inputs = [(path.name, path.read_bytes()) for path in sorted((HERE / "corpus").iterdir())]
    for title, data in [*inputs, *deep_inputs()]:
        print(f"replaying {title}", flush=True)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        target.fuzz_one(data)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        if grown > ALLOWED:
            sys.exit(f"decoding {len(data)} bytes took {grown} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the decoder of messages.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is found")
    parser.add_argument("arguments", nargs="*", help="more for libFuzzer")
    options = parser.parse_args()

    first = target.fuzz_start(_core, things_to_hold(), lambda *given: given, gc.get_objects)
    seeds, found = options.work / "seeds", options.work / "found"
    shutil.rmtree(seeds, ignore_errors=True)
    seeds.mkdir(parents=True)
    found.mkdir(exist_ok=True)
    for number, data in enumerate([first, *ordinary_messages()]):
        (seeds / f"{number:02}").write_bytes(data)

    gc.collect()
    gc.freeze()  # what is there already needs no looking at
    replay()

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = [
        "fuzz_decode",
        f"-max_total_time={options.seconds}",
        f"-max_len={MAX_SIZE}",
        "-malloc_limit_mb=64",
        "-timeout=10",
        "-print_final_stats=1",
        "-print_funcs=0",
        f"-dict={HERE / 'decode.dict'}",
        f"-artifact_prefix={options.work}/",
        *options.arguments,
        found,
        seeds,
        HERE / "corpus",
    ]
    sys.stdout.flush()
    target.fuzz_run([str(argument).encode() for argument in arguments])


if __name__ == "__main__":
    main()
