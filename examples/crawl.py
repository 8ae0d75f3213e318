"""A web crawler which parses its pages on the event loop, then in a Runner, side by side.

    python examples/crawl.py                 # the HTML of Python's own documentation
    python examples/crawl.py --pages DIR     # any folder of HTML

Fetching pages is what asyncio is good at. Parsing them is plain CPU work: done on the event loop,
it keeps every other task waiting, and uses one core. The only difference between the two crawls
below is the line that says `await runner.run(links_of, …)` in place of `links_of(…)`.

It needs `beautifulsoup4`. The pages come from an HTTP server on 127.0.0.1 which this program
starts in a process of its own, so no network is needed, and the server's work is not measured.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self
from urllib.parse import urldefrag, urljoin, urlsplit

from bs4 import BeautifulSoup

from aiointerpreters import Runner

type Links = tuple[str, ...]
type Parse = Callable[[str, bytes], Awaitable[Links]]


# ---- what is CPU-bound -----------------------------------------------------------------------


def links_of(url: str, html: bytes) -> Links:
    """Return the links of a page, as absolute addresses without `#fragment`.

    An ordinary function. A worker finds it by loading this file, as `multiprocessing` would: all
    of it but the `if __name__ == "__main__"` part, and so with the imports above, once.
    """
    soup = BeautifulSoup(html, "html.parser")
    return tuple(
        urldefrag(urljoin(url, str(anchor["href"]))).url for anchor in soup.find_all("a", href=True)
    )


# ---- the crawler -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """A page that was fetched and parsed."""

    url: str
    html: bytes
    links: Links


async def fetch(url: str) -> bytes | None:
    """GET a page; None if there is none. (A real crawler would use httpx or aiohttp.)"""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(f"GET {address.path} HTTP/1.0\r\n\r\n".encode())
        header, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return body if header.split()[1] == b"200" else None
    finally:
        writer.close()
        await writer.wait_closed()


async def crawl(start: str, limit: int, parse: Parse) -> list[Page]:
    """Follow the links from `start`, breadth first within its site, up to `limit` addresses.

    Pages of one level are fetched and parsed at the same time, and their links are followed in
    the order in which they stand there, so that each crawl of a site sees the same pages.
    """
    site = urljoin(start, "/")
    seen = {start}
    connections = asyncio.Semaphore(4)

    async def visit(url: str) -> Page | None:
        async with connections:
            html = await fetch(url)
        return None if html is None else Page(url, html, await parse(url, html))

    pages: list[Page] = []
    level = [start]
    while level:
        visited = [page for page in await asyncio.gather(*map(visit, level)) if page]
        pages += visited
        level = []
        for link in (link for page in visited for link in page.links):
            follow = link.startswith(site) and link.endswith((".html", "/")) and link not in seen
            if follow and len(seen) < limit:
                seen.add(link)
                level.append(link)
    return pages


# ---- what is measured ------------------------------------------------------------------------


class StallMeter:
    """Asks the event loop to be woken every two milliseconds, and notes the longest delay."""

    PERIOD = 0.002

    def __init__(self) -> None:
        self.longest = 0.0

    async def _tick(self) -> None:
        while True:
            due = time.perf_counter() + self.PERIOD
            try:
                await asyncio.sleep(self.PERIOD)
            finally:  # a stall that lasts until the end counts too
                self.longest = max(self.longest, time.perf_counter() - due)

    async def __aenter__(self) -> Self:
        self._ticker = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._ticker.cancel()
        await asyncio.wait([self._ticker])


@dataclass
class Report:
    """One row of the table at the end."""

    where: str
    pages: list[Page]
    crawl_time: float
    longest_stall: float
    parse_time: float = 0.0

    @property
    def links_per_page(self) -> dict[str, int]:
        return {urlsplit(page.url).path: len(page.links) for page in self.pages}


async def measured_crawl(where: str, start: str, limit: int, parse: Parse) -> Report:
    """Crawl with a clock and a stall meter beside."""
    print(f"Crawling, with parsing {where} …", flush=True)
    async with StallMeter() as meter:
        began = time.perf_counter()
        pages = await crawl(start, limit, parse)
        crawl_time = time.perf_counter() - began
    return Report(where, pages, crawl_time, meter.longest)


async def compare(site: str, start: str, limit: int, workers: int | None, rounds: int) -> bool:
    """Crawl both ways, print the table, and return whether both ways found the same."""

    async def parse_here(url: str, html: bytes) -> Links:
        return links_of(url, html)

    async with Runner(workers=workers) as runner:

        async def parse_in_worker(url: str, html: bytes) -> Links:
            return await runner.run(links_of, url, html)

        here = await measured_crawl("on the loop", start, limit, parse_here)
        await asyncio.gather(*(parse_in_worker(start, b"<p>") for _ in range(4 * runner.workers)))
        there = await measured_crawl(
            f"in the Runner, workers: {runner.workers}", start, limit, parse_in_worker
        )

        # The CPU-bound part alone: the pages are in memory now, so nothing waits for a server.
        print(f"Parsing the same pages again, without fetching them, {rounds} times each …\n")
        one_thread: list[float] = []
        in_workers: list[float] = []
        for _ in range(rounds):
            with stopwatch(one_thread):
                for page in here.pages:
                    links_of(page.url, page.html)
            with stopwatch(in_workers):
                await asyncio.gather(*(parse_in_worker(p.url, p.html) for p in here.pages))
        here.parse_time, there.parse_time = median(one_thread), median(in_workers)

    print_counts(here)
    print_table([here, there])
    return here.links_per_page == there.links_per_page


@contextmanager
def stopwatch(times: list[float]) -> Iterator[None]:
    """Append the block's duration to `times`."""
    began = time.perf_counter()
    yield
    times.append(time.perf_counter() - began)


# ---- what is printed -------------------------------------------------------------------------


def print_counts(report: Report, top: int = 8) -> None:
    """Print the links of some pages."""
    counts = sorted(report.links_per_page.items(), key=lambda item: -item[1])
    print(f"Links per page (the {min(top, len(counts))} pages with most, of {len(counts)}):")
    for path, links in counts[:top]:
        print(f"{links:8,}  {path.removeprefix('/')}")
    print()


def print_table(reports: list[Report]) -> None:
    """Print both crawls, one row each."""
    row = "{:28}{:>6}{:>9}{:>9}{:>10}{:>21}{:>16}{:>11}".format
    head = row(
        *("parsing", "pages", "links", "crawl", "pages/s"),
        *("longest loop stall", "parsing alone", "speed-up"),
    )
    print(f"{head}\n{'-' * len(head)}")
    for report in reports:
        pages = len(report.pages)
        print(
            row(
                report.where,
                pages,
                f"{sum(report.links_per_page.values()):,}",
                f"{report.crawl_time:.2f} s",
                f"{pages / report.crawl_time:.1f}",
                f"{report.longest_stall * 1000:.0f} ms",
                f"{report.parse_time:.2f} s",
                f"{reports[0].parse_time / report.parse_time:.2f}",
            )
        )
    print("\n(parsing alone: the CPU-bound part, with all pages in memory; and its speed-up)")


# ---- the site --------------------------------------------------------------------------------


def documentation() -> Path:
    """Return the folder of Python's documentation as Debian packages it (unpacked in a cache)."""
    tool = Path(__file__).parent.parent / "tools" / "debian-package"
    command: list[str | Path] = [tool, "python3.14-doc"]
    unpacked = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if unpacked.returncode:
        sys.exit("No pages to crawl: give a folder of HTML with --pages DIR.")
    return Path(unpacked.stdout.strip()) / "usr/share/doc/python3.14/html"


@asynccontextmanager
async def serve(folder: Path) -> AsyncIterator[str]:
    """Serve a folder on 127.0.0.1, from a process of its own; gives the site's address."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"),
        *("--directory", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.stdout
        greeting = (await server.stdout.readline()).decode()  # "Serving HTTP on … port 1234 (…"
        yield f"http://127.0.0.1:{greeting.split(' port ')[1].split()[0]}/"
    finally:
        with suppress(ProcessLookupError):  # Ctrl-C has ended it already
            server.terminate()
        await server.wait()


async def main() -> int:
    """Start the server, compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pages", type=Path, metavar="DIR", help="a folder of HTML to crawl")
    parser.add_argument("--limit", type=int, default=80, help="how many pages (%(default)s)")
    parser.add_argument("--workers", type=int, help="how many workers (one per core)")
    parser.add_argument("--rounds", type=int, default=3, help="of parsing alone (%(default)s)")
    options = parser.parse_args()

    folder = options.pages or documentation()
    if not folder.is_dir():
        parser.error(f"{folder} is not a folder")
    async with serve(folder) as site:
        print(f"Serving {folder}\n     at {site}")
        start = site + ("index.html" if (folder / "index.html").exists() else "")
        same = await compare(site, start, options.limit, options.workers, options.rounds)
    if not same:
        print("The two crawls did not count the same links.", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
