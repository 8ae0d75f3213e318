"""A dict of 100,000 entries that every call needs: sent each time, or once by Shared."""

import asyncio
import time
from collections import defaultdict
from functools import partial
from statistics import median

from _common import Thunk, duration, no_collections, ratio, show, table
from _sides import Side, all_sides
from _work import look_up

from aiointerpreters import Shared

ENTRIES = 100_000
TEXT = " ".join(f"word-{number}" for number in range(0, ENTRIES, 2000))
LATER, FIRST, MADE = "Shared, later calls", "Shared, first call", "Shared(lexicon), by itself"
ONE_ENTRY = "a dict of one entry"
NOTES = """
- The function looks up 50 words in a dict of 100,000 entries of str and int.
- *first call* of a new Shared: it may meet a worker that has to decode, so this is the first of all
  calls; each other worker has such a one too. *one entry*: what any call costs that looks up words.
"""


def the_dict(side: Side) -> str:
    """Name the row in which the dict itself is sent."""
    return f"the dict: {side.name}"


async def time_calls(
    samples: list[float], call: Thunk, result: int, calls: int, seconds: float
) -> None:
    """Add the time of each call, in microseconds; fewer calls when the time is over."""
    end = time.perf_counter() + seconds
    with no_collections():
        for _ in range(calls):
            began = time.perf_counter()
            found = await call()
            done = time.perf_counter()
            assert found == result
            samples.append((done - began) * 1e6)
            if done > end:
                break


async def measure(workers: int, rounds: int, seconds: float) -> None:
    """Let the sides take turns; the first round only warms up."""
    lexicon = {f"word-{number}": number for number in range(ENTRIES)}
    one_entry = {"word-2000": 7}
    expected = look_up(lexicon, TEXT)
    samples: dict[str, list[float]] = defaultdict(list)
    async with all_sides(workers) as sides:
        run = partial(sides[0].call, look_up)
        for round_number in range(rounds + 1):
            if round_number == 1:
                samples.clear()
            for side in sides:
                row, call = samples[the_dict(side)], partial(side.call, look_up, lexicon, TEXT)
                await time_calls(row, call, expected, 5, seconds)
            with no_collections():
                began = time.perf_counter()
                shared = Shared(lexicon)
                samples[MADE].append((time.perf_counter() - began) * 1e6)
            call = partial(run, shared, TEXT)
            await time_calls(samples[FIRST], call, expected, 1, seconds)
            await asyncio.gather(*(call() for _ in range(20 * workers)))  # each worker has it now
            await time_calls(samples[LATER], call, expected, 300, seconds)
            call = partial(run, one_entry, TEXT)
            await time_calls(samples[ONE_ENTRY], call, 7, 300, seconds)

    later = median(samples[LATER])
    show("A dict of 100,000 entries in every call\n")
    table(
        ["", "a call", "against later calls"],
        [
            [name, duration(median(samples[name])), ratio(median(samples[name]) / later)]
            for name in [*map(the_dict, sides), MADE, FIRST, LATER, ONE_ENTRY]
        ],
    )
    show(NOTES.strip())
