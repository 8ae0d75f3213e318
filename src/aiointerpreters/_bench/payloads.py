"""How long values take to a worker and back: `await call(echo, value)`, one call in flight.

Each result is dropped before the next call, and that isn't counted.
"""

from functools import partial
from itertools import repeat
from typing import Any

from ._harness import (
    Entry,
    Measure,
    Row,
    Samples,
    Settings,
    Table,
    Turn,
    alternate,
    no_collections,
    timed,
)
from ._sides import OURS, PEERS, Opened
from ._work import noop as echo

SIZES = {
    "0 B": 0,
    "1 KiB": 2**10,
    "32 KiB": 2**15,
    "1 MiB": 2**20,
    "10 MiB": 10 * 2**20,
    "100 MB": 100_000_000,
}
TITLES = {
    "bytes": "bytes to a worker and back",
    "str": "A str to a worker and back",
    "containers": "Nested containers to a worker and back",
    "memoryview": "A memoryview to a worker and back",
}
CONTAINERS = ("dict of 20 fields", "1,000 ints", "1,000 strings", "50 JSON records")


async def measure(settings: Settings) -> list[Table]:
    """Measure every side, with every value that it can take."""
    seconds = 0.005 if settings.quick else 0.1
    names = {kind: values(kind, settings.quick) for kind in TITLES}
    turns = [
        Turn(there_and_back, (kind, name, seconds), 2 if settings.quick else 20, kind)
        for kind in names
        for name in names[kind]
    ]
    ours = OURS[0]
    entries = [
        Entry(name, name, turns) for name in (ours, *PEERS) if name == ours or settings.wants(name)
    ]
    rows = await alternate(settings, entries)
    return [
        Table(
            f"payload-{kind}",
            title,
            "Threads are given the object itself." if kind != "memoryview" else "",
            [Measure(name, "us") for name in names[kind]],
            [only(kind, row) for row in rows],
        )
        for kind, title in TITLES.items()
    ]


def values(kind: str, quick: bool) -> tuple[str, ...]:
    """Name the values of a kind; the largest takes longer than a quick run may."""
    if kind == "containers":
        return CONTAINERS
    return tuple(SIZES)[: -1 if quick else None]


def only(kind: str, row: Row) -> Row:
    """Return what a row has of this kind."""
    start = f"{kind}: "
    samples = {
        name.removeprefix(start): values
        for name, values in row.samples.items()
        if name.startswith(start)
    }
    notes = {
        name.removeprefix(start): reason
        for name, reason in row.notes.items()
        if name.startswith(start)
    }
    for whole in (kind, ""):  # the kind failed, or the side
        if whole in row.notes:
            notes.setdefault("", row.notes[whole])
    return Row(row.side, samples, notes)


async def there_and_back(side: Opened, kind: str, name: str, seconds: float) -> Samples:
    """Send the value for so long at most; if it can't be sent, say why."""
    value = made(kind, name)
    measure = f"{kind}: {name}"
    try:
        with no_collections():
            # The first one isn't counted: memory is taken from the system, and from the host.
            await side.call(echo, value)
            return {measure: await timed(repeat(partial(side.call, echo, value), 200), seconds)}
    except Exception as error:
        return {measure: f"{type(error).__name__}: {error}"}


def made(kind: str, name: str) -> Any:
    """Return a value, in memory of its own: zeros might be pages that don't exist yet."""
    if kind == "containers":
        return container(name)
    size = SIZES[name]
    raw = (bytes(range(250)) * (size // 250 + 1))[:size]
    if kind == "str":
        return (("".join(map(chr, range(32, 127)))) * (size // 95 + 1))[:size]
    return memoryview(raw) if kind == "memoryview" else raw


def container(name: str) -> Any:
    """Return one of CONTAINERS."""
    if name == "1,000 ints":
        return list(range(100_000, 101_000))
    if name == "1,000 strings":
        return [f"word {number}" for number in range(1000)]
    if name == "50 JSON records":
        return [
            {
                "id": number,
                "name": f"user {number}",
                "active": number % 3 == 0,
                "score": number * 1.5,
                "tags": [f"tag {number % 7}", f"tag {number % 11}"],
                "address": {
                    "street": f"street {number}",
                    "zip": f"{number:05}",
                    "geo": [1.5, -0.5],
                },
            }
            for number in range(50)
        ]
    mixed = (7, 2.5, "some text", b"some bytes", True, None, [1, 2, 3], ("x", 1), 10**20, {"k": 1})
    return {f"field {number}": mixed[number % 10] for number in range(20)}
