"""`benchmarks/report.py` says what the results say, and nothing of what they don't.

The results in tests/bench_results/ are made up.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import _report_serving
import report
from _report_plots import PLOTS
from _report_tables import BLOCKS, NOT_MEASURED

RESULTS = Path(__file__).parent / "bench_results"
ROOT = Path(__file__).parent.parent
OWN_WORDS = "Written by hand."

# Of matplotlib, and of what it imports.
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")

type Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout whose pages have a place for everything."""
    (tmp_path / "docs").mkdir()
    places = [f"<!-- begin: {name} -->\n<!-- end: {name} -->\n" for name in BLOCKS]
    (tmp_path / "docs" / "benchmarks.md").write_text("\n".join([OWN_WORDS, *places]))
    speed = "<!-- begin: speed -->\nold words\n<!-- end: speed -->\n"
    (tmp_path / "README.md").write_text(f"{OWN_WORDS}\n{speed}")
    return tmp_path


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables alone: to draw takes a second."""
    monkeypatch.setattr(report, "draw", lambda results, folder: {})


def part(root: Path, name: str, page: str = "docs/benchmarks.md") -> str:
    """Return a generated part, checking that what is written by hand is still there."""
    text = (root / page).read_text()
    assert text.startswith(OWN_WORDS)
    found = re.search(f"<!-- begin: {name} -->(.*?)<!-- end: {name} -->", text, re.DOTALL)
    assert found
    return found[1]


def changed(folder: Path, change: Change) -> Path:
    """Write the results with a change made."""
    raw = json.loads((RESULTS / "3.14.json").read_text())
    change(raw)
    folder.mkdir()
    (folder / "3.14.json").write_text(json.dumps(raw))
    return folder


@pytest.mark.usefixtures("no_plots")
def test_the_tables_have_what_was_measured(root: Path) -> None:
    report.report(RESULTS, root)

    assert "CPython 3.14.9: Linux 6.1 x86_64, 2 cores of A Processor; 2 workers; 3 rounds" in part(
        root, "machine"
    )
    targets = part(root, "targets")
    assert "faster than ThreadPoolExecutor | 8.00 times | 12.00 times | met |" in targets
    assert "| gather of run | 250,000/s | 300,000/s | met |" in targets
    round_trip = part(root, "round-trip")
    assert "| **`run`** | 5 us | 5.98 us | - | 20 us | 20 us | - |" in round_trip
    assert "| ThreadPoolExecutor | 60 us | 69.8 us | 12 | 30 us | 30 us | 1.50 |" in round_trip
    assert "| InterpreterPoolExecutor | 100 us | 100 us | 20 | - | - | - |" in round_trip
    assert "| **`run`** | 5 us; 20 us | 2.50 us; 18 us |" in round_trip  # both loops
    assert "can't: loky: took longer than 30 s." in round_trip
    assert "| ThreadPoolExecutor | 30 k/s | 10 | - |" in part(root, "throughput")
    assert "| 100 MB | 36 ms | can't |" in part(root, "payloads")
    assert "| ThreadPoolExecutor | never | 4 | 1.10 |" in part(root, "break-even")
    assert "| numbers, 1 ms | 1.96 |" in part(root, "speed-up")
    assert "| **`run`** | 10 ms | 1.25 | 44 ms | 1.10 |" in part(root, "start-up")
    assert "| (bare interpreters) | 2,510 kB |" in part(root, "memory")
    assert "| **`run`** | 0.26 ms | 1.25 ms | 4.40 ms |" in part(root, "lag")
    assert "| **`run`** | 0.30 ms | 1 |" in part(root, "cpu")


def test_the_readme_has_a_few_figures_and_one_plot(root: Path) -> None:
    report.report(RESULTS, root)

    speed = part(root, "speed", "README.md")
    assert "(docs/plots/round-trip.svg)" in speed
    assert "| ThreadPoolExecutor | 60 us | 12 | 30 us | 1.50 | 30 k/s |" in speed
    assert "old words" not in speed


def test_every_picture_is_there_and_legible_on_any_ground(root: Path) -> None:
    report.report(RESULTS, root)

    text = (root / "docs" / "benchmarks.md").read_text()
    pictures = set(re.findall(r"\]\((plots/[^)]*)\)", text))
    # No memoryviews were measured.
    assert pictures == {f"plots/{name}.svg" for name in PLOTS} - {"plots/payload-memoryview.svg"}
    for picture in pictures:
        svg = (root / "docs" / picture).read_text()
        assert ">run</text>" in svg
        solid = re.findall(r"(?:fill|stroke): #(?:f{3,6}|0{3,6})(?!; opacity: 0\b)", svg)
        assert solid == []  # neither white nor black


def test_the_same_results_give_the_same_files(root: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    report.report(RESULTS, root)
    first = files()
    report.report(RESULTS, root)

    assert files() == first


def leave_out(*tables: str) -> Change:
    def change(raw: dict[str, Any]) -> None:
        raw["tables"] = [table for table in raw["tables"] if table["name"] not in tables]

    return change


@pytest.mark.parametrize("table", [*PLOTS, "scaling", "memory", "cpu-idle"])
@pytest.mark.usefixtures("no_plots")
def test_a_table_that_was_not_measured_is_left_out(root: Path, tmp_path: Path, table: str) -> None:
    report.report(changed(tmp_path / "results", leave_out(table)), root)

    for name in BLOCKS:
        depends = name == table or (name, table) in {
            ("payloads", "payload-bytes"),
            ("cpu", "cpu-idle"),
            ("speed", "round-trip"),
        }
        assert (part(root, name).strip() == NOT_MEASURED) == depends


def test_a_plot_of_what_is_no_longer_there_is_removed(root: Path, tmp_path: Path) -> None:
    plots = root / "docs" / "plots"
    plots.mkdir()
    (plots / "round-trip.svg").touch()

    tables = [table for table in PLOTS if table != "lag"]
    report.report(changed(tmp_path / "results", leave_out(*tables)), root)

    assert [path.name for path in plots.iterdir()] == ["lag.svg"]
    assert "![Lag of the event loop, by side](plots/lag.svg)" in part(root, "lag")
    assert "plots/" not in part(root, "round-trip")


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("side", ["run", "(asyncio alone)", "ThreadPoolExecutor"])
def test_a_side_that_was_not_measured_is_left_out(root: Path, tmp_path: Path, side: str) -> None:
    def change(raw: dict[str, Any]) -> None:
        for table in raw["tables"]:
            table["rows"] = [row for row in table["rows"] if row["side"] != side]

    report.report(changed(tmp_path / "results", change), root)

    for name in BLOCKS:
        assert f"| {side} |" not in part(root, name)
        assert f"**`{side}`**" not in part(root, name)


def test_no_results_at_all_are_said_to_be_none(root: Path, tmp_path: Path) -> None:
    report.report(tmp_path / "nowhere", root)

    assert part(root, "targets").strip() == NOT_MEASURED
    assert list((root / "docs" / "plots").iterdir()) == []


@pytest.mark.usefixtures("no_plots")
def test_several_versions_are_beside_each_other(root: Path, tmp_path: Path) -> None:
    folder = changed(tmp_path / "results", lambda raw: None)
    other = json.loads((RESULTS / "3.14.json").read_text())
    other["tables"] = other["tables"][:1]
    other["tables"][0]["rows"][0]["samples"]["back to back"] = [7.5]
    (folder / "3.15.json").write_text(json.dumps(other))

    report.report(folder, root)

    round_trip = part(root, "round-trip")
    assert "| 3.14, asyncio | 3.14, uvloop | 3.15, asyncio |" in round_trip
    assert "| **`run`** | 5 us; 20 us | 2.50 us; 18 us | 7.50 us; 20 us |" in round_trip
    assert "CPython 3.15: " in part(root, "targets")


@pytest.mark.usefixtures("no_plots")
def test_the_parts_of_a_version_are_put_together(root: Path, tmp_path: Path) -> None:
    folder = changed(tmp_path / "results", leave_out("lag", "memory"))
    other = json.loads((RESULTS / "3.14.json").read_text())
    leave_out(*(set(PLOTS) - {"lag"}), "speed-up", "scaling", "memory", "cpu-idle")(other)
    (folder / "3.14-lag.json").write_text(json.dumps(other))

    report.report(folder, root)

    assert "| **`run`** | 0.26 ms | 1.25 ms | 4.40 ms |" in part(root, "lag")
    assert "| **`run`** | 5 us |" in part(root, "round-trip")
    assert "above an idle loop's | ≤ 1.00 ms | 0.15 ms | met |" in part(root, "targets")
    assert "Measured: lag (asyncio)." in part(root, "machine")
    assert part(root, "memory").strip() == NOT_MEASURED


@pytest.mark.usefixtures("no_plots")
def test_a_place_for_something_unknown_is_refused(root: Path) -> None:
    (root / "README.md").write_text("<!-- begin: colour -->\n<!-- end: colour -->\n")

    with pytest.raises(ValueError, match=r"README.md: there is no 'colour'; there are: machine, "):
        report.report(RESULTS, root)


def test_our_own_pages_have_a_place_for_everything() -> None:
    found = {
        match["name"]
        for page in report.PAGES
        for match in report.PLACE.finditer((ROOT / page).read_text("utf-8"))
    }

    assert found == set(BLOCKS)


# ---- a web service under load ----


@pytest.fixture
def web_page(tmp_path: Path) -> Path:
    """A checkout with a page for it."""
    (tmp_path / "docs").mkdir()
    places = [f"<!-- begin: {name} -->\n<!-- end: {name} -->\n" for name in _report_serving.BLOCKS]
    (tmp_path / "docs" / "web.md").write_text("\n".join([OWN_WORDS, *places]))
    return tmp_path


def test_a_web_services_figures_are_medians_over_the_rounds(web_page: Path) -> None:
    report.report_serving(RESULTS, web_page)

    text = part(web_page, "serving-pages", "docs/web.md")
    assert "2 texts of 1.5 kB, mean; 8 ms each" in text
    assert "| on the loop | 100 | 80 ms | 90 ms | 70 ms |" in text
    assert "| **Runner, giving way** | 200 | 40 ms | 50 ms | 0.50 ms | 0.99 ms | 1 ms |" in text
    assert part(web_page, "serving-comments", "docs/web.md").strip() == NOT_MEASURED
    picture = (web_page / "docs" / "plots" / "serving.svg").read_text()
    assert ">Runner, giving way</text>" in picture
    assert "(plots/serving.svg)" in part(web_page, "serving-machine", "docs/web.md")


def test_a_web_service_that_was_not_measured_has_no_figures(web_page: Path) -> None:
    report.report_serving(web_page, web_page)

    for name in _report_serving.BLOCKS:
        assert part(web_page, name, "docs/web.md").strip() == NOT_MEASURED


def test_all_of_a_web_services_figures_have_a_place() -> None:
    found = [
        match["name"]
        for page in report.SERVING_PAGES
        for match in report.PLACE.finditer((ROOT / page).read_text("utf-8"))
    ]

    assert found == list(_report_serving.BLOCKS)


def test_what_was_measured_of_clusters_has_a_place(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for page in report.BEYOND_PAGES:
        (tmp_path / page).write_text(OWN_WORDS + (ROOT / page).read_text("utf-8"))
    raw = {
        "machine": "made up",
        "alone_ms": 10.0,
        "rows": [
            {
                "side": "Dask, threads",
                "empty_us": [900, 1000, 2000],
                "busy_ms": [10.0, 11.0, 9.0],
                "memory_mib": 123.4,
                "start_s": 2.0,
            }
        ],
    }
    (tmp_path / "beyond.json").write_text(json.dumps(raw))

    report.report_beyond(tmp_path, tmp_path)
    text = part(tmp_path, "beyond", "docs/scaling.md")
    assert "| Dask, threads | 1,000 us | 10 ms | 1.00 | 123 MiB | 2.0 s |" in text

    report.report_beyond(tmp_path / "nowhere", tmp_path)
    assert part(tmp_path, "beyond", "docs/scaling.md").strip() == NOT_MEASURED
