"""A memoryview of 100 MB as an argument and as a result, beside a call with None."""

import pickle
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from _common import (
    Thunk,
    alternating,
    at_least,
    at_most,
    duration,
    in_a_block,
    no_collections,
    ratio,
    show,
    table,
)
from _sides import OURS, Side, all_sides
from _work import MB, give_bytes, give_none, give_view, ignore, some_bytes, store

SIZE = 100 * MB
NOTES = """
- *by turns*: a call with None, one with the view, one with None …; medians; what comes back is
  dropped in between, and not counted. *in blocks*: up to 300 of the one, then of the other, in one
  go, so that dropping and whatever else a call leaves for later is counted too; mean times.
- The function ignores its argument, or returns a view of memory that it keeps. Nobody reads it.
- InterpreterPoolExecutor shares the memory of a memoryview too, if it is an argument or the result
  itself; nested in a list it raises NotShareableError. Against its own call with None it costs
  little, then; what it costs against ours is the call.
- ProcessPoolExecutor can't be sent a memoryview, as none can be pickled: here it gets, and gives,
  `bytes` of that size that exist already.
- pickle alone: `loads(dumps(PickleBuffer(view), 5))`, in band, which goes nowhere.
"""


@dataclass
class Samples:
    """Durations in microseconds."""

    nothing: list[float] = field(default_factory=list)
    view: list[float] = field(default_factory=list)
    nothing_in_blocks: list[float] = field(default_factory=list)
    view_in_blocks: list[float] = field(default_factory=list)

    def ratios(self) -> tuple[float, float]:
        """Return how many times as long as without a view: by turns, and in blocks."""
        return (
            median(self.view) / median(self.nothing),
            median(self.view_in_blocks) / median(self.nothing_in_blocks),
        )


async def take_turn(samples: Samples, nothing: Thunk, view: Thunk, seconds: float) -> None:
    """Measure one side for a while."""
    of_nothing, of_view = await alternating(nothing, view, seconds=seconds)
    samples.nothing += of_nothing
    samples.view += of_view
    samples.nothing_in_blocks.append(await in_a_block(nothing, seconds=seconds / 2))
    samples.view_in_blocks.append(await in_a_block(view, seconds=seconds / 2))


def pickled(view: memoryview) -> float:
    """Time pickle alone, in microseconds."""
    with no_collections():
        began = time.perf_counter()
        pickle.loads(pickle.dumps(pickle.PickleBuffer(view), 5))
        return (time.perf_counter() - began) * 1e6


def report(title: str, samples: dict[str, Samples], pickles: list[float]) -> None:
    """Print one direction's table."""
    ours = median(samples[OURS].view)
    rows = [
        [
            name,
            duration(median(of_side.nothing)),
            duration(median(of_side.view)),
            *map(ratio, of_side.ratios()),
            ratio(median(of_side.view) / ours),
        ]
        for name, of_side in samples.items()
    ]
    alone = median(pickles)
    rows.append(["(pickle alone)", "", duration(alone), "", "", ratio(alone / ours)])
    show(f"{title}\n")
    table(["", "None", "100 MB", "by turns", "in blocks", "100 MB against run"], rows)
    by_turns, in_blocks = samples[OURS].ratios()
    at_most("the view against None, by turns", by_turns, 1.5)
    at_most("the view against None, in blocks", in_blocks, 1.5)
    for name, of_side in samples.items():
        if name != OURS:
            at_least(f"{name} against ours", median(of_side.view) / ours, 100)
    at_least("pickle alone against ours", alone / ours, 100)
    show()


async def measure(workers: int, rounds: int, seconds: float) -> None:
    """Let the sides take turns; the first round only warms up."""
    data = some_bytes(SIZE)
    view = memoryview(bytearray(data))

    def calls(side: Side) -> dict[str, tuple[Thunk, Thunk]]:
        argument = data if side.isolated_memory else view
        give: Callable[..., object] = give_bytes if side.isolated_memory else give_view
        return {
            "as an argument": (
                partial(side.call, ignore, None),
                partial(side.call, ignore, argument),
            ),
            "as a result": (
                partial(side.call, give_none, SIZE),
                partial(side.call, give, SIZE),
            ),
        }

    samples: dict[str, dict[str, Samples]] = defaultdict(lambda: defaultdict(Samples))
    pickles = []
    async with all_sides(workers) as sides:
        for side in sides:
            await side.in_every_worker(store, SIZE, not side.isolated_memory)
        for round_number in range(rounds + 1):
            for side in sides:
                for direction, (nothing, big) in calls(side).items():
                    of_side = samples[direction][side.name] if round_number else Samples()
                    await take_turn(of_side, nothing, big, seconds)
            pickles.append(pickled(view))
    for direction, of_sides in samples.items():
        report(f"A memoryview of 100 MB {direction}", of_sides, pickles[1:])
    show(NOTES.strip())
