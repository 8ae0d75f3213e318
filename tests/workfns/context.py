"""Context variables, and functions that look at them in a worker."""

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[Any] = ContextVar("request_id")
user: ContextVar[Any] = ContextVar("user", default="nobody")
same_name: ContextVar[Any] = ContextVar("user")
number_of_decodes = 0


def seen() -> tuple[Any, Any]:
    return request_id.get("unset"), user.get()


async def seen_in_coroutine() -> tuple[Any, Any]:
    return seen()


async def change_in_coroutine(value: Any) -> Any:
    return change(value)


async def stream_of_seen(count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield seen()


def seen_with(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs, seen()


def seen_deeply() -> tuple[Any, Any]:
    def deeper() -> tuple[Any, Any]:
        return seen()

    return deeper()


def all_seen() -> tuple[Any, Any, Any]:
    return request_id.get("unset"), user.get("unset"), same_name.get("unset")


def change(value: Any) -> Any:
    before = request_id.get("unset")
    request_id.set(value)
    return before


def set_in_worker(value: Any) -> None:
    """An initializer."""
    request_id.set(value)


def set_user_in_worker(value: Any) -> None:
    """An initializer."""
    user.set(value)


def fail() -> None:
    raise LookupError(request_id.get())


def seen_in_thread() -> Any:
    """As a thread sees it which is started with a copy of the context."""
    import contextvars
    import threading

    found: list[Any] = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=lambda: found.append(context.run(request_id.get, "unset")))
    thread.start()
    thread.join()
    return found[0]
