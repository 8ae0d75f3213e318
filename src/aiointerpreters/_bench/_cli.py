"""`python -m aiointerpreters bench`: its options, which sections, and what becomes of tables."""

import argparse
import asyncio
import importlib
import importlib.util
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import _machine, _printing, _targets
from ._harness import Settings, Table
from ._loops import LOOPS
from ._sides import SIDES

#: By name, what each measures; its module has that name, with `_` for `-`.
SECTIONS = {
    "latency": "one call at a time, there and back: back to back, and after a pause",
    "throughput": "thousands of calls at once: gather of run and of submit, map",
    "payloads": "values of all sizes, to a worker and back",
    "real-work": "parsing, rendering and the like; the task size from which offloading pays",
    "start-up": "how long workers take to be ready",
    "memory": "what a worker keeps in memory",
    "lag": "how late the event loop is while the workers are busy",
    "cpu": "CPU time used while idle, and with 1,000 calls a second",
}

_DESCRIPTION = """\
Measure calls into subinterpreters beside the other ways out of an event loop. Peers that are not
installed have no row: anyio, loky, aiomultiprocess. uvloop, if installed, has tables of its own.
"""


def _module(section: str) -> str:
    return f"{__package__}.{section.replace('-', '_')}"


def _sections() -> list[str]:
    return [name for name in SECTIONS if importlib.util.find_spec(_module(name))]


def add_command(commands: Any) -> None:
    """Add `bench` to the parser's commands."""
    sections = "\n".join(f"  {name:12}{SECTIONS[name]}" for name in _sections())
    parser = commands.add_parser(
        "bench",
        help="measure, beside the standard library's pools and other packages",
        description=_DESCRIPTION,
        epilog=f"sections:\n{sections}\n\nsides:\n  " + "\n  ".join(SIDES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help="what to measure; by default all"
    )
    parser.add_argument("--quick", action="store_true", help="under a minute: less exact, one loop")
    parser.add_argument("--workers", type=_positive, default=2, help="of every pool (default: 2)")
    parser.add_argument("--rounds", type=_positive, help="turns of every side (default: 7)")
    parser.add_argument(
        "--loop", choices=LOOPS, action="append", help="may be repeated (default: all there are)"
    )
    parser.add_argument(
        "--sides",
        type=_sides,
        metavar="NAME,NAME",
        help="peers and floors (default: all there are)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--original", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(command=run, parser=parser)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number"  # as argparse's message calls it


def _sides(text: str) -> frozenset[str]:
    """Parse names of sides, as typed by hand: without parentheses, in any case."""
    known = {name.strip("()").lower(): name for name in SIDES}
    chosen = set()
    for part in text.split(","):
        key = part.strip().strip("()").lower()
        if key not in known:
            raise argparse.ArgumentTypeError(
                f"there is no side {part.strip()!r}; there are: {', '.join(SIDES)}"
            )
        chosen.add(known[key])
    return frozenset(chosen)


def run(options: argparse.Namespace) -> int:
    """Measure what was chosen, print it, and write it."""
    known = _sections()
    for name in options.sections:
        if name not in known:
            options.parser.error(f"there is no section {name!r}; there are: {', '.join(known)}")
    chosen: Sequence[str] = options.sections or known
    rounds = options.rounds or (1 if options.quick else 7)

    machine = _machine.describe()
    _printing.show(_printing.heading(machine, options.workers))
    for reason in _missing(Settings(sides=options.sides, original=options.original)):
        _printing.show(reason)
    tables: list[dict[str, Any]] = []
    status = 0
    began = _machine.Load()
    for section in chosen:
        module = importlib.import_module(_module(section))
        # What doesn't depend on the loop is measured once.
        loops = options.loop or list(LOOPS)[: 1 if options.quick else None]
        for loop in loops[:1] if getattr(module, "ANY_LOOP", False) else loops:
            settings = Settings(
                workers=options.workers,
                rounds=rounds,
                quick=options.quick,
                loop=loop,
                sides=options.sides,
                original=options.original,
            )
            load = _machine.Load()
            try:
                with asyncio.Runner(loop_factory=LOOPS[loop]) as loop_runner:
                    measured: list[Table] = loop_runner.run(module.measure(settings))
            except Exception:
                traceback.print_exc()
                status = 1
                continue
            for table in measured:
                _printing.show(_printing.table(table, loop))
                tables.append(_as_json(table, loop))
            _printing.show(f"(Other programs kept {load.others():.2f} cores busy meanwhile.)\n")
    if targets := _targets.summary(tables):
        _printing.show(targets)
    result = {
        "format": 1,
        "machine": machine,
        "settings": {"workers": options.workers, "rounds": rounds, "quick": options.quick},
        "others_busy": round(began.others(), 3),
        "tables": tables,
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, separators=(",", ":")) + "\n")
        print(f"Every sample is in {options.json}.", file=sys.stderr)
    return status


def _missing(settings: Settings) -> Iterator[str]:
    """Say which sides will have no row, and why."""
    reasons: dict[str, list[str]] = {}
    for name, side in SIDES.items():
        reason = side.missing(settings)
        if settings.wants(name) and reason:
            reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield f"No rows for {', '.join(names)}: {reason}."
    if reasons:
        yield ""


def _as_json(table: Table, loop: str) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "loop": loop,
        "measures": [
            {"name": m.name, "unit": m.unit, "less_is_better": m.less_is_better}
            for m in table.measures
        ],
        "rows": [
            {
                "side": row.side,
                # Four digits are more than the clock is good for.
                "samples": {
                    name: [float(f"{value:.4g}") for value in values]
                    for name, values in row.samples.items()
                },
            }
            | ({"notes": row.notes} if row.notes else {})
            for row in table.rows
        ],
    }
