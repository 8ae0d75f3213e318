"""What :meth:`Runner.options` takes: values that are checked once, and combine."""

import operator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from . import _checks


class _Unchanged:
    def __repr__(self) -> str:
        return "unchanged"


#: Stands for an option that is not given.
UNCHANGED: Final[Any] = _Unchanged()


type Where = Literal["interpreter", "process", "thread"]
WHERE = ("interpreter", "process", "thread")


@dataclass(frozen=True, slots=True)
class Options:
    """How calls are made. What is not given is as a Runner does it without options."""

    timeout: float | None = None
    deadline: float | None = None
    priority: int = 0
    buffer: int = 128
    where: Where | None = None

    def is_plain(self) -> bool:
        """Whether calls are submitted as without options."""
        return self.runs_plainly() and self.where is None

    def runs_plainly(self) -> bool:
        """As is_plain(), apart from where."""
        return self.timeout is None and self.deadline is None and self.priority == 0

    def combined(
        self, timeout: Any, deadline: Any, priority: Any, buffer: Any, where: Any
    ) -> "Options":
        """These options, but for those that are given.

        Raises TypeError and ValueError for what is no such option.
        """
        changes: dict[str, Any] = {}
        if timeout is not UNCHANGED:
            changes["timeout"] = _limit("timeout", timeout)
        if deadline is not UNCHANGED:
            changes["deadline"] = _limit("deadline", deadline)
        if priority is not UNCHANGED:
            changes["priority"] = _priority(priority)
        if buffer is not UNCHANGED:
            changes["buffer"] = _checks.integer("buffer", buffer, 1)
        if where is not UNCHANGED:
            changes["where"] = _checks.one_of("where", where, *WHERE, None)
        return replace(self, **changes)

    def __repr__(self) -> str:
        """Only what differs from the defaults."""
        fields = ("timeout", "deadline", "priority", "buffer", "where")
        given = ((name, getattr(self, name)) for name in fields)
        default = Options()
        return " ".join(
            f"{name}={value!r}" for name, value in given if value != getattr(default, name)
        )


def _limit(name: str, value: Any) -> float | None:
    return None if value is None else _checks.seconds(name, value, finite=True)


def _priority(value: Any) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"priority must be an integer, not {type(value).__name__}")
    number = operator.index(value)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"priority must fit in 64 bits, which {number} does not")
    return number
