"""docs/web.md's tables and plot, from what benchmarks/serving.py has written."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import _plots
from _report_plots import COLOURS, plain
from _report_tables import NOT_MEASURED, markdown

from aiointerpreters._bench._harness import percentile
from aiointerpreters._bench._printing import quantity

OURS = "Runner"
NO_LOAD = "(no load)"
ORDER = (
    "on the loop",
    "on the loops of two processes",
    "asyncio.to_thread",
    "ProcessPoolExecutor",
    "ProcessPoolExecutor, giving way",
    "InterpreterPoolExecutor",
    "InterpreterPoolExecutor, giving way",
    "Runner",
    "Runner, giving way",
)
LOADS = {"pages": "Pages", "comments": "Comments"}
PLOT = "serving"
PLOT_TEXT = "Requests per second, and how long a ping takes meanwhile, by side"


@dataclass(frozen=True)
class Figures:
    """Medians, over the rounds, of one side under one load."""

    requests: float  # a second
    times: tuple[float, float]  # median and 99th percentile, in milliseconds
    pings: tuple[float, float, float]  # median, 99th percentile and longest, in milliseconds


@dataclass(frozen=True)
class Serving:
    """What was measured."""

    raw: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Serving | None":
        """Return what there is in a folder of results."""
        file = folder / "serving.json"
        return cls(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None

    def sides(self, load: str) -> dict[str, Figures]:
        """Return the sides by name, in the order in which they are shown."""
        found: dict[str, Figures] = {}
        for side in ORDER:
            rows = [r for r in self.raw["rows"] if (r["side"], r["load"]) == (side, load)]
            if rows:
                found[side] = Figures(
                    median(row["requests"] / row["seconds"] for row in rows),
                    (median(row["p50"] for row in rows), median(row["p99"] for row in rows)),
                    pings(*(row["pings_ms"] for row in rows)),
                )
        return found

    @property
    def quiet(self) -> tuple[float, float, float]:
        """How long a ping takes if nothing else is asked for."""
        return pings(*(row["pings_ms"] for row in self.raw["rows"] if row["side"] == NO_LOAD))


def pings(*rounds: list[float]) -> tuple[float, float, float]:
    """Return the rounds' medians of median, 99th percentile and longest."""
    return (
        median(percentile(samples, 50) for samples in rounds),
        median(percentile(samples, 99) for samples in rounds),
        median(max(samples) for samples in rounds),
    )


# ---- tables ----


def machine(serving: Serving | None) -> str:
    """Say where it was measured, and how."""
    if serving is None:
        return NOT_MEASURED
    settings = serving.raw["settings"]
    return (
        f"{serving.raw['machine']}. {settings['rounds']} rounds, of {settings['seconds']} seconds "
        "for each side."
    )


def of_load(load: str) -> Callable[[Serving | None], str]:
    """Return what makes the table of a load."""

    def table(serving: Serving | None) -> str:
        if serving is None or load not in serving.raw["loads"]:
            return NOT_MEASURED
        about = serving.raw["loads"][load]
        lines = [
            [
                f"**{side}**" if side.startswith(OURS) else side,
                f"{figures.requests:,.0f}",
                *(quantity(time, "ms") for time in (*figures.times, *figures.pings)),
            ]
            for side, figures in serving.sides(load).items()
        ]
        lines.append([NO_LOAD, "", "", "", *(quantity(time, "ms") for time in serving.quiet)])
        header = ["", "requests/s", "median", "p99", "ping: median", "ping: p99", "ping: longest"]
        return (
            f"{about['documents']} texts of {about['mean_bytes'] / 1000:.1f} kB, mean; "
            f"{quantity(about['alone_ms'], 'ms')} each, with nothing else going on; "
            f"{about['connections']} connections:\n\n{markdown(header, lines)}"
        )

    return table


BLOCKS: dict[str, Callable[[Serving | None], str]] = {
    "serving-machine": machine,
    **{f"serving-{load}": of_load(load) for load in LOADS},
}


# ---- the plot ----


def draw(serving: Serving | None, folder: Path) -> dict[str, str]:
    """Write the plot; return it by name, with its text."""
    path = folder / f"{PLOT}.svg"
    if serving is None:
        path.unlink(missing_ok=True)
        return {}
    loads = {load: serving.sides(load) for load in LOADS if load in serving.raw["loads"]}
    drawing, axes = _plots.grid(len(loads), 2, (9.2, 0.9 + 2.9 * len(loads)))
    for place, (load, sides) in enumerate(loads.items()):
        _panels(axes[place], LOADS[load], sides)
    axes[0][0].set_title("requests per second")
    axes[0][1].set_title("a ping meanwhile, milliseconds:\nmedian (hollow) to 99th percentile")
    folder.mkdir(parents=True, exist_ok=True)
    _plots.save(drawing, path)
    _plots.close(drawing)
    return {PLOT: PLOT_TEXT}


def _panels(axes: Any, title: str, sides: dict[str, Figures]) -> None:
    """Draw a load: bars of what is served, and beside them a line for what a ping takes."""
    served, pinged = axes
    for place, (side, figures) in enumerate(sides.items()):
        colour = colour_of(side)
        served.barh(place, figures.requests, color=colour, height=0.62, zorder=3)
        low, high, _ = figures.pings
        pinged.plot([low, high], [place, place], color=colour, linewidth=2, zorder=3)
        pinged.plot(
            *(low, place, "o"),
            color=colour,
            markerfacecolor="none",
            markersize=6,
            markeredgewidth=1.6,
        )
        pinged.plot(high, place, "o", color=colour, markersize=7, zorder=4)
    served.set_ylabel(title)
    served.set_yticks(range(len(sides)), [*sides])
    for text, side in zip(served.get_yticklabels(), sides, strict=True):
        text.set_color(colour_of(side))
        text.set_fontweight("bold" if side.startswith(OURS) else "normal")
    pinged.set_yticks(range(len(sides)), [""] * len(sides))
    pinged.set_xscale("log")
    plain(pinged.xaxis)
    for panel in axes:
        panel.set_ylim(len(sides) - 0.4, -0.6)
        panel.grid(False, axis="y")


def colour_of(side: str) -> str:
    """Return the colour that the other plots give it, too."""
    name = side.partition(",")[0]
    known = {OURS: COLOURS["run"], "asyncio.to_thread": COLOURS["ThreadPoolExecutor"]}
    return known.get(name) or COLOURS.get(name, _plots.GREY)
