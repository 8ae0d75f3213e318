"""A web service that renders Markdown per request, in a Runner, and so stays responsive.

    python examples/web.py                      # this repository's own pages
    python examples/web.py --pages DIR          # any folder of *.md
    uvicorn web:app --app-dir examples          # the same, as a server would run it

    curl http://127.0.0.1:8000/pages/README.md
    curl --data-binary @README.md http://127.0.0.1:8000/render

It needs `starlette`, `uvicorn` and `markdown`. To render a page takes tens of milliseconds: on the
event loop, all other requests would wait for it. `lifespan` opens the Runner, the server's life
long; an endpoint awaits `render(text)`, and that is all.
"""

import argparse
import html
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypedDict

from rendering import give_way, to_html
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from aiointerpreters import Runner

ROOT = Path(__file__).parent.parent

LIMIT = 10.0  # seconds of rendering

type Render = Callable[[str], Awaitable[str]]


class State(TypedDict):
    """What every request finds in its `state`."""

    render: Render


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[State]:
    """Have workers from the server's start until it has answered its last request.

    One worker a core, by default. When all of them compute, the event loop needs a core too: so
    they give way to it. Rendering may take so long and no longer; then it is stopped.
    """
    async with Runner(initializer=give_way, name="render") as runner:
        yield {"render": runner.options(timeout=LIMIT).wrap(to_html)}


async def index(request: Request) -> HTMLResponse:
    """List the pages."""
    items = [f'<li><a href="/pages/{name}">{html.escape(name)}</a>' for name in pages()]
    return HTMLResponse(f"<!doctype html><title>Pages</title><ul>{''.join(items)}</ul>")


async def page(request: Request) -> HTMLResponse:
    """Render a page of the folder."""
    path = pages().get(request.path_params["name"])
    if path is None:
        raise HTTPException(404, "There is no such page.")
    return HTMLResponse(await request.state.render(path.read_text(encoding="utf-8")))


async def render(request: Request) -> HTMLResponse:
    """Render what is posted."""
    try:
        text = (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"The text is no UTF-8: {error}.") from None
    return HTMLResponse(await request.state.render(text))


async def ping(request: Request) -> PlainTextResponse:
    """Answer at once: how long that takes shows how responsive the event loop is."""
    return PlainTextResponse("pong\n")


async def too_slow(request: Request, error: Exception) -> PlainTextResponse:
    """Say that rendering took too long."""
    return PlainTextResponse(f"Rendering this takes more than {LIMIT:g} seconds.\n", 503)


def pages() -> dict[str, Path]:
    """Return the pages by name."""
    folder = Path(os.environ.get("PAGES", ROOT))
    files = [*sorted(folder.glob("*.md")), *sorted(folder.glob("docs/*.md"))]
    return {str(file.relative_to(folder)): file for file in files}


def application(
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[State]] = lifespan,
) -> Starlette:
    """Return the service; benchmarks/serving.py gives it other ways to render."""
    routes = [
        Route("/", index),
        Route("/pages/{name:path}", page),
        Route("/render", render, methods=["POST"]),
        Route("/ping", ping),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={TimeoutError: too_slow})


app = application()


def main() -> None:
    """Serve until Ctrl-C."""
    import uvicorn  # not with the imports above: a server that has its own does without

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=Path, metavar="DIR", help="a folder of Markdown to serve")
    parser.add_argument("--port", type=int, default=8000, help="on 127.0.0.1 (%(default)s)")
    options = parser.parse_args()
    if options.pages is not None:
        if not options.pages.is_dir():
            parser.error(f"{options.pages} is not a folder")
        os.environ["PAGES"] = str(options.pages)
    uvicorn.run(app, port=options.port)


if __name__ == "__main__":
    main()
