"""The report's tables, as Markdown: the main run's in full, all runs beside each other in short."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from _report_data import OURS, Results, Row, Table

from aiointerpreters._bench._printing import quantity, ratio
from aiointerpreters._bench._targets import computed

type Cell = Callable[[Table, Row], str]
type Columns = list[tuple[str, Cell]]

RUN = OURS[0]
NOTHING = "-"
NOT_MEASURED = "Not measured yet."
BARE = "(bare interpreters)"


# ---- laying out ----


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def side_name(side: str) -> str:
    """Ours stand out."""
    name, comma, how = side.partition(",")
    return f"**`{name}`**{comma}{how}" if name in OURS else side


def value(measure: str, percent: int = 50) -> Cell:
    """A column of medians, or of another percentile."""

    def cell(table: Table, row: Row) -> str:
        found = row.value(measure, percent)
        if found is not None:
            return quantity(found, table.units[measure])
        reason = row.reason(measure)
        if reason is None:
            return NOTHING
        return "never" if reason.startswith("never") else "can't"

    return cell


def times(measure: str, side: str = RUN) -> Cell:
    """A column of how many times as much as a side."""

    def cell(table: Table, row: Row) -> str:
        found = table.against(side, row, measure)
        return NOTHING if found is None or row.side == side else ratio(found)

    return cell


def by_side(table: Table, columns: Columns) -> str:
    """A row for each side. Rows and columns in which there is nothing are left out."""
    cells = [[cell(table, row) for _, cell in columns] for row in table.rows]
    used = [
        number
        for number in range(len(columns))
        if any(line[number] not in (NOTHING, "can't") for line in cells)
    ]
    rows = [
        [side_name(row.side), *(line[number] for number in used)]
        for row, line in zip(table.rows, cells, strict=True)
        if any(line[number] != NOTHING for number in used)
    ]
    return markdown(["", *(columns[number][0] for number in used)], rows) + reasons(table)


def all_values(table: Table, percent: int = 50) -> Columns:
    """A column for each measure."""
    return [(measure, value(measure, percent)) for measure in table.units]


def reasons(table: Table) -> str:
    """Say why sides can't; the same of several measures once."""
    found = dict.fromkeys(
        f"{row.side}: {reason}"
        for row in table.rows
        for measure in table.units
        if not row.samples.get(measure)
        and (reason := row.reason(measure))
        and not reason.startswith("never")
    )
    return "\n\ncan't: " + "; ".join(found) + "." if found else ""


def compared(results: Results, name: str, measures: Sequence[str], what: str = "") -> str:
    """All runs beside each other: a row for each side; the medians of some measures."""
    runs = [
        (run, table)
        for run, table in results.having(name)
        if any(row.samples.get(measure) for row in table.rows for measure in measures)
    ]
    if len(runs) < 2:
        return ""
    sides = dict.fromkeys(row.side for _, table in runs for row in table.rows)

    def cell(table: Table, side: str) -> str:
        row = table.row(side)
        parts = [value(measure)(table, row) for measure in measures] if row else []
        return "; ".join(parts) if any(part != NOTHING for part in parts) else NOTHING

    lines = [[cell(table, side) for _, table in runs] for side in sides]
    rows = [
        [side_name(side), *line]
        for side, line in zip(sides, lines, strict=True)
        if any(part != NOTHING for part in line)
    ]
    return markdown([what or "; ".join(measures), *(run.name for run, _ in runs)], rows)


def section(results: Results, name: str, make: Callable[[Table], str], *more: str) -> str:
    """The main run's table, and what else there is below it."""
    found = results.main(name)
    if found is None:
        return NOT_MEASURED
    run, table = found
    parts = [f"CPython {run.python}, {run.loop}:", make(table), *more]
    return "\n\n".join(part for part in parts if part)


# ---- what is said of where it was measured, and what was wanted ----


def machine(results: Results) -> str:
    """Describe each run of the suite."""
    parts = [part for result in results.results for part in result.parts]
    if len(parts) == len(results.results):
        return "\n".join(f"- {_machine(part)}" for part in parts) or NOT_MEASURED
    return "\n".join(f"- {_machine(part)} Measured: {_measured(part)}." for part in parts)


def _measured(part: dict[str, Any]) -> str:
    """Name the tables of a part, with their loops."""
    loops: dict[str, list[str]] = {}
    for table in part["tables"]:
        loops.setdefault(table["name"], []).append(table["loop"])
    return ", ".join(f"{name} ({', '.join(on)})" for name, on in loops.items())


def _machine(raw: dict[str, Any]) -> str:
    about, settings = raw["machine"], raw["settings"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    rounds = f"{settings['rounds']} round{'s' * (settings['rounds'] != 1)}"
    quick = "; a quick run, which is less exact" if settings.get("quick") else ""
    return (
        f"CPython {about['python']}: {about['system']}, {about['cores']} cores of {about['cpu']}; "
        f"{settings['workers']} workers; {rounds}{quick}; other programs kept "
        f"{raw['others_busy']:.2f} cores busy meanwhile. {versions}."
    )


def targets(results: Results) -> str:
    """What was wanted and what was measured: a table for each Python."""
    parts: list[str] = []
    for result in results.results:
        found = computed(result.tables)
        if found:
            met = sum(target.met for target in found)
            rows = [[t.name, t.wanted, t.got, "met" if t.met else "**missed**"] for t in found]
            parts.append(f"CPython {result.python}: {met} of {len(found)} are met.")
            parts.append(markdown(["target, on two cores", "wanted", "got", ""], rows))
    return "\n\n".join(parts) or NOT_MEASURED


# ---- the sections ----


def round_trip(results: Results) -> str:
    """One call at a time."""

    def full(table: Table) -> str:
        columns: Columns = []
        for measure in table.units:
            columns += [
                (measure, value(measure)),
                ("p99", value(measure, 99)),
                ("ratio", times(measure)),
            ]
        return by_side(table, columns)

    return section(
        results, "round-trip", full, compared(results, "round-trip", ["back to back", "after 5 ms"])
    )


def throughput(results: Results) -> str:
    """Thousands of calls at once."""

    def full(table: Table) -> str:
        columns: Columns = []
        for measure in table.units:
            columns += [(measure, value(measure)), ("ratio", times(measure))]
        return by_side(table, columns)

    more = compared(results, "throughput", ["gather", "map"])
    return section(results, "throughput", full, more)


def payloads(results: Results) -> str:
    """Values there and back: a row for each, a column for each side; and ours in all runs."""
    kinds = ("bytes", "str", "memoryview", "containers")
    found = {kind: results.main(f"payload-{kind}") for kind in kinds}
    parts: list[str] = []
    for kind, pair in found.items():
        if pair:
            run, table = pair
            parts.append(f"`{kind}`" if kind != "containers" else "Nested containers")
            parts[-1] += f", CPython {run.python}, {run.loop}:"
            parts.append(_by_payload(table) + reasons(table))
    parts.append(_payloads_compared(results, kinds))
    return "\n\n".join(part for part in parts if part) or NOT_MEASURED


def _by_payload(table: Table) -> str:
    rows = [row for row in table.rows if any(row.samples.values())]
    lines = [[measure, *(value(measure)(table, row) for row in rows)] for measure in table.units]
    return markdown(["", *(side_name(row.side) for row in rows)], lines)


def _payloads_compared(results: Results, kinds: Sequence[str]) -> str:
    columns: dict[str, dict[str, str]] = {}  # by run, by payload
    payloads: dict[str, None] = {}
    for kind in kinds:
        for run, table in results.having(f"payload-{kind}"):
            row = table.row(RUN)
            for measure in table.units if row else ():
                assert row
                name = measure if kind == "containers" else f"`{kind}`, {measure}"
                payloads[name] = None
                columns.setdefault(run.name, {})[name] = value(measure)(table, row)
    if len(columns) < 2:
        return ""
    lines = [
        [name, *(column.get(name, NOTHING) for column in columns.values())] for name in payloads
    ]
    return f"{side_name(RUN)} everywhere:\n\n" + markdown(["", *columns], lines)


def break_even(results: Results) -> str:
    """From which size of a task on it pays."""
    return section(
        results,
        "break-even",
        lambda table: by_side(table, all_values(table)),
        compared(results, "break-even", ["break-even"], "break-even size"),
    )


def speed_up(results: Results) -> str:
    """Against the loop alone, and all workers against one."""

    def every(table: Table) -> str:
        return by_side(table, all_values(table))

    def turned(table: Table) -> str:
        return _by_payload(table) + reasons(table)

    parts = [
        section(
            results,
            "speed-up",
            every,
            compared(results, "speed-up", ["parse HTML", "numbers"], "parse HTML; numbers, 1 ms"),
        )
    ]
    scaling = results.main("scaling")
    if scaling:
        run, table = scaling
        parts.append(f"{table.title}, CPython {run.python}, {run.loop}:")
        parts.append(turned(table))
        parts.append(_ours_compared(results, "scaling"))
    return "\n\n".join(part for part in parts if part)


def _ours_compared(results: Results, name: str) -> str:
    """Ours alone in all runs: a row for each measure."""
    runs = [(run, table, row) for run, table in results.having(name) if (row := table.row(RUN))]
    if len(runs) < 2:
        return ""
    measures = dict.fromkeys(measure for _, table, _ in runs for measure in table.units)
    lines = [
        [
            measure,
            *(
                value(measure)(table, row) if measure in table.units else NOTHING
                for _, table, row in runs
            ),
        ]
        for measure in measures
    ]
    return markdown([side_name(RUN), *(run.name for run, _, _ in runs)], lines)


def start_up(results: Results) -> str:
    """From nothing to the first result of each worker."""

    def full(table: Table) -> str:
        columns: Columns = []
        for measure in table.units:
            columns += [(measure, value(measure)), ("against bare", times(measure, BARE))]
        return by_side(table, columns)

    return section(
        results, "start-up", full, compared(results, "start-up", ["8 workers"], "8 workers")
    )


def memory(results: Results) -> str:
    """What a worker keeps."""
    return section(
        results,
        "memory",
        lambda table: by_side(table, all_values(table)),
        compared(results, "memory", ["each worker"], "each worker"),
    )


def lag(results: Results) -> str:
    """How late the loop is."""
    return section(
        results,
        "lag",
        lambda table: by_side(table, all_values(table)),
        compared(results, "lag", ["p50", "p99"]),
    )


def cpu(results: Results) -> str:
    """What is used while there is next to nothing to do."""
    parts: list[str] = []
    for name in ("cpu-idle", "cpu-lightly-loaded"):
        found = results.main(name)
        if found:
            run, table = found
            parts.append(f"{table.title}, CPython {run.python}, {run.loop}:")
            parts.append(by_side(table, all_values(table)))
            parts.append(compared(results, name, list(table.units)[:1]))
    return "\n\n".join(part for part in parts if part) or NOT_MEASURED


def speed(results: Results) -> str:
    """The README's few figures."""
    found = results.main("round-trip")
    if found is None:
        return NOT_MEASURED
    run, table = found
    many = run.tables.get("throughput")
    sides = [row.side for row in table.rows if row.side in SHOWN and any(row.samples.values())]
    lines: list[list[str]] = []
    for side in sides:
        row, burst = table.row(side), many.row(side) if many else None
        assert row
        line = [side_name(side)]
        for measure in ("back to back", "after 5 ms"):
            line += [_or_nothing(table, row, measure), times(measure)(table, row)]
        line.append(_or_nothing(many, burst, "gather"))
        lines.append(line)
    header = ["", "one call after another", "ratio", "after 5 ms of quiet", "ratio"]
    header.append("thousands at once")
    about = f"CPython {run.python}, {run.loop}; medians:"
    return about + "\n\n" + markdown(header, lines)


SHOWN = (
    RUN,
    "ThreadPoolExecutor",
    "InterpreterPoolExecutor",
    "ProcessPoolExecutor",
    "anyio.to_interpreter",
    "original 0.5.0",
)


def _or_nothing(table: Table | None, row: Row | None, measure: str) -> str:
    return value(measure)(table, row) if table and row and measure in table.units else NOTHING


#: By the name of their place.
BLOCKS: dict[str, Callable[[Results], str]] = {
    "machine": machine,
    "targets": targets,
    "round-trip": round_trip,
    "throughput": throughput,
    "payloads": payloads,
    "break-even": break_even,
    "speed-up": speed_up,
    "start-up": start_up,
    "memory": memory,
    "lag": lag,
    "cpu": cpu,
    "speed": speed,
}
