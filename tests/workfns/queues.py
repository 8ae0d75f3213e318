"""Queues between interpreters."""

from typing import Any


def move_item(queue: Any) -> Any:
    item = queue.get_nowait()
    queue.put("from the worker")
    return item
