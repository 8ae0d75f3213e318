"""What a worker's start takes: next to nothing that an interpreter by itself does not."""

import _interpreters
import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiointerpreters
from aiointerpreters import Runner
from helpers.programs import Program
from workfns import modules

#: All that a worker has before it has been asked for anything.
OURS = {"aiointerpreters._core"}
#: What it takes to find a function in the main script.
FOR_MAIN = {
    "__future__",
    "__mp_main__",
    "aiointerpreters",
    "aiointerpreters._finding",
    "aiointerpreters._main",
    "importlib",
    "importlib._bootstrap",
    "importlib._bootstrap_external",
}


def modules_of_a_bare_interpreter() -> set[str]:
    here, there = os.pipe()
    bare = _interpreters.create("isolated")
    try:
        _interpreters.exec(
            bare,
            f"import sys, os; os.write({there}, ' '.join(sys.modules).encode())",
        )
        return set(os.read(here, 65536).decode().split())
    finally:
        _interpreters.destroy(bare)
        os.close(here)
        os.close(there)


def call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    async def main() -> Any:
        async with Runner(workers=1, **options) as runner:
            return await runner.run(function, *args)

    return asyncio.run(main())


def test_the_first_call_finds_nothing_imported_but_the_core() -> None:
    loaded = set(call(modules.loaded))
    assert loaded - modules_of_a_bare_interpreter() == OURS | {"workfns", "workfns.modules"}


def test_nothing_more_is_imported_to_begin_with_where_nothing_is_forwarded() -> None:
    loaded = set(call(modules.loaded, logging=False))
    assert loaded - modules_of_a_bare_interpreter() == OURS | {"workfns", "workfns.modules"}


def test_plain_values_import_nothing() -> None:
    values = [None, 1.5, "text", b"bytes", {"key": [(), ()]}, ((), (), ("", "")), {1, 2}]
    loaded = set(call(modules.loaded, *values))
    assert loaded - modules_of_a_bare_interpreter() == OURS | {"workfns", "workfns.modules"}


def test_a_function_of_the_main_script_takes_few_modules(program: Program) -> None:
    ended = program("""
        import sys

        def loaded():
            return list(sys.modules)

        if __name__ == "__main__":
            import asyncio
            from aiointerpreters import Runner

            async def main():
                async with Runner(workers=1) as runner:
                    print(*await runner.run(loaded))

            asyncio.run(main())
        """)
    ended.assert_ended()
    assert set(ended.out.split()) - modules_of_a_bare_interpreter() <= OURS | FOR_MAIN


def test_the_package_is_whole_when_a_function_imports_it() -> None:
    here = set(dir(aiointerpreters))
    assert set(call(modules.attributes_of_the_package)) == here


def test_what_is_loaded_before_the_set_up_is_forwarded_as_well(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "sitecustomize.py").write_text("import logging, warnings\n")
    ended = program(
        """
        import asyncio, logging, warnings
        from aiointerpreters import Runner

        class Shows(logging.Handler):
            def emit(self, record):
                print(record.name, record.getMessage(), record.threadName)

        async def main():
            logging.root.addHandler(Shows())
            logging.captureWarnings(True)
            async with Runner(workers=1) as runner:
                await runner.run(logging.getLogger("early").warning, "heard")
                await runner.run(warnings.warn, "heard too")

        if __name__ == "__main__":
            asyncio.run(main())
        """,
        env={"PYTHONPATH": str(tmp_path / "early")},
    )
    assert "early heard aio-worker-0" in ended.out
    assert "heard too" in ended.out
