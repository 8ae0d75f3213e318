"""Small structured values: what crossing adds to a call, beside pickling them."""

import json
import pickle
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import repeat
from statistics import median

from _common import at_most, back_to_back, duration, no_collections, ratio, show, table
from _sides import Side, all_sides
from _work import Record, ignore

from aiointerpreters._core import copy_value

TARGETS = ("dict of 20 mixed fields", "list of 1,000 ints", "list of 1,000 short str")
NOTES = """
- *pickle*: `loads(dumps(value, 5))`. *copied*: encoded as for a call and decoded again, both in one
  thread as pickle's are (`_core.copy_value`).
- The other columns are what a value adds to a call: the median of calls that ignore it, minus the
  median of such calls with None, some hundred of either by turns. It is one way only. Two cores
  take part: encoding and decoding may overlap, and what one core wrote the other has to fetch.
  2 us or less, either way, mean nothing: so much depends on where the next call meets the worker.
"""


def values() -> dict[str, object]:
    """Return what is sent, by name."""
    fields: dict[str, object] = {
        "id": 4_018_221,
        "name": "Ada Lovelace",
        "city": "Köln",
        "email": "ada@example.org",
        "active": True,
        "score": 0.8125,
        "balance": -1203.5,
        "parent": None,
        "tags": ("first", "second"),
        "counts": [1, 22, 333],
        "token": b"\x00\x01\xfe\xff" * 4,
        "visits": 0,
        "big": 2**70,
        "language": "en",
        "country": "GB",
        "deleted": False,
        "updated": 1_700_000_000.25,
        "comment": "A short remark, as people make them.",
        "level": 7,
        "ratio": 1e-9,
    }
    assert len(fields) == 20
    records = [{"id": n, "name": f"name {n}", "scores": [n / 7, n / 3]} for n in range(50)]
    return {
        "dict of 20 mixed fields": fields,
        "list of 1,000 ints": [n * 7919 for n in range(1000)],
        "list of 1,000 short str": [f"word {n}" for n in range(1000)],
        "list of 1,000 floats": [n / 7 for n in range(1000)],
        "50 records of JSON": json.loads(json.dumps(records)),
        "tuple of 3": (1, "two", 3.0),
        "str of 10,000, ASCII": "abcdefghij" * 1000,
        "str of 10,000, Cyrillic": "абвгдежзий" * 1000,
        "bytes of 10,000": bytes(range(250)) * 40,
        "a dataclass (by pickle)": Record("Ada", 0.5, ["first", "second"]),
    }


def pickled(value: object) -> object:
    """Do with pickle what copy_value does."""
    return pickle.loads(pickle.dumps(value, 5))


def pickle_some(value: object) -> None:
    """Pickle it 20 times, with no call of Python's in between."""
    dumps, loads = pickle.dumps, pickle.loads
    for _ in repeat(None, 20):
        loads(dumps(value, 5))


def copy_some(value: object) -> None:
    """Copy it 20 times."""
    copy = copy_value
    for _ in repeat(None, 20):
        copy(value)


ALONE = {"pickle": pickle_some, "copied": copy_some}


def alone(twenty_times: Callable[[object], None], value: object, seconds: float) -> list[float]:
    """Time as many twenties as fit; the means of each, in microseconds."""
    clock = time.perf_counter
    samples = []
    with no_collections():
        twenty_times(value)
        end = clock() + seconds
        while (began := clock()) < end:
            twenty_times(value)
            samples.append((clock() - began) * 1e6 / 20)
    return samples


async def calls(side: Side, value: object, seconds: float) -> list[float]:
    """Time calls with a value, one right after another; in microseconds."""
    with no_collections():
        return await back_to_back(lambda _: side.call(ignore, value), 500, seconds)


async def measure(workers: int, rounds: int, seconds: float) -> None:
    """Let the sides take turns; the first round only warms up."""
    # a value's name -> a column -> microseconds; and the same for calls with None instead
    samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    without: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    async with all_sides(workers) as sides:
        for round_number in range(rounds + 1):
            if round_number == 1:
                samples.clear()
                without.clear()
            for name, value in values().items():
                assert copy_value(value) == pickled(value) == value
                # Each begins as often as the other: the first meets what was going on before.
                for column in [*ALONE, *reversed(ALONE)]:
                    samples[name][column] += alone(ALONE[column], value, seconds / 20)
                for side in [*sides, *sides]:
                    without[name][side.name] += await calls(side, None, seconds / 10)
                    samples[name][side.name] += await calls(side, value, seconds / 10)
    report(sides, samples, without)


def report(
    sides: list[Side],
    samples: dict[str, dict[str, list[float]]],
    without: dict[str, dict[str, list[float]]],
) -> None:
    """Print the table and the targets."""

    def added(name: str, side: Side) -> float:
        return median(samples[name][side.name]) - median(without[name][side.name])

    rows = []
    for name, by_column in samples.items():
        pickled, copied = (median(by_column[column]) for column in ALONE)
        rows.append([name, duration(pickled), duration(copied), ratio(copied / pickled)])
        rows[-1] += [duration(added(name, side)) for side in sides]
    show("Small values\n")
    table(["", *ALONE, "copied/pickle", *(side.name for side in sides)], rows)
    for name in TARGETS:
        pickled, copied = (median(samples[name][column]) for column in ALONE)
        at_most(f"{name}: copied against pickle", copied / pickled, 1)
        at_most(f"{name}: added to a call against pickle", added(name, sides[0]) / pickled, 1)
    show(f"\n{NOTES.strip()}")
