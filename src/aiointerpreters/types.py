"""Types to annotate with."""

import sys

from .queues import Queue as _Queue

__all__ = ("Shareable",)

if sys.version_info >= (3, 14):
    from concurrent.interpreters import Queue
else:
    # CPython 3.13 has no such queue yet.
    class Queue:
        """Stands for ``concurrent.interpreters.Queue``, which CPython 3.14 introduced."""


#: The values that cross between interpreters fastest. Any other that can be pickled crosses too.
type Shareable = (
    str
    | bytes
    | int
    | float
    | bool
    | None
    | tuple[Shareable, ...]
    | Queue
    | _Queue[Shareable]
    | memoryview
)
