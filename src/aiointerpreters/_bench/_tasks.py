"""Work of the kind that programs offload, in pure Python, and of any size.

Each kind is a function that workers import by name, and what makes its arguments for an *amount*:
so many paragraphs of a page, rows of a table, lines of a program, records, or steps. `sized()`
finds the amounts that take given times here, on the calling thread.
"""

import html
import io
import json
import math
import time
import tokenize
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from string import Template
from typing import Any

# ---- parse a page ----


class _Outline(HTMLParser):
    """Collects a page's title, headings and links, as a crawler would."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self._text: list[str] = []
        self._target: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._target = dict(attrs).get("href")
        if tag in ("a", "h2", "title"):
            self._text.clear()

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._target is not None:
            self.links.append((self._target, "".join(self._text).strip()))
            self._target = None
        elif tag in ("h2", "title"):
            self.headings.append("".join(self._text).strip())


def parse(page: str) -> list[tuple[str, str]]:
    """Return a page's links, and their texts."""
    outline = _Outline()
    outline.feed(page)
    outline.close()
    return outline.links


def _page(paragraphs: int) -> tuple[str]:
    body = "\n".join(
        f'<div class="entry" id="e{n}"><h2>Entry {n} &amp; its neighbours</h2>\n'
        f'<p>See <a class="ref" href="/wiki/Page_{n}?from={n * 7}&amp;lang=en">page <b>{n}</b></a>'
        f" or the <em>index</em>.<br>Changed &ndash; {n % 28 + 1} May. <!-- cached --></p></div>"
        if n % 4 == 3
        else f'<p class="note">Plain text with <a href="#e{n}">a link</a> &lt;{n}&gt;.</p>'
        for n in range(paragraphs)
    )
    if paragraphs < 3:
        return (body,)  # a fragment
    return (f"<!DOCTYPE html><html><head><title>A page</title></head><body>{body}</body></html>",)


# ---- render a page ----

_ROW = Template('<tr class="$parity"><td>$number</td><td>$name</td><td>$price</td></tr>\n')
_PAGE = Template("<html><body><h1>$title</h1>\n<table>\n$rows</table></body></html>")


def render(title: str, rows: list[tuple[int, str, float]]) -> str:
    """Return a page with a table."""
    cells = (
        _ROW.substitute(
            parity="odd" if number % 2 else "even",
            number=number,
            name=html.escape(name),
            price=f"{price:,.2f}",
        )
        for number, name, price in rows
    )
    return _PAGE.substitute(title=html.escape(title), rows="".join(cells))


def _rows(count: int) -> tuple[str, list[tuple[int, str, float]]]:
    return "Prices & offers", [(n, f"Article <{n}>", n * 12.5) for n in range(count)]


# ---- tokenise a program ----


def count_tokens(source: str) -> dict[str, int]:
    """Count a program's tokens by their kind."""
    kinds: Counter[int] = Counter()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kinds[token.type] += 1
    return {tokenize.tok_name[kind]: count for kind, count in kinds.items()}


def _program(lines: int) -> tuple[str]:
    line = "total_{0} = weigh({0}, 'text', x[{0}:]) * 3.5  # {0}\n".format
    return ("".join(map(line, range(lines))),)


# ---- transform JSON ----


def summarize(text: str) -> str:
    """Sum orders by customer: JSON to JSON."""
    totals: dict[str, dict[str, Any]] = {}
    for order in json.loads(text):
        name = order["customer"]["name"].title()
        total = totals.setdefault(name, {"orders": 0, "amount": 0.0, "items": []})
        total["orders"] += 1
        total["amount"] += sum(item["price"] * item["count"] for item in order["items"])
        total["items"].extend(sorted({item["name"] for item in order["items"]}))
    return json.dumps(totals, sort_keys=True)


def _orders(count: int) -> tuple[str]:
    items = [[{"name": f"item {m}", "price": m + 0.5} for m in range(n)] for n in range(5)]
    orders = [
        {
            "id": n,
            "customer": {"name": f"customer {n % 17}", "city": "Springfield", "vip": n % 3 == 0},
            "items": [item | {"count": n % 4} for item in items[n % 5]],
        }
        for n in range(count)
    ]
    return (json.dumps(orders),)


# ---- numbers ----


def integrate(steps: int) -> float:
    """Integrate a function by Simpson's rule."""
    width = 1.0 / steps
    total = 0.0
    for number in range(steps):
        x = number * width
        middle = x + width / 2
        total += x * x + 4.0 * middle * middle + (x + width) * (x + width)
    return total * width / 6


def _steps(count: int) -> tuple[int]:
    return (count,)


# ---- kinds, and sizes ----


@dataclass(frozen=True)
class Kind:
    """One kind of work."""

    function: Callable[..., Any]
    arguments: Callable[[int], tuple[Any, ...]]  # of an amount


KINDS: dict[str, Kind] = {
    "parse HTML": Kind(parse, _page),
    "render": Kind(render, _rows),
    "tokenize": Kind(count_tokens, _program),
    "JSON": Kind(summarize, _orders),
    "numbers": Kind(integrate, _steps),
}


def sized(kind: str, sizes: Sequence[float]) -> list[int]:
    """Return the amounts of work that take so many seconds here: at least 1 each."""
    few, many = 1, 1
    while (of_many := _duration(kind, many)) < 0.002:
        many *= 2
    of_few = _duration(kind, few)
    each = (of_many - of_few) / max(1, many - few)
    amounts = []
    for size in sizes:
        amount = _at_least_one(few + (size - of_few) / each)
        # What is large may be slower, or faster, by the piece: so again, from where it is.
        for _ in range(2):
            amount = _at_least_one(amount * size / _duration(kind, amount))
        amounts.append(amount)
    return amounts


def _at_least_one(amount: float) -> int:
    return max(1, math.floor(amount + 0.5))


def _duration(kind: str, amount: int) -> float:
    """Time one call: the best of several, as others only ever make it slower."""
    function, arguments = KINDS[kind].function, KINDS[kind].arguments(amount)
    best = math.inf
    end = time.perf_counter() + 0.02
    tries = 0
    while tries < 3 or (time.perf_counter() < end and tries < 50):
        began = time.perf_counter()
        function(*arguments)
        best = min(best, time.perf_counter() - began)
        tries += 1
    return best
