"""Functions of the script itself, however it was started, and what workers inherit of it."""

import os
import zipfile
from pathlib import Path

import pytest

from helpers import programs
from helpers.programs import Program

SQUARE = """
import asyncio, os, sys
from aiointerpreters import Runner

def square(n):
    return n * n

def name():
    return __name__

class Box:
    def __init__(self, content):
        self.content = content

    @staticmethod
    def pack(content):
        return Box(content)

    def unpack(self):
        return self.content

class BoxError(Exception):
    pass

def drop(box):
    raise BoxError(box.content)

async def main():
    async with Runner(workers=2) as runner:
        print(await runner.run(square, 7))
        box = await runner.run(Box.pack, {"a": Box(1)})
        assert type(box) is Box and type(box.content["a"]) is Box
        assert await runner.run(Box(5).unpack) == 5
        assert await runner.run(Box.unpack, box) is not None
        try:
            await runner.run(drop, Box("crash"))
        except BoxError as error:
            assert error.args == ("crash",)
        assert await runner.run(name) != "__main__"

if __name__ == "__main__":
    print("guarded")
    asyncio.run(main())
"""

EXPECTED = "guarded\n49\n"


def check(ended: programs.Ended) -> None:
    ended.assert_fine()
    assert ended.out == EXPECTED


def test_a_script(program: Program) -> None:
    check(program(SQUARE))


def test_a_script_by_a_relative_path(program: Program) -> None:
    program.write("folder/script.py", SQUARE)
    check(programs.run(["folder/script.py"], cwd=program.folder))


def test_a_script_from_another_working_directory(program: Program, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    program.write("folder/helper_of_the_script.py", "number = 7\n")
    script = program.write("folder/script.py", "import helper_of_the_script\n" + SQUARE)
    check(programs.run([script], cwd=tmp_path / "elsewhere"))


def test_a_script_by_a_relative_path_that_changes_its_working_directory(
    program: Program,
) -> None:
    program.write("folder/script.py", SQUARE.replace('print("guarded")', 'os.chdir("/")\n'))
    ended = programs.run(["folder/script.py"], cwd=program.folder)
    ended.assert_fine()
    assert ended.out == "49\n"


def test_a_script_with_an_unusual_name(program: Program) -> None:
    check(programs.run([program.write("ein Skript ü.1-2.py", SQUARE)]))


def test_an_entry_point_without_a_suffix(program: Program) -> None:
    check(programs.run([program.write("bin/command", SQUARE)]))


def test_an_entry_point_that_imports_its_main(program: Program) -> None:
    """As pip writes them for console scripts."""
    program.write("installed_package/__init__.py", "")
    program.write("installed_package/cli.py", SQUARE)
    command = program.write(
        "bin/command",
        """
        import asyncio, sys
        sys.path.insert(0, sys.argv[1])
        from installed_package.cli import main
        if __name__ == '__main__':
            sys.argv[0] = sys.argv[0].removesuffix('.exe')
            sys.exit(asyncio.run(main()))
        """,
    )
    ended = programs.run([command, str(program.folder)])
    ended.assert_fine()
    assert ended.out == "49\n"


@pytest.mark.parametrize("module", ["package", "package.__main__", "package.tool"])
def test_a_module_by_m(module: str, program: Program) -> None:
    program.write("package/__init__.py", "")
    program.write("package/sibling.py", "number = 7\n")
    for name in ("__main__", "tool"):
        program.write(f"package/{name}.py", "from .sibling import number\n" + SQUARE)
    check(programs.run(["-m", module], cwd=program.folder))


def test_a_plain_module_by_m(program: Program) -> None:
    program.write("tool_by_m.py", SQUARE)
    check(programs.run(["-m", "tool_by_m"], cwd=program.folder))


def test_a_folder_with_a_main(program: Program) -> None:
    program.write("application/__main__.py", SQUARE)
    check(programs.run(["application"], cwd=program.folder))


def test_an_archive_with_a_main_works_or_says_that_it_does_not(program: Program) -> None:
    archive = program.folder / "application.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", SQUARE)
    ended = programs.run([archive])
    ended.assert_quiet()
    assert ended.out == EXPECTED or "RunnerError" in ended.err


def test_the_script_is_loaded_once_in_a_worker_and_without_its_guarded_part(
    program: Program,
) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        print("top", flush=True)

        def square(n):
            return n * n

        def cube(n):
            return n ** 3

        async def main():
            async with Runner(workers=1) as runner:
                for n in range(3):
                    assert await runner.run(square, n) == n * n
                    assert await runner.run(cube, n) == n ** 3

        if __name__ == "__main__":
            print("guarded")
            asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out.split().count("guarded") == 1
    assert ended.out.split().count("top") == 2


def test_the_script_is_not_loaded_where_none_of_its_functions_is_called(
    program: Program,
) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        print("top", flush=True)

        async def main():
            async with Runner(workers=1) as runner:
                assert await runner.run(abs, -1) == 1

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out == "top\n"


def test_a_script_without_a_guard_ends_with_an_error(program: Program) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        def square(n):
            return n * n

        async def main():
            async with Runner(workers=1) as runner:
                print(await runner.run(square, 7))

        asyncio.run(main())
    """)
    assert ended.status == 1
    assert "Error" in ended.err
    ended.assert_quiet()


def test_a_script_that_raises_when_loaded_in_a_worker_fails_each_call(program: Program) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        def square(n):
            return n * n

        if __name__ != "__main__":
            raise LookupError("only as a script")

        async def main():
            async with Runner(workers=1) as runner:
                for n in range(3):
                    try:
                        await runner.run(square, n)
                    except LookupError as error:
                        print(error)
                    assert await runner.run(abs, -1) == 1

        asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out == "only as a script\n" * 3


def test_a_function_defined_in_the_guarded_part_says_so(program: Program) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        if __name__ == "__main__":
            def square(n):
                return n * n

            async def main():
                async with Runner(workers=1) as runner:
                    for _ in range(2):
                        try:
                            await runner.run(square, 7)
                        except Exception as error:
                            assert "square" in str(error), error
                            print(type(error).__name__)
                    assert await runner.run(abs, -1) == 1

            asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out in ("AttributeError\n" * 2, "RunnerError\n" * 2)


FROM_NOWHERE = """
import sys
sys.modules["cloudpickle"] = None  # with it, see test_by_value.py
import asyncio
from aiointerpreters import Runner, RunnerError

def square(n):
    return n * n

async def main():
    async with Runner(workers=1) as runner:
        try:
            await runner.run(square, 7)
        except RunnerError as error:
            assert "square" in str(error), error
            print("refused")
        print(await runner.run(abs, -7))

asyncio.run(main())
"""


def test_functions_of_a_command_line_are_refused() -> None:
    ended = programs.run(["-c", FROM_NOWHERE])
    ended.assert_fine()
    assert ended.out == "refused\n7\n"


def test_functions_of_standard_input_are_refused() -> None:
    ended = programs.run(["-"], stdin=FROM_NOWHERE)
    ended.assert_fine()
    assert ended.out == "refused\n7\n"


def test_functions_of_the_interactive_prompt_are_refused() -> None:
    ended = programs.run(["-i", "-q"], stdin=FROM_NOWHERE.replace("\n\n", "\n\n\n") + "\n")
    ended.assert_quiet()
    assert "Traceback" not in ended.err
    assert ended.out.replace(">>> ", "").replace("... ", "") == "refused\n7\n"


SURROUNDINGS = """
import asyncio, os, sys
from aiointerpreters import Runner
from workfns import worker

async def main():
    async with Runner(workers=1) as runner:
        theirs = await runner.run(worker.surroundings)
        ours = worker.surroundings()
        for key in ours:
            assert theirs[key] == ours[key], (key, ours[key], theirs[key])

def change():
    pass

if __name__ == "__main__":
    change()
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], id="none"),
        pytest.param(["-X", "dev"], id="-X dev"),
        pytest.param(["-X", "utf8=0", "-X", "own=option"], id="-X"),
        pytest.param(["-O"], id="-O"),
        pytest.param(["-OO", "-B"], id="-OO -B"),
        pytest.param(["-W", "error::UserWarning", "-W", "ignore::SyntaxWarning"], id="-W"),
        pytest.param(["-bb", "-v"], id="-bb -v"),
    ],
)
def test_workers_see_the_surroundings_of_the_script(flags: list[str], program: Program) -> None:
    script = program.write("script.py", SURROUNDINGS)
    ended = programs.run([script, "an argument", "--option"], flags=flags)
    ended.assert_ended(0)


def test_workers_see_changes_to_argv_path_and_working_directory(program: Program) -> None:
    (program.folder / "elsewhere").mkdir()
    change = f"""def change():
    sys.argv[:] = ["changed", "arguments"]
    sys.path.insert(0, {str(program.folder / "elsewhere")!r})
    os.chdir({str(program.folder / "elsewhere")!r})
"""
    program(SURROUNDINGS.replace("def change():\n    pass\n", change)).assert_fine()


def test_workers_see_the_argv_of_a_module_started_by_m(program: Program) -> None:
    program.write("package/__init__.py", "")
    program.write("package/tool.py", SURROUNDINGS)
    programs.run(["-m", "package.tool", "argument"], cwd=program.folder).assert_fine()


def test_warnings_are_errors_in_workers_where_they_are_in_the_script(program: Program) -> None:
    ended = program(
        """
        import asyncio
        from aiointerpreters import Runner
        from workfns import worker

        async def main():
            async with Runner(workers=1) as runner:
                try:
                    await runner.run(worker.warn_of_deprecation)
                except DeprecationWarning as warning:
                    print("raised", warning)

        asyncio.run(main())
        """,
        flags=["-W", "error"],
    )
    ended.assert_fine()
    assert ended.out == "raised old\n"


@pytest.mark.parametrize(("flags", "on"), [([], True), (["-O"], False)])
def test_asserts_are_on_in_workers_where_they_are_in_the_script(
    flags: list[str], on: bool, program: Program
) -> None:
    ended = program(
        """
        import asyncio
        from aiointerpreters import Runner
        from workfns import worker

        async def main():
            async with Runner(workers=1) as runner:
                print(await runner.run(worker.asserts_are_on))

        asyncio.run(main())
        """,
        flags=flags,
    )
    ended.assert_fine()
    assert ended.out == f"{on}\n"


def test_workers_see_the_environment_of_the_start(program: Program) -> None:
    ended = program("""
        import asyncio, os
        from aiointerpreters import Runner
        from workfns import worker

        async def main():
            os.environ["AIO_TEST_VARIABLE"] = "set"
            async with Runner(workers=1) as runner:
                print(await runner.run(worker.environment_variable, "AIO_TEST_VARIABLE"))

        asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out == "set\n"


def test_what_workers_print_is_printed(program: Program) -> None:
    ended = program("""
        import asyncio, sys
        from aiointerpreters import Runner

        async def main():
            async with Runner(workers=1) as runner:
                await runner.run(print, "out of a worker")

        asyncio.run(main())
    """)
    ended.assert_fine()
    assert ended.out == "out of a worker\n"


def test_a_script_under_a_folder_that_is_a_link(program: Program, tmp_path: Path) -> None:
    program.write("real/script.py", SQUARE)
    os.symlink(tmp_path / "real", tmp_path / "link")
    check(programs.run([tmp_path / "link" / "script.py"]))


def test_a_script_without_a_guard_is_told_so_instead_of_starting_runners_without_end(
    program: Program,
) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        def square(n):
            return n * n

        async def main():
            async with Runner(workers=2) as runner:
                print(await runner.run(square, 7))

        asyncio.run(main())
    """)
    assert ended.status == 1
    assert ended.out == ""
    assert "RunnerError" in ended.err
    assert "if __name__ == '__main__':" in ended.err
    assert "Fatal Python error" not in ended.err


def test_coroutine_functions_of_the_script_beside_its_plain_ones(program: Program) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        async def double(n):
            await asyncio.sleep(0)
            return 2 * n

        def square(n):
            return n * n

        async def main():
            async with Runner(workers=2) as runner:  # both threads of a worker load the script
                calls = [runner.run(fn, 3) for fn in (double, square) * 10]
                assert await asyncio.gather(*calls) == [6, 9] * 10

        if __name__ == "__main__":
            asyncio.run(main())
    """)
    ended.assert_fine()


def test_a_script_without_a_guard_is_told_so_of_a_coroutine_function_too(program: Program) -> None:
    ended = program("""
        import asyncio
        from aiointerpreters import Runner

        async def double(n):
            return 2 * n

        async def main():
            async with Runner(workers=1) as runner:
                print(await runner.run(double, 7))

        asyncio.run(main())
    """)
    assert ended.status == 1
    assert ended.out == ""
    assert "if __name__ == '__main__':" in ended.err


def test_functions_are_found_where_a_module_has_imported_multiprocessing(program: Program) -> None:
    program.write("imports_it.py", "import multiprocessing\n\ndef early(n):\n    return n\n")
    ended = program(
        """
        import asyncio
        from aiointerpreters import Runner
        from imports_it import early

        def square(n):
            return n * n

        async def main():
            async with Runner(workers=1) as runner:
                print(await runner.run(early, 3), await runner.run(square, 7))

        if __name__ == "__main__":
            asyncio.run(main())
        """
    )

    ended.assert_fine()
    assert ended.out == "3 49\n"
