"""The report's plots: one a file, of the main run; a side has the same colour in all of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _plots
from _report_data import OURS, Results, Row, Run, Table, is_duration, seconds, size

COLOURS = {
    "run": _plots.COLOURS[0],
    "submit": "#62b4ea",
    "ThreadPoolExecutor": _plots.COLOURS[1],
    "InterpreterPoolExecutor": _plots.COLOURS[2],
    "ProcessPoolExecutor": _plots.COLOURS[3],
    "anyio.to_interpreter": _plots.COLOURS[4],
    "loky": _plots.COLOURS[5],
    "aiomultiprocess": "#cf5353",
    "original 0.5.0": "#9c6f52",
}


def style(side: str) -> dict[str, Any]:
    """How a side is drawn: ours boldly, a floor in grey."""
    ours, floor = side in OURS, side.startswith("(")
    return {
        "color": COLOURS.get(side, _plots.GREY),
        "linewidth": 2.6 if ours else 1.3,
        "linestyle": "--" if floor else "-",
        "markersize": 8 if ours else 6,
        "zorder": 4 if ours else 3,
    }


def plain(axis: Any) -> None:
    """Numbers as they are written by hand, in place of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def dots(
    run: Run, table: Table, title: str, x: str, measures: Sequence[tuple[str, str]]
) -> Any | None:
    """A row for each side; a filled dot and a hollow one for the two measures."""
    rows = [row for row in table.rows if any(row.value(name) for name, _ in measures)]
    if not rows:
        return None
    drawing, axes = _plots.figure(f"{title} ({run.name})", x, "", (7.2, 1.3 + 0.3 * len(rows)))
    axes.set_yscale("linear")
    axes.grid(False, axis="y")
    for place, row in enumerate(rows):
        _dots(axes, place, row, [name for name, _ in measures])
    axes.set_yticks(range(len(rows)), [row.side for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_color(COLOURS.get(row.side, _plots.GREY))
        text.set_fontweight("bold" if row.side in OURS else "normal")
    plain(axes.xaxis)
    for number, (_, label) in enumerate(measures):
        axes.plot(
            *([], [], "o"),
            color=_plots.GREY,
            markerfacecolor=_plots.GREY if number == 0 else "none",
            label=label,
        )
    # Below the axis's label, so that it covers no dot.
    drawing.legend(loc="outside lower center", ncols=len(measures))
    return drawing


def _dots(axes: Any, place: int, row: Row, measures: Sequence[str]) -> None:
    options = style(row.side)
    found = [(number, row.value(name)) for number, name in enumerate(measures)]
    values = [value for _, value in found if value]
    axes.plot(
        *(values, [place] * len(values)), color=options["color"], linewidth=1, alpha=0.5, zorder=2
    )
    for number, value in found:
        if value:
            axes.plot(
                *(value, place, "o"),
                color=options["color"],
                markersize=options["markersize"],
                markeredgewidth=1.8,
                markerfacecolor=options["color"] if number == 0 else "none",
                zorder=options["zorder"],
            )


def lines(
    run: Run, table: Table, title: str, labels: tuple[str, str], points: dict[str, float]
) -> tuple[Any, Any] | None:
    """A line for each side: what was measured against what the measures stand for."""
    rows = [row for row in table.rows if any(row.value(name) for name in points)]
    if not rows or not points:
        return None
    drawing, axes = _plots.figure(f"{title} ({run.name})", *labels, (8.4, 4.4))
    for row in rows:
        known = [(x, value) for name, x in points.items() if (value := row.value(name))]
        axes.plot(
            *([x for x, _ in known], [y for _, y in known]),
            marker="o",
            label=row.side,
            **(style(row.side) | {"markersize": 6 if row.side in OURS else 4}),
        )
    plain(axes.xaxis)
    plain(axes.yaxis)
    drawing.legend(loc="outside right center", labelcolor="linecolor")
    return drawing, axes


# ---- the plots ----


def round_trip(run: Run, table: Table) -> Any | None:
    """One call at a time."""
    measures = [("back to back", "one call after another"), ("after 5 ms", "after 5 ms of quiet")]
    return dots(run, table, "Round trip of one call", "microseconds, median", measures)


def throughput(run: Run, table: Table) -> Any | None:
    """Many calls at once."""
    measures = [("gather", "gather"), ("map", "map")]
    return dots(run, table, "Calls per second, many at once", "calls per second", measures)


def lag(run: Run, table: Table) -> Any | None:
    """How late the loop is."""
    measures = [("p99", "99th percentile"), ("p50", "median")]
    return dots(run, table, "Loop lag, workers saturated", "milliseconds late", measures)


def payload(run: Run, table: Table, kind: str) -> Any | None:
    """Values of all sizes."""
    points = {name: float(size(name)) for name in table.units if size(name)}
    labels = ("size", "microseconds, median")
    drawn = lines(run, table, f"{kind} to a worker and back", labels, points)
    if drawn is None:
        return None
    drawing, axes = drawn
    names = {2**10: "1 KiB", 2**15: "32 KiB", 2**20: "1 MiB", 10 * 2**20: "10 MiB", 10**8: "100 MB"}
    here = [x for x in names if x in points.values()]
    axes.set_xticks(here, [names[x] for x in here])
    axes.minorticks_off()
    return drawing


def payload_bytes(run: Run, table: Table) -> Any | None:
    """Copied values."""
    return payload(run, table, "bytes")


def payload_memoryview(run: Run, table: Table) -> Any | None:
    """Shared ones."""
    return payload(run, table, "memoryview")


def break_even(run: Run, table: Table) -> Any | None:
    """From which size of a task on it pays."""
    points = {name: seconds(name) * 1e6 for name in table.units if is_duration(name)}
    labels = ("size of a task, microseconds", "time, against tasks on the loop")
    drawn = lines(run, table, "Offloading from a busy loop: below 1 it pays", labels, points)
    if drawn is None:
        return None
    drawing, axes = drawn
    axes.axhline(1, color=_plots.GREY, linewidth=1.5, linestyle=":", zorder=2)
    return drawing


def start_up(run: Run, table: Table) -> Any | None:
    """How long workers take to be ready."""
    points = {name: float(name.split()[0]) for name in table.units}
    labels = ("workers", "milliseconds, median")
    title = "From nothing to each worker's first result"
    drawn = lines(run, table, title, labels, points)
    if drawn is None:
        return None
    drawing, axes = drawn
    axes.set_xticks(list(points.values()), [f"{x:g}" for x in points.values()])
    axes.minorticks_off()
    return drawing


#: By file: the table that it is made from, what draws it, and what it is called where none is seen.
PLOTS: dict[str, tuple[str, Callable[[Run, Table], Any | None], str]] = {
    "round-trip": ("round-trip", round_trip, "Round trip of one call, by side"),
    "throughput": ("throughput", throughput, "Calls per second, by side"),
    "payload-bytes": ("payload-bytes", payload_bytes, "Size of bytes against time, by side"),
    "payload-memoryview": (
        "payload-memoryview",
        payload_memoryview,
        "Size of a memoryview against time, by side",
    ),
    "break-even": ("break-even", break_even, "Time ratio against size of a task, by side"),
    "start-up": ("start-up", start_up, "Start-up against number of workers, by side"),
    "lag": ("lag", lag, "Lag of the event loop, by side"),
}


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Write what can be drawn; return it by name, with its text. Others' old files are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, str] = {}
    for name, (table, make, text) in PLOTS.items():
        found = results.main(table)
        drawing = make(*found) if found else None
        path = folder / f"{name}.svg"
        if drawing is None:
            path.unlink(missing_ok=True)
            continue
        _plots.save(drawing, path)
        _plots.close(drawing)
        drawn[name] = text
    return drawn
