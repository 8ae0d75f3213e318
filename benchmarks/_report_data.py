"""What `make bench-record` has written, as the report wants to read it: by Python, loop and side.

Nothing need be there: a version, a loop, a table, a side or a measure that was not measured is
None, or an empty list, and whoever asks leaves it out.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiointerpreters._bench._harness import percentile

OURS = ("run", "submit")
#: The results that have the long tables, where they are there.
MAIN = ("3.14", "asyncio")


@dataclass(frozen=True)
class Row:
    """What was measured of one side."""

    side: str
    samples: dict[str, list[float]]
    notes: dict[str, str]  # why a measure, or "" any, has no samples

    def value(self, measure: str, percent: int = 50) -> float | None:
        """Return a percentile of what was measured."""
        samples = self.samples.get(measure)
        return percentile(samples, percent) if samples else None

    def reason(self, measure: str) -> str | None:
        """Say why there are no samples, if it is known."""
        return self.notes.get(measure) or self.notes.get("")


@dataclass(frozen=True)
class Table:
    """One table of one run; it has rows."""

    title: str
    note: str
    units: dict[str, str]  # of the measures, in their order
    less_is_better: dict[str, bool]
    rows: list[Row]

    def row(self, side: str) -> Row | None:
        """Return a side's row."""
        return next((row for row in self.rows if row.side == side), None)

    def against(self, side: str, row: Row, measure: str) -> float | None:
        """How many times as long as a side does this one take, or how many times fewer is it?"""
        base = self.row(side)
        ours, theirs = base.value(measure) if base else None, row.value(measure)
        if not ours or not theirs or round(min(ours, theirs), 2) == 0:  # shown as 0
            return None
        return theirs / ours if self.less_is_better[measure] else ours / theirs


@dataclass(frozen=True)
class Run:
    """The results of one Python on one loop."""

    python: str
    loop: str
    tables: dict[str, Table]

    @property
    def name(self) -> str:
        """What a column of it is called."""
        return f"{self.python}, {self.loop}"


@dataclass(frozen=True)
class Result:
    """What there is of one Python."""

    python: str  # as in "3.14"
    parts: list[dict[str, Any]]  # a file each

    @property
    def tables(self) -> list[dict[str, Any]]:
        """All tables; of one that several parts have, the last part's."""
        tables = [table for part in self.parts for table in part["tables"]]
        return list({(table["name"], table["loop"]): table for table in tables}.values())

    @property
    def runs(self) -> list[Run]:
        """Its loops, in the order of measuring."""
        loops = dict.fromkeys(table["loop"] for table in self.tables)
        return [Run(self.python, loop, dict(self._of_loop(loop))) for loop in loops]

    def _of_loop(self, loop: str) -> Iterator[tuple[str, Table]]:
        for table in self.tables:
            rows = [Row(row["side"], row["samples"], row.get("notes", {})) for row in table["rows"]]
            if table["loop"] == loop and any(any(row.samples.values()) for row in rows):
                measures = table["measures"]
                yield (
                    table["name"],
                    Table(
                        table["title"],
                        table["note"],
                        {measure["name"]: measure["unit"] for measure in measures},
                        {measure["name"]: measure["less_is_better"] for measure in measures},
                        rows,
                    ),
                )


class Results:
    """All that is there: the main one first, and then by version."""

    def __init__(self, results: list[Result]) -> None:
        def place(python: str) -> tuple[bool, int]:
            return python != MAIN[0], int(python.partition(".")[2])

        self.results = sorted(results, key=lambda each: place(each.python))
        runs = [run for result in self.results for run in result.runs]
        self.runs = sorted(runs, key=lambda run: (*place(run.python), run.loop != MAIN[1]))

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Read the files named after a Python: 3.14.json, and further parts, 3.14-lag.json."""
        parts: dict[str, list[dict[str, Any]]] = {}
        for file in sorted(folder.glob("*.json"), key=lambda file: file.stem):
            if match := re.fullmatch(r"(3\.\d+)(-.+)?", file.stem):
                raw = json.loads(file.read_text(encoding="utf-8"))
                parts.setdefault(match[1], []).append(raw)
        return cls([Result(python, found) for python, found in parts.items()])

    def main(self, table: str) -> tuple[Run, Table] | None:
        """Return the run whose table is shown in full: the first that has it."""
        having = self.having(table)
        return having[0] if having else None

    def having(self, table: str) -> list[tuple[Run, Table]]:
        """Return all runs that have such a table."""
        return [(run, run.tables[table]) for run in self.runs if table in run.tables]


def seconds(label: str) -> float:
    """Return the duration that a measure's name begins with: "30 us"."""
    number, unit = label.split()
    return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]


def is_duration(label: str) -> bool:
    """Whether a measure is named by a duration alone."""
    return re.fullmatch(r"[\d.]+ (us|ms|s)", label) is not None


def size(label: str) -> int:
    """Return the size that a payload is named by: "32 KiB"."""
    number, unit = label.split()
    return int(number) * {"B": 1, "KiB": 2**10, "MiB": 2**20, "MB": 10**6}[unit]
