"""How many workers one event loop can feed: measured here, and worked out for larger machines.

    python benchmarks/scaling.py                       # measure, and print the tables
    python benchmarks/scaling.py costs closed          # measure only these again, print nothing
    python benchmarks/scaling.py report                # print what was measured last
    python benchmarks/scaling.py report --docs         # and put it into docs/scaling.md, with plots
    --json FILE                                        # where the measurements are kept
    --quick                                            # a look, kept in build/

What is measured, each on one processor and on two:

    core      what the C core's parts cost (benchmarks/core/core_costs.c; needs meson and ninja)
    costs     what a call costs the loop's thread, and a worker's
    closed    throughput, to check the model by
    loops     several event loops in threads

`_scaling_model.py` is the model. docs/scaling.md says what it all means; its tables and plots are
made here.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from _common import HERE, cores, machine, processor, show, watching_others
from _scaling_report import Measured, report

from aiointerpreters._bench._loops import LOOPS

ROOT = HERE.parent
RESULTS = HERE / "results" / "scaling.json"
STEPS = ("core", "costs", "closed", "loops")
CORES = (1, 2)


def core_costs(count: int, quick: bool) -> Any:
    """Build the C program if need be, and run it on so many processors."""
    folder = ROOT / "build" / "core" / "costs"
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if not (folder / "build.ninja").exists():
        setup = ["meson", "setup", str(folder), "-Dpython=false", "-Dcore_benchmarks=true"]
        subprocess.run(setup, cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
    ninja = ["ninja", "--quiet", "-C", str(folder), "benchmarks/core/core_costs"]
    subprocess.run(ninja, env=environment, check=True, stdout=sys.stderr)
    allowed = sorted(os.sched_getaffinity(0))[:count]
    output = subprocess.check_output(
        [folder / "benchmarks" / "core" / "core_costs"],
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        timeout=120,
    )
    return json.loads(output)


def calls(what: str, count: int, *more: str) -> Any:
    """Run the program that measures calls."""
    program = [sys.executable, str(HERE / "_scaling_calls.py"), what, "--cores", str(count), *more]
    return json.loads(subprocess.check_output(program, timeout=120))


def costs(count: int, quick: bool) -> Any:
    """Measure under each event loop."""
    rounds = ["--rounds", "3"] if quick else []
    return {loop: calls("costs", count, "--loop", loop, *rounds) for loop in LOOPS}


def closed(count: int, quick: bool) -> Any:
    """Measure throughput."""
    return calls("closed", count, *(["--seconds", "0.05"] if quick else []))


def loops(count: int, quick: bool) -> Any:
    """Measure several loops."""
    return calls("loops", count, *(["--seconds", "0.05"] if quick else []))


MEASURES = {"core": core_costs, "costs": costs, "closed": closed, "loops": loops}


def main() -> None:
    """Measure what is asked for, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", choices=[*STEPS, "report", []], metavar="STEP")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--docs", action="store_true", help="rewrite docs/scaling.md's tables")
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    options = parser.parse_args()
    if options.json is None:
        options.json = ROOT / "build" / "scaling.json" if options.quick else RESULTS
    measured: Any = {}
    if options.json.exists():
        measured = json.loads(options.json.read_text(encoding="utf-8"))
    steps = [step for step in options.steps or STEPS if step != "report"]
    if steps:
        with watching_others():
            for step in steps:
                counts = [count for count in CORES if count <= cores()]
                show(f"measuring: {step}")
                measured[step] = {str(n): MEASURES[step](n, options.quick) for n in counts}
        measured |= {"format": 1, "machine": machine(), "processor": processor()}
        options.json.parent.mkdir(exist_ok=True)
        options.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if "report" in options.steps or not options.steps:
        report(Measured(measured), ROOT / "docs" if options.docs else None)


if __name__ == "__main__":
    main()
