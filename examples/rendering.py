"""What examples/web.py has its workers do: Markdown to HTML.

A module of its own, so that a worker loads this and `markdown`, and not the web service.
"""

import os
import sys

import markdown


def give_way() -> None:
    """Let the event loop's thread have a core as soon as it wants one, even if all are busy.

    On Linux this lowers the priority of the calling thread alone, so of this worker; elsewhere it
    would be the whole process's.
    """
    if sys.platform == "linux":
        os.nice(10)


def to_html(text: str) -> str:
    """Return a page's or a comment's HTML: a millisecond or tens of them, plain CPU work."""
    return markdown.markdown(text, extensions=["extra", "sane_lists", "toc"])
