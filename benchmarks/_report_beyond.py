"""The table of docs/scaling.md that benchmarks/beyond.py has measured."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _report_tables import NOT_MEASURED, markdown

from aiointerpreters._bench._printing import quantity

type Raw = dict[str, Any] | None


def read(folder: Path) -> Raw:
    """Return what there is in a folder of results."""
    file = folder / "beyond.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def table(raw: Raw) -> str:
    """A row for each side."""
    if raw is None:
        return NOT_MEASURED
    rows = []
    for row in raw["rows"]:
        busy = median(row["busy_ms"])
        rows.append(
            [
                row["side"],
                quantity(median(row["empty_us"]), "us"),
                quantity(busy, "ms"),
                f"{raw['alone_ms'] / busy:.2f}",
                f"{row['memory_mib']:,.0f} MiB",
                f"{row['start_s']:.1f} s",
            ]
        )
    header = ["", "an empty task", "a busy one", "speed-up", "memory", "start"]
    return (
        f"{raw['machine']}. A busy task by itself takes {quantity(raw['alone_ms'], 'ms')}:"
        f"\n\n{markdown(header, rows)}"
    )


BLOCKS: dict[str, Callable[[Raw], str]] = {"beyond": table}
