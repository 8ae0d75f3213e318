"""Make the tables and plots of docs/ and the README from their results.

    make bench-record PYTHON_VERSION=3.14      # measures, and writes benchmarks/results/3.14.json
    make bench-web                             # likewise, benchmarks/results/serving.json
    make bench-beyond                          # likewise, benchmarks/results/beyond.json
    make bench-docs                            # this program

Parts of a Python's results may be in files of their own, 3.14-lag.json, each the suite's --json.

Generated are the parts between `<!-- begin: NAME -->` and `<!-- end: NAME -->`, and docs/plots. The
rest is written by hand. What was not measured is left out, so any results will do; the same ones
give the same files.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import _report_beyond
import _report_serving
from _report_data import Results
from _report_plots import draw
from _report_tables import BLOCKS

ROOT = Path(__file__).parent.parent
PLOTS = Path("docs", "plots")

#: Below which block's tables a plot is; before them, as it says more at a glance.
PLACES = {
    "round-trip": ["round-trip"],
    "throughput": ["throughput"],
    "payloads": ["payload-bytes", "payload-memoryview"],
    "break-even": ["break-even"],
    "start-up": ["start-up"],
    "lag": ["lag"],
    "speed": ["round-trip"],
    "serving-machine": [_report_serving.PLOT],
}
PAGES = (Path("docs", "benchmarks.md"), Path("README.md"))
BEYOND_PAGES = (Path("docs", "scaling.md"),)
SERVING_PAGES = (Path("docs", "web.md"),)
PLACE = re.compile(
    r"(?P<begin><!-- begin: (?P<name>[\w-]+) -->\n).*?(?P<end><!-- end: (?P=name) -->)", re.DOTALL
)


type Blocks = Mapping[str, Callable[[], str]]


def report(results: Path, root: Path) -> None:
    """Rewrite the pages below root, which are there, and the plots.

    Raises:
        ValueError: A page has a place for something that isn't known.
    """
    found = Results.read(results)
    blocks = {name: partial(block, found) for name, block in BLOCKS.items()}
    rewrite(root, PAGES, blocks, draw(found, root / PLOTS))


def report_serving(results: Path, root: Path) -> None:
    """Likewise, of a web service under load."""
    found = _report_serving.Serving.read(results)
    blocks = {name: partial(block, found) for name, block in _report_serving.BLOCKS.items()}
    rewrite(root, SERVING_PAGES, blocks, _report_serving.draw(found, root / PLOTS))


def report_beyond(results: Path, root: Path) -> None:
    """Likewise, of what there is beyond one process."""
    found = _report_beyond.read(results)
    blocks = {name: partial(block, found) for name, block in _report_beyond.BLOCKS.items()}
    rewrite(root, BEYOND_PAGES, blocks, {})


def rewrite(root: Path, pages: Iterable[Path], blocks: Blocks, plots: dict[str, str]) -> None:
    """Make the generated parts of some pages anew."""
    for page in pages:
        path = root / page
        path.write_text(filled(path.read_text(encoding="utf-8"), page, blocks, plots), "utf-8")


def filled(text: str, page: Path, blocks: Blocks, plots: dict[str, str]) -> str:
    """Return a page's text with its generated parts made anew."""

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in blocks:
            raise ValueError(f"{page}: there is no {name!r}; there are: {', '.join(blocks)}")
        folder = (PLOTS.relative_to(page.parent) if page.parent.parts else PLOTS).as_posix()
        pictures = [
            f"![{plots[plot]}]({folder}/{plot}.svg)"
            for plot in PLACES.get(name, ())
            if plot in plots
        ]
        content = "\n\n".join([*pictures, blocks[name]()])
        return f"{match['begin']}\n{content}\n\n{match['end']}"

    return PLACE.sub(part, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the checkout to rewrite")
    options = parser.parse_args()
    report(options.results, options.root)
    report_serving(options.results, options.root)
    report_beyond(options.results, options.root)
    pages = ", ".join(map(str, (*PAGES, *SERVING_PAGES, *BEYOND_PAGES)))
    print(f"written: {pages} and {PLOTS}/")
