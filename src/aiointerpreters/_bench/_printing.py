"""Tables as the terminal shows them: a row for each side; medians, tails, and ratios to ours."""

import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from ._harness import Measure, Row, Table, percentile


def show(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text)
    sys.stdout.flush()


def heading(machine: dict[str, Any], workers: int) -> str:
    """Say where this runs."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"CPython {machine['python']}, {machine['system']}, {machine['cores']} cores of "
        f"{machine['cpu']}\n{versions}\n"
        f"Each pool has {workers} workers. A ratio says how many times as much time or memory as "
        f"the\nfirst row a side takes, or how many times fewer calls a second it makes.\n"
    )


def table(table: Table, loop: str) -> str:
    """Lay out a table, with its notes below."""
    notes: list[str] = []
    first = table.rows[0] if table.rows else None
    groups = [
        [_header(measure), *(_cells(measure, row, first, notes) for row in table.rows)]
        for measure in table.measures
    ]
    names = ["", *(row.side for row in table.rows)]
    width = max(map(len, names))
    lines = [f"{table.title} ({loop} loop)", ""]
    top = " " * width
    body = [name.ljust(width) for name in names]
    for measure, group in zip(table.measures, groups, strict=True):
        widths = [max(map(len, column)) for column in zip(*group, strict=True)]
        total = sum(widths) + 2 * (len(widths) - 1)
        widths[0] += max(0, len(measure.name) - total)
        total = max(total, len(measure.name))
        top += "   " + measure.name.rjust(total)
        body = [
            f"{line}   " + "  ".join(c.rjust(w) for c, w in zip(cells, widths, strict=True))
            for line, cells in zip(body, group, strict=True)
        ]
    lines += [top.rstrip(), *(line.rstrip() for line in body)]
    lines.insert(4, "-" * max(map(len, lines[2:])))
    if table.note or notes:
        lines += ["", *filter(None, [table.note]), *notes]
    return "\n".join(lines) + "\n"


def _header(measure: Measure) -> list[str]:
    return ["p50", "p99", "ratio"] if measure.tail else ["p50", "ratio"]


def _cells(measure: Measure, row: Row, first: Row | None, notes: list[str]) -> list[str]:
    samples = row.samples.get(measure.name)
    empty = [""] * (len(_header(measure)) - 1)
    if not samples:
        reason = row.notes.get(measure.name) or row.notes.get("")
        if reason is None:
            return ["-", *empty]
        note = f"{row.side}: {reason}"
        if note not in notes:
            notes.append(note)
        return ["can't", *empty]
    middle = median(samples)
    ours = first.samples.get(measure.name) if first else None
    tail = [quantity(percentile(samples, 99), measure.unit)] if measure.tail else []
    return [quantity(middle, measure.unit), *tail, _ratio(middle, ours, measure)]


def _ratio(value: float, ours: Sequence[float] | None, measure: Measure) -> str:
    if not ours:
        return ""
    parts = (value, median(ours)) if measure.less_is_better else (median(ours), value)
    return ratio(parts[0] / parts[1]) if round(parts[1], 2) else ""  # of what is shown as 0: none


def ratio(times: float) -> str:
    """Format how many times as much something is."""
    return f"{times:.2f}" if times < 10 else f"{times:,.0f}"


def quantity(value: float, unit: str) -> str:
    """Format a measured value, in a larger unit where that reads better."""
    scales = {"us": ("us", "ms", "s"), "ms": ("ms", "s"), "1/s": ("/s", "k/s", "M/s")}
    units = scales.get(unit, (unit,))
    limit = 1_000 if unit == "1/s" else 10_000
    for larger in units:
        unit = larger
        if abs(value) < limit or larger == units[-1]:
            break
        value /= 1_000
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}".rstrip()
