"""Memory that interpreters share: views that are made, written, kept and let go in a worker."""

import mmap
import os
import sys
from dataclasses import dataclass
from typing import Any

from helpers.sameness import view_facts

kept: list[Any] = []
own = bytearray()


class Exporter:
    """Lends out its bytes; writes a byte to `fd` each time that a buffer comes back."""

    out = 0  # of all that there are in this interpreter

    def __init__(self, data: Any, fd: int, mark: bytes = b"r") -> None:
        self.data = data
        self.fd = fd
        self.mark = mark
        self.lent = 0
        self.returned = 0

    def __buffer__(self, flags: int, /) -> memoryview:
        self.lent += 1
        Exporter.out += 1
        return memoryview(self.data)

    def __release_buffer__(self, view: memoryview, /) -> None:
        self.returned += 1
        Exporter.out -= 1
        assert self.returned <= self.lent, "a buffer came back twice"
        if self.fd >= 0:
            os.write(self.fd, self.mark)


class SlotExporter:
    """Lends out its bytes; counts in a byte of a file what came back, whoever counts it up."""

    def __init__(self, data: Any, fd: int, slot: int) -> None:
        self.data = data
        self.fd = fd
        self.slot = slot

    def __buffer__(self, flags: int, /) -> memoryview:
        return memoryview(self.data)

    def __release_buffer__(self, view: memoryview, /) -> None:
        slots(self.fd)[self.slot] += 1


_slots: dict[int, mmap.mmap] = {}


def slots(fd: int) -> mmap.mmap:
    if fd not in _slots:
        _slots[fd] = mmap.mmap(fd, 0)
    return _slots[fd]


@dataclass
class Record:
    view: Any
    name: str = ""


def facts(view: memoryview) -> tuple[Any, ...]:
    return view_facts(view)


def make(size: int, byte: int = 0) -> memoryview:
    return memoryview(bytearray([byte]) * size)


def make_readonly(size: int, byte: int = 0) -> memoryview:
    return memoryview(bytes([byte]) * size)


def lend(data: bytes, fd: int, mark: bytes = b"r") -> memoryview:
    """A view of an exporter that belongs to this worker."""
    return memoryview(Exporter(bytearray(data), fd, mark))


def still_lent() -> int:
    """How many buffers of this worker's exporters have not come back."""
    return Exporter.out


def lend_in_containers(data: bytes, fd: int) -> Any:
    return {"views": [lend(data, fd), (Record(lend(data, fd), "field"),)]}


def lend_and_fail(data: bytes, fd: int) -> Any:
    """The first can cross, the second can't."""
    return [lend(data, fd), (item for item in ())]


def lend_after(announce_fd: int, wait_fd: int, data: bytes, fd: int) -> memoryview:
    view = lend(data, fd)
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return view


def lend_own(data: bytes) -> memoryview:
    """A view of this module's `own`."""
    global own
    own = bytearray(data)
    return memoryview(own)


def read_own() -> bytes:
    return bytes(own)


def write_own(index: int, value: int) -> None:
    own[index] = value


def resize_own() -> None:
    own.append(0)


def fill(view: Any, byte: int) -> None:
    with view.cast("B") if view.format != "B" or view.ndim != 1 else view[:] as plain:
        plain[:] = bytes([byte]) * len(plain)


def write_at(view: Any, index: Any, value: Any) -> None:
    view[index] = value


def read_at(view: Any, index: Any) -> Any:
    return view[index]


def part_of(view: memoryview, start: int, stop: int | None, step: int = 1) -> memoryview:
    return view[start:stop:step]


def count_and_write(view: memoryview) -> list[int]:
    """Count a view's items up in place; say what they were."""
    before = view.tolist()
    for index, number in enumerate(before):
        view[index] = number + 1
    return before


def fill_record(record: Record, byte: int) -> str:
    fill(record.view, byte)
    return record.name


def fill_all(byte: int, *args: Any, **kwargs: Any) -> int:
    """Fill every view in nested containers; say how many there were."""
    count = 0
    rest: list[Any] = [args, kwargs]
    while rest:
        item = rest.pop()
        if isinstance(item, memoryview):
            fill(item, byte)
            count += 1
        elif isinstance(item, dict):
            rest += item.values()
        elif isinstance(item, (list, tuple)):
            rest += item
        elif isinstance(item, Record):
            rest.append(item.view)
    return count


def keep(*things: Any) -> int:
    """Hold on to them after the call."""
    kept.extend(things)
    return len(kept)


def keep_part(view: memoryview, start: int, stop: int) -> None:
    kept.append(view[start:stop])


def read_kept(index: int = -1) -> bytes:
    return bytes(kept[index])


def write_kept(index: int, value: int) -> None:
    kept[-1][index] = value


def kept_view() -> Any:
    return kept[-1]


def drop_kept() -> int:
    count = len(kept)
    kept.clear()
    return count


def release_kept() -> None:
    kept[-1].release()


def drop_kept_and_wait(announce_fd: int, wait_fd: int) -> None:
    """Let go of everything, but don't end the call before the gate opens."""
    kept.clear()
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)


def hold(announce_fd: int, wait_fd: int, *things: Any) -> int:
    """Hold arguments for as long as the gate is closed."""
    os.write(announce_fd, b".")
    os.read(wait_fd, 1)
    return len(things)


def fail(*things: Any) -> None:
    raise LookupError("failed with its arguments in hand")


def nothing(*things: Any) -> None:
    pass


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def released_inside() -> Any:
    return {"key": [0, released()]}


def same_object_twice(first: Any, second: Any) -> bool:
    return first is second


def reference_count_of_kept() -> int:
    return sys.getrefcount(kept[-1])


def lend_slots(fd: int, first: int, sizes: list[int]) -> list[memoryview]:
    """Views of exporters that count in the slots from `first` on."""
    return [
        memoryview(SlotExporter(bytearray([slot % 251]) * size, fd, slot))
        for slot, size in enumerate(sizes, first)
    ]


def check_and_lend(
    views: list[Any], bytes_expected: list[int], fd: int, first: int, sizes: list[int], keeps: int
) -> list[memoryview]:
    """Look at the arguments, keep some of them a while, and lend out some views in return."""
    for view, byte in zip(views, bytes_expected, strict=True):
        assert not len(view) or view[0] == view[-1] == byte, (byte, view[0], view[-1])
    kept.extend(views[:keeps])
    del kept[: -2 * keeps or None]
    return lend_slots(fd, first, sizes)
