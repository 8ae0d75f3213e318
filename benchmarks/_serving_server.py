"""A server of examples/web.py, which renders in one of several ways; for benchmarks/serving.py.

    PYTHONPATH=examples python benchmarks/_serving_server.py SIDE FD

It serves at a socket that it inherits, says "ready" when it does, and ends when its standard input
does.
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing import get_context

import uvicorn
import web
from rendering import give_way, to_html
from starlette.applications import Starlette

from aiointerpreters import Runner

type Lifespan = Callable[[Starlette], AbstractAsyncContextManager[web.State]]
type Initializer = Callable[[], None] | None

WORKERS = len(os.sched_getaffinity(0))


@asynccontextmanager
async def on_the_loop(app: Starlette) -> AsyncIterator[web.State]:
    """Render where requests are read."""

    async def render(text: str) -> str:
        return to_html(text)

    yield {"render": render}


@asynccontextmanager
async def in_threads(app: Starlette) -> AsyncIterator[web.State]:
    """Render in asyncio's own threads."""
    yield {"render": lambda text: asyncio.to_thread(to_html, text)}


def in_executor(make: Callable[[Initializer], Executor], initializer: Initializer) -> Lifespan:
    """Render in an executor, as asyncio calls these."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[web.State]:
        call = asyncio.get_running_loop().run_in_executor
        with make(initializer) as executor:
            yield {"render": lambda text: call(executor, to_html, text)}

    return lifespan


def in_runner(initializer: Initializer) -> Lifespan:
    """Render in a Runner, as the example does."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[web.State]:
        async with Runner(initializer=initializer) as runner:
            yield {"render": runner.options(timeout=web.LIMIT).wrap(to_html)}

    return lifespan


def processes(initializer: Initializer) -> Executor:
    """Return processes, started afresh."""
    return ProcessPoolExecutor(WORKERS, get_context("spawn"), initializer)


#: By name; what gives way has its workers at a lower priority than its event loop.
SIDES: dict[str, Lifespan] = {
    "on the loop": on_the_loop,
    "on the loops of two processes": on_the_loop,
    "asyncio.to_thread": in_threads,
    "ProcessPoolExecutor": in_executor(processes, None),
    "ProcessPoolExecutor, giving way": in_executor(processes, give_way),
    "Runner": in_runner(None),
    "Runner, giving way": in_runner(give_way),
}

if sys.version_info >= (3, 14):
    from concurrent.futures import InterpreterPoolExecutor

    def interpreters(initializer: Initializer) -> Executor:
        """Return the standard library's interpreters."""
        return InterpreterPoolExecutor(WORKERS, initializer=initializer)

    SIDES["InterpreterPoolExecutor"] = in_executor(interpreters, None)
    SIDES["InterpreterPoolExecutor, giving way"] = in_executor(interpreters, give_way)

#: Some are several processes that share a port.
PROCESSES = {"on the loops of two processes": 2}


class Server(uvicorn.Server):
    """One that says when it is ready, and ends with its standard input."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that it is."""
        await super().startup(sockets)
        print("ready", flush=True)

    def stop_with_input(self) -> None:
        """Wait for the end of the input, in a thread."""
        sys.stdin.read()
        self.should_exit = True


def main() -> None:
    """Serve."""
    side, descriptor = sys.argv[1], int(sys.argv[2])
    config = uvicorn.Config(
        web.application(SIDES[side]),
        loop="asyncio",
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )
    server = Server(config)
    threading.Thread(target=server.stop_with_input, daemon=True).start()
    server.run([socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main()
