"""A web service under load, by where it renders, and whether its event loop stays responsive.

    make bench-web          # writes benchmarks/results/serving.json
    make bench-docs         # makes the tables and the plot of docs/web.md from that
    python benchmarks/serving.py --quick

The service is that of examples/web.py: Markdown to HTML. Each side is a server of its own, in a
process of its own, and they take turns, round by round, in an order that rotates. wrk posts texts
over a number of connections, each the next one when it has been answered. Meanwhile /ping is asked
slowly and steadily, which shows how responsive the event loop is.

Two loads: whole pages, of ten milliseconds or more, and comments (paragraphs of these pages), of
half a millisecond. wrk, the probe and the
server share the machine's cores with what renders.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, Self

from _common import cores, machine, processor, show, watching_others
from _serving_load import Load, probe, write_script

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from _serving_server import PROCESSES, SIDES
from rendering import to_html

HERE = Path(__file__).parent
ROOT = HERE.parent
EXAMPLES = ROOT / "examples"
NO_LOAD = "(no load)"
REST = 0.5  # seconds in which what was asked for last is answered
CONNECTIONS = {"pages": 16, "comments": 32}


class Side:
    """A server, in one process or several."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.socket.getsockname()[1]
        descriptor = self.socket.fileno()
        self.processes = [
            subprocess.Popen(
                [sys.executable, HERE / "_serving_server.py", name, str(descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[descriptor],
                env=os.environ | {"PYTHONPATH": str(EXAMPLES)},
            )
            for _ in range(PROCESSES.get(name, 1))
        ]

    def __enter__(self) -> Self:
        """Wait until it serves."""
        for process in self.processes:
            assert process.stdout
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"{self.name}: the server did not start")
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Have it end."""
        for process in self.processes:
            assert process.stdin
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.socket.close()


def texts() -> dict[str, list[str]]:
    """Return what is rendered: this repository's pages, and what might be comments."""
    files = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    files += [
        ROOT / "docs" / f"{name}.md" for name in ("architecture", "calls", "faults", "values")
    ]
    pages = [file.read_text(encoding="utf-8") for file in files]
    paragraphs = [text for page in pages for text in page.split("\n\n")]
    return {"pages": pages, "comments": [text for text in paragraphs if 100 < len(text) < 600]}


def alone(documents: Sequence[str]) -> float:
    """Return the milliseconds that one takes, with nothing else going on."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        for text in documents:
            to_html(text)
        times.append((time.perf_counter() - began) * 1e3 / len(documents))
    return min(times)


async def measure(
    sides: Sequence[Side], loads: dict[str, Load], rounds: int, seconds: int
) -> list[dict[str, Any]]:
    """Have the sides take turns."""
    for side in sides:
        for load in loads.values():
            await load.run(side.port, 1)
            await asyncio.sleep(REST)
    rows = []
    end = time.monotonic() + seconds
    quiet = await probe(sides[0].port, lambda: time.monotonic() > end)
    rows.append({"side": NO_LOAD, "load": "", "pings_ms": rounded(quiet)})
    for name, load in loads.items():
        for number in range(rounds):
            for place in range(len(sides)):
                side = sides[(place + number) % len(sides)]
                said, pings = await load.run(side.port, seconds)
                await asyncio.sleep(REST)
                if said["errors"]:
                    raise RuntimeError(f"{side.name}: {said['errors']} requests failed")
                rows.append({"side": side.name, "load": name, **said, "pings_ms": rounded(pings)})
                show(
                    f"{name:9} {side.name:30} {said['requests'] / said['seconds']:8.1f}/s "
                    f"{said['p50']:8.1f} {said['p99']:8.1f} ms   "
                    f"ping {summary(pings)}"
                )
    return rows


def rounded(samples: Sequence[float]) -> list[float]:
    """Return microseconds' precision."""
    return [round(sample, 3) for sample in samples]


def summary(samples: Sequence[float]) -> str:
    """Return the median, the 99th percentile and the maximum."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    return " ".join(f"{ordered[round(last * part)]:7.2f}" for part in (0.5, 0.99, 1)) + " ms"


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", choices=[*SIDES], default=[*SIDES], metavar="SIDE")
    parser.add_argument("--loads", nargs="+", choices=[*CONNECTIONS], default=[*CONNECTIONS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of a side's turn (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 2

    wrk = subprocess.run(
        [ROOT / "tools" / "debian-program", "wrk"], stdout=subprocess.PIPE, text=True, check=False
    )
    if wrk.returncode:
        sys.exit("There is no wrk, which makes the load, and it can't be fetched.")
    documents = {name: found for name, found in texts().items() if name in options.loads}
    about = {
        name: {
            "documents": len(found),
            "mean_bytes": round(mean(len(text.encode()) for text in found)),
            "alone_ms": round(alone(found), 3),
            "connections": CONNECTIONS[name],
        }
        for name, found in documents.items()
    }
    show(json.dumps(about))
    with TemporaryDirectory() as folder, ExitStack() as servers, watching_others():
        loads = {}
        for name, found in documents.items():
            loads[name] = Load(wrk.stdout.strip(), Path(folder, name), CONNECTIONS[name])
            write_script(found, loads[name].script)
        sides = [Side(name) for name in options.sides]
        for side in sides:
            servers.enter_context(side)
        rows = asyncio.run(measure(sides, loads, options.rounds, options.seconds))
        servers.close()  # their CPU time is ours
    if options.json:
        settings = {"rounds": options.rounds, "seconds": options.seconds, "cores": cores()}
        result = {"format": 1, "machine": f"{processor()}; {machine()}", "settings": settings}
        lines = ",\n  ".join(json.dumps(row) for row in rows)
        head = json.dumps(result | {"loads": about}, indent=1).removesuffix("\n}")
        options.json.write_text(f'{head},\n "rows": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
