"""What asks a web service something trivial, slowly and steadily, and what loads it: wrk."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PERIOD = 0.025  # seconds from one question to the next, whether that has been answered or not
PING = b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"

#: Posts the texts in turn, and says as JSON what wrk counted; its latencies are in microseconds.
SCRIPT = """
local requests = {}
local bodies = { BODIES }
function init(args)
  for i, body in ipairs(bodies) do
    requests[i] = wrk.format("POST", "/render", { ["Content-Type"] = "text/markdown" }, body)
  end
end
local n = 0
function request()
  n = n % #requests + 1
  return requests[n]
end
function done(summary, latency, _)
  local e = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p99": %f, "max": %f}',
    summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


class Connection(asyncio.Protocol):
    """A connection that is kept: one question at a time."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[None] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Wait for all of the short answer."""
        self._received += data
        if self._answered and not self._answered.done() and self._received.endswith(b"pong\n"):
            self._answered.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Let whoever waits know."""
        if self._answered and not self._answered.done():
            self._answered.set_exception(error or ConnectionError("the server hung up"))

    async def ask(self) -> float:
        """Return the milliseconds until the answer."""
        self._received = b""
        self._answered = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self.transport.write(PING)
        await self._answered
        return (time.perf_counter() - began) * 1e3


async def probe(port: int, until: Callable[[], bool]) -> list[float]:
    """Ask every so often, on a connection that is free or new; the milliseconds of each answer."""
    loop = asyncio.get_running_loop()
    idle: list[Connection] = []
    every: list[Connection] = []
    samples: list[float] = []

    async def question() -> None:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
            every.append(connection)
        samples.append(await connection.ask())
        idle.append(connection)

    async with asyncio.TaskGroup() as group:
        due = loop.time()
        while not until():
            group.create_task(question())
            due += PERIOD
            await asyncio.sleep(due - loop.time())
    for connection in every:
        connection.transport.close()
    return samples


def write_script(texts: Sequence[str], path: Path) -> None:
    """Write the Lua that has wrk post these texts."""
    bodies = ",\n".join(
        '"' + "".join(f"\\{byte:03d}" for byte in text.encode()) + '"' for text in texts
    )
    path.write_text(SCRIPT.replace("BODIES", bodies, 1), encoding="ascii")


@dataclass(frozen=True)
class Load:
    """What wrk does."""

    wrk: str
    script: Path
    connections: int

    async def run(self, port: int, seconds: int) -> tuple[dict[str, Any], list[float]]:
        """Load a server, and ask it meanwhile: what wrk said, and the answers' milliseconds."""
        process = await asyncio.create_subprocess_exec(
            *(self.wrk, "-t1", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "60s"),
            *("-s", self.script, f"http://127.0.0.1:{port}"),
            stdout=subprocess.PIPE,
        )
        ended = asyncio.ensure_future(process.communicate())
        try:
            samples = await probe(port, ended.done)
            out, _ = await asyncio.wait_for(ended, 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise RuntimeError(f"wrk failed:\n{out.decode()}")
        said: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
        return said, samples
