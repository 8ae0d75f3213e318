"""The examples do what they say."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("markdown", reason="markdown is not installed")

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import web
from rendering import to_html

EXAMPLES = Path(web.__file__).parent

SERVE = """
import socket, sys
import uvicorn
import web

listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
uvicorn.run(web.app, fd=listening.fileno(), log_level="warning")
"""


@contextmanager
def served(*, app: str = SERVE) -> Iterator[int]:
    """Run the web service as a program of its own; its port."""
    server = subprocess.Popen(
        [sys.executable, "-c", app], cwd=EXAMPLES, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert server.stdout
        yield int(server.stdout.readline())
    finally:
        server.terminate()
        try:
            _, complaints = server.communicate(timeout=20)
        finally:
            server.kill()
    assert complaints == b""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as port:
        yield port


def ask(port: int, path: str, body: str | None = None) -> tuple[int, str]:
    """Return the status, and what is answered."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET" if body is None else "POST", path, body and body.encode())
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_web_service_renders_what_is_posted(port: int) -> None:
    status, answer = ask(port, "/render", "# Größe\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")

    assert status == 200
    assert ">Größe</h1>" in answer
    assert "<td>2</td>" in answer


def test_the_web_service_lists_and_renders_pages(port: int) -> None:
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")

    assert 'href="/pages/README.md"' in ask(port, "/")[1]
    assert ask(port, "/pages/README.md") == (200, to_html(readme))
    assert ask(port, "/pages/nothing.md")[0] == 404
    assert ask(port, "/pages/../pyproject.toml")[0] == 404


def test_the_web_service_refuses_what_is_no_text(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/render", b"\xff")
    assert connection.getresponse().status == 400
    connection.close()


def test_the_web_service_serves_many_at_a_time(port: int) -> None:
    texts = [f"Number **{number}**.\n" * 50 for number in range(100)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda text: ask(port, "/render", text), texts))

    assert answers == [(200, to_html(text)) for text in texts]


def test_the_web_service_answers_others_while_it_renders(port: int) -> None:
    with ThreadPoolExecutor(4) as threads:
        text = (EXAMPLES.parent / "docs" / "architecture.md").read_text(encoding="utf-8") * 4
        rendering = [threads.submit(ask, port, "/render", text) for _ in range(4)]
        pongs = 0
        while not all(future.done() for future in rendering):
            assert ask(port, "/ping") == (200, "pong\n")
            pongs += 1

        assert [future.result()[0] for future in rendering] == [200] * 4
    assert pongs > 10  # on the loop, it would be one in between


def test_the_web_service_stops_what_takes_too_long() -> None:
    with served(app=SERVE.replace("import web\n", "import web; web.LIMIT = 3\n")) as port:
        text = (EXAMPLES.parent / "docs" / "architecture.md").read_text(encoding="utf-8") * 1000

        assert ask(port, "/render", text) == (503, "Rendering this takes more than 3 seconds.\n")
        assert ask(port, "/render", "again") == (200, "<p>again</p>")


def test_the_web_service_can_be_used_within_another_program() -> None:
    async def main() -> str:
        async with web.lifespan(web.app) as state:
            return await state["render"]("some *text*")

    assert asyncio.run(main()) == "<p>some <em>text</em></p>"
