"""How our plots look: as SVG that can be read on a light page and on a dark one.

The ground is transparent; what is no curve is of a grey that stands out from both white and black,
and so are the colours of curves. Text stays text, so that a browser's fonts are used.
"""

from pathlib import Path
from typing import Any

GREY = "#808890"
#: Of middle lightness, told apart also by those who see few colours (after Okabe and Ito).
COLOURS = ["#2f8fd0", "#e07b1a", "#1fa37c", "#c3699c", "#a58b12", "#7a6fd0"]


def figure(title: str, x: str, y: str, size: tuple[float, float] = (7.2, 4.2)) -> tuple[Any, Any]:
    """Return a new figure and its axes, both logarithmic."""
    pyplot = _styled()
    drawing, axes = pyplot.subplots(figsize=size, layout="constrained")
    axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
    axes.grid(True)
    return drawing, axes


def grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """Return a new figure with panels, and their axes, by row and column."""
    pyplot = _styled()
    drawing, axes = pyplot.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False
    )
    for panel in axes.flat:
        panel.grid(True)
    return drawing, axes


def _styled() -> Any:
    """Return matplotlib's pyplot, with our style."""
    import matplotlib as mpl
    from cycler import cycler

    mpl.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "aiointerpreters",  # the same data, the same file
            "font.family": "sans-serif",
            "font.size": 10,
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.edgecolor": GREY,
            "axes.labelcolor": GREY,
            "axes.titlecolor": GREY,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.color": GREY,
            "xtick.color": GREY,
            "ytick.color": GREY,
            "grid.color": GREY,
            "grid.alpha": 0.25,
            "legend.frameon": False,
        }
    )
    return pyplot


def save(drawing: Any, path: Path) -> None:
    """Write the SVG, without a date in it."""
    drawing.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def close(drawing: Any) -> None:
    """Forget a figure; many open ones are warned of."""
    from matplotlib import pyplot

    pyplot.close(drawing)
