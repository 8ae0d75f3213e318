"""What crosses to a worker and back, exactly as it was, and what is refused, with its path."""

import array
import asyncio
import collections
import datetime
import decimal
import fractions
import ipaddress
import math
import os
import pathlib
import re
import socket
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from aiointerpreters import NotShareableError, Runner, RunnerError
from helpers.programs import Program
from helpers.sameness import same
from workfns import classes, values

EDGES = [2**k + d for k in (7, 8, 15, 16, 29, 30, 31, 32, 60, 62, 63, 64, 128) for d in (-1, 0, 1)]

NATIVE: dict[str, list[Any]] = {
    "None": [None],
    "bool": [True, False],
    "int": [0, 1, -1, 255, 256, -5, -6, *EDGES, *(-edge for edge in EDGES)],
    "huge int": [10**100_000, -(10**100_000) + 1, 2**100_000],
    "float": [
        0.0,
        -0.0,
        1.5,
        -1e308,
        5e-324,
        math.pi,
        math.inf,
        -math.inf,
        math.nan,
        -math.nan,
    ],
    "complex": [0j, 1 + 2j, complex(-0.0, -0.0), complex(math.nan, math.inf)],
    "str": [
        "",
        "a",
        "\0",
        "a\0b",
        "\xff",
        "grüße",
        "\u0100",
        "漢字",
        "\uffff",
        "🐍",
        "a🐍\xff漢",
        "x" * 100_000,
        "ü" * 100_000,
        "漢" * 100_000,
        "🐍" * 100_000,
    ],
    "lone surrogates": ["\ud800", "\udfff", "a\udc80b", "\ud83d\ud83d", "🐍\udcff"],
    "bytes": [b"", b"\0", b"a\0b", bytes(range(256)), bytes(1_000_000)],
    "bytearray": [bytearray(), bytearray(b"\0a"), bytearray(1_000_000)],
    "tuple": [(), (1,), (1, "a", None), ((), ((),)), tuple(range(10_000))],
    "list": [[], [1], [[], [[]]], [None] * 10_000, [1, 1.0, True]],
    "dict": [
        {},
        {"a": 1},
        {1: "int", 1.5: "float", None: "None", (1, (2,)): "tuple", b"": "bytes"},
        {"z": 1, "a": 2, "m": 3},
        {n: {n: [n]} for n in range(1_000)},
    ],
    "set": [set(), {1}, {1, "a", None, (1, 2), frozenset({3})}, set(range(10_000))],
    "frozenset": [frozenset(), frozenset({1, "a"}), frozenset({frozenset({frozenset()})})],
    "nested": [
        {"a": [1, (2.5, {b"x", None}), {"deep": [[[bytearray(b"y")]]]}]},
        [({},), [()], {(): []}, frozenset({()})],
    ],
}


@pytest.mark.parametrize("kind", NATIVE)
def test_native_values_come_back_as_they_were(kind: str, call: Callable[..., Any]) -> None:
    for value in NATIVE[kind]:
        assert same(call(values.echo, value), value)
        assert same(call(values.echo, [value]), [value])
        assert same(call(values.echo, value=value), value)


@pytest.mark.parametrize("kind", [kind for kind in NATIVE if "set" not in kind])
def test_native_values_arrive_as_they_were_sent(kind: str, call: Callable[..., Any]) -> None:
    for value in NATIVE[kind]:
        if isinstance(value, int) and abs(value) > 10**4000:
            continue  # too long for repr
        if kind == "nested":
            continue  # holds sets, whose order repr shows
        assert call(values.describe, value) == values.describe(value)


def test_elements_of_native_containers_keep_their_own_types(call: Callable[..., Any]) -> None:
    value = [1, True, 1.0, (1,), [1], {1}, frozenset({1}), "1", b"1", bytearray(b"1"), None]
    assert [type(item) for item in call(values.echo, value)] == [type(item) for item in value]


def test_the_caller_gets_copies_not_its_own_objects(call: Callable[..., Any]) -> None:
    value: Any = {"a": [1]}
    got = call(values.echo, value)
    assert got is not value
    assert got["a"] is not value["a"]


def test_singletons_and_interned_objects_are_themselves(call: Callable[..., Any]) -> None:
    for value in (None, True, False, ..., NotImplemented, (), 5, ""):
        assert call(values.echo, value) is value


PICKLED: dict[str, Any] = {
    "dataclass": classes.Point(1, 2),
    "frozen dataclass with slots": classes.Frozen("name"),
    "enum": classes.Colour.RED,
    "int enum": classes.Level.HIGH,
    "flag": classes.Flags.A | classes.Flags.B,
    "int flag": classes.IntFlags.A | classes.IntFlags.B,
    "str enum": classes.Word.YES,
    "NamedTuple": classes.Pair(1, "b"),
    "namedtuple": classes.OldPair([1], {}),
    "subclass of str": classes.Text("text"),
    "subclass of int": classes.Number(5),
    "subclass of float": classes.Ratio(-0.0),
    "subclass of complex": classes.Phase(1, -0.0),
    "subclass of bytes": classes.Raw(b"raw"),
    "subclass of bytearray": classes.Buffer(b"raw"),
    "subclass of tuple": classes.Row((1, (2,))),
    "subclass of set": classes.Group({1, 2}),
    "subclass of frozenset": classes.FrozenGroup({1, 2}),
    "large subclass of bytes": classes.Raw(100_000),
    "large subclass of str": classes.Text("x" * 100_000),
    "subclass of list": classes.Items([1, 2]),
    "subclass of dict": classes.Table(a=1),
    "Decimal": decimal.Decimal("1.10"),
    "Fraction": fractions.Fraction(1, 3),
    "datetime": datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC),
    "datetime without zone": datetime.datetime(1, 1, 1, 0, 0, 0, 1),
    "datetime in a zone": datetime.datetime(
        2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")
    ),
    "zone": zoneinfo.ZoneInfo("America/New_York"),
    "fixed offset": datetime.timezone(-datetime.timedelta(hours=3, minutes=30), "here"),
    "time": datetime.time(23, 59, 59, 999_999, fold=1),
    "negative timedelta": -datetime.timedelta(microseconds=1),
    "infinite Decimal": decimal.Decimal("-Infinity"),
    "long Decimal": decimal.Decimal("1." + "7" * 10_000),
    "PurePath": pathlib.PureWindowsPath("c:/a\\b"),
    "posix path": pathlib.PurePosixPath("/a/\udcff"),
    "UUID of the time": uuid.uuid1(),
    "network": ipaddress.ip_network("10.0.0.0/8"),
    "IPv6": ipaddress.ip_interface("::1%eth0/64"),
    "ChainMap": collections.ChainMap({"a": [1]}, {"b": 2}),
    "mapping of members": {classes.Colour.RED: classes.Level.LOW},
    "type alias": list[int],
    "struct sequence": os.stat_result(range(10)),
    "date": datetime.date(2024, 2, 29),
    "timedelta": datetime.timedelta(days=1, microseconds=1),
    "Path": pathlib.Path("a/b"),
    "UUID": uuid.UUID(int=5),
    "address": ipaddress.ip_address("127.0.0.1"),
    "pattern": re.compile("a+", re.IGNORECASE),
    "OrderedDict": collections.OrderedDict(b=1, a=2),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "Counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], maxlen=3),
    "array": array.array("d", [1.5, 2.5]),
    "range": range(1, 10, 3),
    "slice": slice(1, None, 2),
    "namespace": types.SimpleNamespace(a=1, b=[2]),
    "type": int,
    "own class": classes.Point,
    "function": values.square,
    "builtin": len,
}


@pytest.mark.parametrize("name", PICKLED)
def test_other_values_cross_by_pickle(name: str, call: Callable[..., Any]) -> None:
    value = PICKLED[name]
    assert same(call(values.echo, value), value)
    nested = {"a": [1, (value, {"b": value})]}
    assert same(call(values.echo, nested), nested)
    kind, _ = call(values.describe, value)
    assert kind == f"{type(value).__module__}.{type(value).__qualname__}"


def test_pickled_values_can_be_keys_and_elements(call: Callable[..., Any]) -> None:
    hashable = [value for value in PICKLED.values() if type(value).__hash__]
    hashable = [value for value in hashable if not isinstance(value, (slice, classes.OldPair))]
    keys = dict.fromkeys(hashable, 1)
    assert call(values.echo, keys) == keys
    assert call(values.echo, set(hashable)) == set(hashable)
    assert call(values.echo, frozenset(hashable)) == frozenset(hashable)


SUBCLASSES = {
    name: value for name, value in PICKLED.items() if "subclass" in name or "enum" in name
}


@pytest.mark.parametrize("name", SUBCLASSES)
def test_subclasses_of_native_types_keep_their_type_wherever_they_are(
    name: str, call: Callable[..., Any]
) -> None:
    value = SUBCLASSES[name]
    for nested in ([value], (value, [value]), {"k": value}, classes.Point(value)):
        assert same(call(values.echo, nested), nested)
    if type(value).__hash__:
        for nested in ({value: 1}, {value}, frozenset([value])):
            assert same(call(values.echo, nested), nested)


def test_attributes_of_subclasses_are_kept(call: Callable[..., Any]) -> None:
    text = classes.Text("text")
    text.language = "en"  # type: ignore[attr-defined]
    assert call(values.echo, text).language == "en"


def test_functions_of_a_worker_work_on_pickled_values(call: Callable[..., Any]) -> None:
    assert call(classes.move, classes.Point(1, 2), 10) == classes.Point(11, 12)
    assert call(classes.move, classes.Point(1, 2), by=10) == classes.Point(11, 12)


def test_an_object_that_refers_to_itself_crosses_by_pickle(call: Callable[..., Any]) -> None:
    assert call(classes.is_own_self, classes.Node())
    node = call(values.echo, classes.Node())
    assert node.self is node


def noted(error: BaseException, **attributes: Any) -> BaseException:
    error.add_note("a note")
    vars(error).update(attributes)
    return error


EXCEPTIONS = {
    "builtin": ValueError("a", 1),
    "without args": KeyError(),
    "with a number": OSError(2, "No such file", "name"),
    "with notes and attributes": noted(LookupError("text"), code=5, data=b"x"),
    "group": ExceptionGroup("group", [ValueError(1), ExceptionGroup("inner", [KeyError("k")])]),
    "that would end a program": SystemExit(3),
    "interrupt": KeyboardInterrupt("text"),
    "cancellation": asyncio.CancelledError("message"),
    "unicode": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "reason"),
    "with a value": StopIteration([1]),
}


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_are_values_too(name: str, call: Callable[..., Any]) -> None:
    error = EXCEPTIONS[name]
    for got in (call(values.echo, error), call(values.echo, {"k": [error]})["k"][0]):
        assert type(got) is type(error)
        assert repr(got) == repr(error)
        assert str(got) == str(error)
        assert vars(got) == vars(error)


class TestDigits:
    """Numbers of any size, however short the texts of numbers must be."""

    @pytest.fixture(autouse=True)
    def _limit(self, call: Callable[..., Any]) -> Iterator[None]:
        before = sys.get_int_max_str_digits()
        call(sys.set_int_max_str_digits, 640)
        sys.set_int_max_str_digits(640)
        yield
        sys.set_int_max_str_digits(before)
        call(sys.set_int_max_str_digits, before)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_number_of_100_000_digits(self, sign: int, call: Callable[..., Any]) -> None:
        number = sign * (10**100_000 - 1)
        for value in (number, [number], {number: (number,)}, classes.Point(number)):
            assert call(values.echo, value) == value
        assert call(classes.Number, number) == classes.Number(number)
        assert type(call(values.echo, classes.Number(number))) is classes.Number

    def test_a_number_made_in_the_worker(self, call: Callable[..., Any]) -> None:
        assert call(pow, 7, 150_000) == 7**150_000

    def test_a_path_with_such_a_key(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match=r"args\[0\]\[.*lock"):
            call(values.echo, {10**1_000: threading.Lock()})


def test_interned_and_other_strings_are_equal_and_found(call: Callable[..., Any]) -> None:
    interned, other = sys.intern("some_name_of_ours"), "".join(["some_name_", "of_ours"])
    assert interned is not other
    got = call(values.echo, [interned, other, {interned: 1}, {other: 2}])
    assert got == [interned, other, {interned: 1}, {other: 2}]
    assert got[2][other] == 1
    assert getattr(types.SimpleNamespace(some_name_of_ours=3), got[1]) == 3


@pytest.mark.parametrize("size", [0, 1, 100, 1_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_buffers_that_pickle_out_of_band(
    size: int, kind: type[bytes] | type[bytearray], call: Callable[..., Any]
) -> None:
    data = kind(b"x" * size)
    got = call(values.echo, classes.OutOfBand(data))
    assert bytes(got.data) == bytes(data)
    got = call(values.echo, [classes.OutOfBand(data), classes.OutOfBand(b"other")])
    assert [bytes(item.data) for item in got] == [bytes(data), b"other"]


class TestRefusedArguments:
    CASES: ClassVar[dict[str, Any]] = {
        "args[0]": ((threading.Lock(),), {}),
        "args[1]": ((1, threading.Lock()), {}),
        "args[1]['key'][3]": ((1, {"key": [0, 1, 2, threading.Lock()]}), {}),
        "args[0][1][0]": (((0, [threading.Lock()]),), {}),
        "args[0][5]": (({5: threading.Lock()},), {}),
        "args[0][(1, 2)]": (({(1, 2): threading.Lock()},), {}),
        "args[0][b'k'][None]": (({b"k": {None: threading.Lock()}},), {}),
        "kwargs['n']": ((), {"n": threading.Lock()}),
        "kwargs['n'][0]": ((), {"n": [threading.Lock()]}),
        "kwargs['second']['x']": ((1,), {"first": 1, "second": {"x": threading.Lock()}}),
    }

    @pytest.mark.parametrize("path", CASES)
    def test_the_error_has_the_path_to_the_culprit(self, path: str, runner: Runner) -> None:
        args, kwargs = self.CASES[path]

        async def main() -> None:
            with pytest.raises(NotShareableError) as caught:
                await runner.run(values.everything, *args, **kwargs)
            message = str(caught.value)
            assert f"{path}:" in message
            assert "lock" in message
            assert isinstance(caught.value.__cause__, TypeError)
            assert "pickle" in str(caught.value.__cause__)

        asyncio.run(main())

    def test_submit_raises_at_the_call(self, runner: Runner) -> None:
        async def main() -> None:
            with pytest.raises(NotShareableError, match="lock"):
                runner.submit(values.echo, threading.Lock())

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda: socket.socket(), "socket"),
            (lambda: (n for n in ()), "generator"),
            (lambda: sys._getframe(), "frame"),
            (lambda: types.ModuleType("m"), "module"),
            (lambda: os.fdopen(os.dup(0)), "TextIOWrapper"),
            (lambda: classes.Holder(), "Holder"),
            (lambda: threading.current_thread(), "Thread"),
        ],
        ids=["socket", "generator", "frame", "module", "file", "holder", "thread"],
    )
    def test_the_error_names_the_culprits_type(
        self, make: Callable[[], Any], name: str, call: Callable[..., Any]
    ) -> None:
        culprit = make()
        with pytest.raises(NotShareableError, match=name):
            call(values.echo, [culprit])
        if hasattr(culprit, "close"):
            culprit.close()

    def test_a_set_with_a_culprit(self, call: Callable[..., Any]) -> None:
        for kind in (set, frozenset):
            with pytest.raises(NotShareableError, match=r"args\[0\].*lock"):
                call(values.echo, kind([threading.Lock()]))

    def test_a_culprit_among_the_keys(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match=r"args\[0\].*lock"):
            call(values.echo, {threading.Lock(): 1})

    def test_an_error_while_pickling_is_the_cause(self, call: Callable[..., Any]) -> None:
        with pytest.raises(NotShareableError, match=r"args\[0\]") as caught:
            call(values.echo, classes.RaisesWhenPickled(LookupError("refuses")))
        assert isinstance(caught.value.__cause__, LookupError)

    def test_an_error_in_the_middle_harms_nothing(self, runner: Runner) -> None:
        async def main() -> None:
            before = [bytes(100_000), memoryview(bytearray(10)), classes.Point(1), [1] * 100]
            after = [runner.submit(values.square, n) for n in range(10)]
            for _ in range(20):
                with pytest.raises(NotShareableError):
                    await runner.run(values.everything, *before, threading.Lock(), k=before)
            assert await asyncio.gather(*after) == [n * n for n in range(10)]
            assert await runner.run(values.square, 9) == 81

        asyncio.run(main())

    @pytest.mark.parametrize("kind", ["tree", "circle"])
    def test_a_culprit_beside_what_is_nested_in_itself(self, kind: str, program: Program) -> None:
        """To look at each occurrence anew would take for ever: there are 2**60, or no end."""
        ended = program(
            """
            import asyncio, sys, threading
            from aiointerpreters import NotShareableError, Runner
            from workfns import values

            def tree():
                value = [1]
                for _ in range(60):
                    value = [value, value]
                return value

            def circle():
                first = {}
                second = {"before": first}
                first.update(after=second, itself=first)
                return first

            async def main():
                value = {"tree": tree, "circle": circle}[sys.argv[1]]()
                async with Runner(workers=1) as runner:
                    try:
                        await runner.run(values.echo, [value, threading.Lock()])
                    except NotShareableError as error:
                        print(error)

            asyncio.run(main())
            """,
            kind,
        )
        ended.assert_fine()
        assert ended.out.startswith("args[0][1]: lock")

    def test_an_argument_that_cannot_be_rebuilt_fails_the_call(
        self, call: Callable[..., Any]
    ) -> None:
        with pytest.raises((LookupError, NotShareableError), match="refuses to be rebuilt"):
            call(values.describe, [classes.RaisesWhenRebuilt()])
        assert call(values.square, 2) == 4


class TestRefusedResults:
    def test_the_error_has_the_path_to_the_culprit(self, runner: Runner) -> None:
        async def main() -> None:
            for _ in range(3):
                with pytest.raises(NotShareableError) as caught:
                    await runner.run(values.unsendable_deep_inside)
                assert "result['key'][3]:" in str(caught.value)
                assert "lock" in str(caught.value)
                assert caught.value.__cause__ is not None
                assert await runner.run(values.square, 2) == 4

        asyncio.run(main())

    @pytest.mark.parametrize(
        ("function", "match"),
        [
            (values.lock, r"result: .*lock"),
            (classes.holder, r"result\[0\]: .*Holder"),
            (classes.raising_when_pickled, r"result\[0\]"),
        ],
    )
    def test_results_that_cannot_be_pickled(
        self, function: Any, match: str, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(NotShareableError, match=match):
            call(function)
        assert call(values.square, 2) == 4

    def test_a_result_that_cannot_be_rebuilt_fails_the_call(self, call: Callable[..., Any]) -> None:
        with pytest.raises((LookupError, NotShareableError), match="refuses to be rebuilt"):
            call(classes.raising_when_rebuilt)
        assert call(values.square, 2) == 4


class TestDepth:
    def test_sensible_nesting(self, call: Callable[..., Any]) -> None:
        assert call(values.depth_of, values.nested_list(150)) == 150
        assert values.depth_of(call(values.nested_list, 150)) == 150

    def test_nesting_without_end_gives_an_error_or_the_value_and_no_crash(
        self, program: Program
    ) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner, RunnerError
            from workfns import values

            def check(error):
                text = f"{error} {error.__cause__!r}"
                assert "deep" in text or "recursion" in text or "RecursionError" in text, text

            def deep(kind, depth):
                value = kind()
                for _ in range(depth):
                    value = [value] if kind is list else (value,) if kind is tuple else {"": value}
                return value

            async def main():
                async with Runner(workers=1) as runner:
                    for depth in (1_000, 10_000, 1_000_000):
                        for kind in (list, tuple, dict):
                            try:
                                await runner.run(values.echo, deep(kind, depth))
                            except (RunnerError, RecursionError) as error:
                                check(error)
                        try:
                            await runner.run(values.nested_list, depth)
                        except (RunnerError, RecursionError) as error:
                            check(error)
                        assert await runner.run(abs, -1) == 1

            asyncio.run(main())
        """)
        ended.assert_fine()

    def test_containers_that_hold_themselves_give_an_error_or_the_value_and_no_crash(
        self, program: Program
    ) -> None:
        ended = program("""
            import asyncio
            from aiointerpreters import Runner, RunnerError
            from workfns import values

            a_list = []
            a_list.append(a_list)
            a_dict = {}
            a_dict["self"] = a_dict
            a_tuple = ([],)
            a_tuple[0].append(a_tuple)
            mixed = {"list": [({},)]}
            mixed["list"][0][0]["top"] = mixed

            async def main():
                async with Runner(workers=1) as runner:
                    for value in (a_list, a_dict, a_tuple, mixed):
                        try:
                            got = await runner.run(values.echo, value)
                        except (RunnerError, RecursionError) as error:
                            message = str(error)
                            assert any(
                                word in message
                                for word in ("deep", "recursion", "cycl", "circular", "itself")
                            ), message
                        else:
                            assert repr(got) == repr(value)
                        assert await runner.run(abs, -1) == 1

            asyncio.run(main())
        """)
        ended.assert_fine()


CHANGES = {
    "a list that is cleared": "bag = [*filler, mutator, *filler]; change = bag.clear",
    "a list that grows": "bag = [mutator]; change = lambda: bag.extend(filler)",
    "a list whose elements are replaced": """
bag = [[1], mutator, [2]]
def change():
    bag[0] = bag[2] = None
    bag[1] = None
""",
    "a list that shrinks": """
bag = [mutator, *filler]
def change():
    del bag[1:]
""",
    "a dict that is cleared": "bag = {0: mutator, **dict.fromkeys(filler)}; change = bag.clear",
    "a dict that grows": "bag = {0: mutator}; change = lambda: bag.update(dict.fromkeys(filler))",
    "a dict whose values are replaced": """
bag = {n: [n] for n in range(5)} | {5: mutator}
bag[6] = [6]
def change():
    for n in range(7):
        bag[n] = None
""",
    "a set that is cleared": "bag = {mutator, *filler}; change = bag.clear",
    "a set that grows": "bag = {mutator}; change = lambda: bag.update(filler)",
    "a bytearray that shrinks": """
data = bytearray(1_000_000)
bag = [data, mutator, memoryview(bytearray(5)), data]
def change():
    data.clear()
""",
    "a view that is released": """
view = memoryview(bytearray(1_000_000))
bag = [view, mutator, view]
def change():
    view.release()
""",
    "a container that is changed by another thread": """
import threading
bag = [*filler, mutator, *filler]
def change():
    thread = threading.Thread(target=bag.clear)
    thread.start()
    thread.join()
""",
    "arguments that collect garbage": """
import gc
bag = [[], {}, mutator, [mutator]]
def change():
    bag[0] = None
    gc.collect()
""",
    "a call within the call": """
bag = [mutator]
def change():
    inner.append(current.submit(values.square, 3))
""",
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_changes_while_it_is_encoded_gives_an_error_or_a_value_and_no_crash(
    case: str, program: Program
) -> None:
    ended = program(
        """
import asyncio
from aiointerpreters import Runner
from workfns import classes, values

inner = []
mutator = classes.Mutator()
filler = [str(n) * 100 for n in range(1_000)]
"""
        + CHANGES[case]
        + """
mutator.change = change

async def main():
    global current
    async with Runner(workers=1) as current:
        for args, kwargs in (((bag,), {}), ((), {"value": bag})):
            try:
                got = await current.run(values.echo, *args, **kwargs)
            except (RuntimeError, ValueError, TypeError, BufferError) as error:
                assert str(error)
            else:
                assert type(got) is type(bag), got
        assert [await future for future in inner] == [9] * len(inner)
        assert await current.run(abs, -1) == 1

asyncio.run(main())
""",
        flags=["-X", "dev"],
    )
    ended.assert_fine()


@pytest.mark.parametrize("size", [1_000, 1_000_000, 50_000_000])
def test_large_results(size: int, call: Callable[..., Any]) -> None:
    assert call(values.zeros, size) == bytes(size)
    assert call(values.letters, size) == "x" * size


def test_errors_about_values_are_of_a_type_that_users_would_catch(
    call: Callable[..., Any],
) -> None:
    with pytest.raises(TypeError):
        call(values.echo, threading.Lock())
    with pytest.raises(RunnerError):
        call(values.lock)


class TestPathsAndNotes:
    def test_the_path_leads_to_the_culprit_in_a_tree_with_parents(
        self, call: Callable[..., Any]
    ) -> None:
        with socket.socket() as culprit:
            tree: dict[str, Any] = {"name": "root", "children": []}
            tree["children"].append({"parent": tree, "handle": culprit})
            with pytest.raises(NotShareableError) as caught:
                call(values.echo, tree)
        assert str(caught.value).startswith("args[0]['children'][0]['handle']: socket cannot be")

    @pytest.mark.skipif(sys.version_info < (3, 14), reason="pickle notes nothing on CPython 3.13")
    def test_within_an_object_pickle_tells_where(self, call: Callable[..., Any]) -> None:
        with socket.socket() as culprit, pytest.raises(NotShareableError) as caught:
            call(values.echo, [classes.Point({"deep": culprit})])
        assert "args[0][0]: Point cannot be sent" in str(caught.value)
        assert "when serializing dict item 'deep'" in str(caught.value)

    def test_a_value_that_cannot_be_rebuilt_fails_the_call_with_a_note(
        self, call: Callable[..., Any]
    ) -> None:
        with pytest.raises(TypeError) as caught:
            call(values.echo, classes.NeedsTwo(1, "x"))
        assert any("rebuilt" in note for note in caught.value.__notes__)
