"""`python -m aiointerpreters COMMAND`: what the package offers at the command line."""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit status."""
    from ._bench import _cli as bench

    parser = argparse.ArgumentParser(
        prog="python -m aiointerpreters",
        description="Run CPU-bound functions in subinterpreters, in parallel, from asyncio.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    bench.add_command(commands)
    options = parser.parse_args(arguments)
    status: int = options.command(options)
    return status


# Processes and interpreters that are started from here load this file, too, without this part.
if __name__ == "__main__":
    sys.exit(main())
