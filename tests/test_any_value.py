"""Whatever hypothesis makes up crosses to a worker and back: any nesting of any kinds of values."""

import array
import asyncio
import collections
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiointerpreters import Queue, Runner, Shared
from helpers.sameness import references, same
from workfns import any_value, blobs, classes, pickled, values, views

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
)
SIZES = st.sampled_from([1, 100, 4_095, 4_096, 16_384, 65_536, 65_537, 300_000])
LARGE = st.builds(
    blobs.make,
    st.sampled_from(["bytes", *blobs.ALPHABETS]),
    SIZES,
    st.integers(1, 250),
)
PICKLED_HASHABLE = (
    st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.fractions()
    | st.sampled_from([classes.Colour.RED, classes.Level.HIGH, classes.Flags.A, classes.Word.YES])
    | st.builds(classes.Frozen, st.text())
    | st.builds(classes.Number, st.integers())
    | st.builds(classes.Text, st.text())
    | st.builds(classes.Pair, st.integers(), st.text())
)
HASHABLE = st.recursive(
    ATOMS | PICKLED_HASHABLE | LARGE,
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=5,
)


@st.composite
def memory(draw: st.DrawFn) -> memoryview:
    """Of any form that a memoryview can be given in Python."""
    code = draw(st.sampled_from("bBchHiIlLqQnNefd?"))
    size = memoryview(bytes(16)).cast(code).itemsize
    shape = draw(st.lists(st.integers(1, 4), max_size=4))
    count = 1
    for length in shape:
        count *= length
    data = draw(st.binary(min_size=count * size, max_size=count * size))
    if code == "?":
        data = bytes(byte % 2 for byte in data)
    kind = draw(st.sampled_from([bytes, bytearray, lambda data: array.array("B", data)]))
    view = memoryview(kind(data))
    if len(shape) == 1 and draw(st.booleans()):
        step = draw(st.sampled_from([-3, -2, -1, 1, 2, 3]))
        view = view.cast(code)[draw(st.integers(0, count)) :][::step]
    else:
        view = view.cast("B").cast(code, shape=shape)
    return view.toreadonly() if draw(st.booleans()) else view


LEAVES = (
    ATOMS
    | HASHABLE
    | LARGE
    | memory()
    | st.binary().map(bytearray)
    | st.builds(blobs.make, st.just("bytearray"), SIZES, st.integers(1, 250))
    | st.builds(classes.Point, st.integers())
    | st.lists(st.floats()).map(lambda numbers: array.array("d", numbers))
    | st.lists(st.integers(), max_size=4).map(classes.Items)
    | st.builds(ValueError, st.integers(), st.text())
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=6)
        | st.lists(inner, max_size=6).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=6)
        | st.sets(HASHABLE, max_size=6)
        | st.frozensets(HASHABLE, max_size=6)
        | st.lists(inner, max_size=4).map(collections.deque)
        | st.builds(pickled.Bundle, view=inner, data=inner, rest=st.lists(inner, max_size=3))
        | st.builds(pickled.Link, inner)
        | st.builds(views.Record, inner)
    )


TREES = st.recursive(LEAVES, containers, max_leaves=20)


@st.composite
def graphs(draw: st.DrawFn) -> Any:
    """A value in which some things occur several times, and some lead back to themselves."""
    things: list[Any] = draw(st.lists(TREES, min_size=1, max_size=5))
    hosts: list[Any] = [[], {}, pickled.Link(), pickled.Bundle(), collections.deque()]
    pool = things + hosts[: draw(st.integers(1, len(hosts)))]
    one_of_pool = st.integers(0, len(pool) - 1).map(pool.__getitem__)
    for n in range(draw(st.integers(0, 12))):
        part = draw(one_of_pool)
        if draw(st.booleans()):
            part = (part,)
        match draw(one_of_pool):
            case list() | collections.deque() as host if type(host) is not classes.Items:
                host.append(part)
            case dict() as host:
                host[f"added {n}"] = part
            case pickled.Link() as host:
                host.after = part
            case pickled.Bundle() as host:
                host.rest.append(part)
    return pool


HEALTH = settings(
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


@given(sent=st.lists(TREES, max_size=10))
@settings(HEALTH, max_examples=100)
def test_whatever_is_sent_comes_back(runner: Runner, sent: list[Any]) -> None:
    async def main() -> None:
        futures = [runner.submit(values.echo, value) for value in sent]
        for value, future in zip(sent, futures, strict=True):
            assert same(await future, value)

    asyncio.run(main())


@given(value=TREES)
@settings(HEALTH, max_examples=100)
def test_the_worker_sees_it_as_it_is(runner: Runner, value: Any) -> None:
    """Views look the same there, too: not only here, where they are the caller's own memory."""
    assert same(asyncio.run(runner.run(any_value.unfolded, value)), any_value.unfolded(value))


@given(value=graphs())
@settings(HEALTH, max_examples=150)
def test_references_lead_where_they_led(runner: Runner, value: Any) -> None:
    got = asyncio.run(runner.run(values.echo, value))
    assert same(got, value)
    assert references(got) == references(value)


@given(value=TREES)
@settings(HEALTH, max_examples=50)
def test_queues_and_shared_values_carry_the_same(runner: Runner, value: Any) -> None:
    queue = Queue()
    queue.put(value)
    assert same(queue.get(), value)
    assert same(asyncio.run(runner.run(values.echo, Shared(value))), value)
    assert same(asyncio.run(runner.run(values.echo, [Shared([value])])), [[value]])
