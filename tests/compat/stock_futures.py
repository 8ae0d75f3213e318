"""Run CPython's own tests of concurrent.futures' executors, and print what became of each.

    PYTHONPATH=FOLDER:tests/compat python stock_futures.py ours|stdlib RESULTS

FOLDER holds the package `test` in full. (It is in the environment since InterpreterPoolExecutor
doesn't tell its workers of `sys.path`, and they shall find it too.) Each class of tests that is
written for any executor is run for one: `aiointerpreters.Executor`, or `InterpreterPoolExecutor` of
CPython; and the class that is written for the latter, where there is one. RESULTS is written, as
JSON: test -> "passed", "skipped: ...", "failed: ...".
"""

import importlib
import json
import os
import sys
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

#: Tests that ask for what `aiointerpreters.Executor` doesn't promise, and why it doesn't.
_OTHER_TEXT = "it expects a text of CPython's on standard error; ours raises RunnerError at submit"
CANNOT_APPLY = {
    "ExecutorShutdownTest.test_cancel_futures": "it expects that some call has begun when the "
    "shutdown comes, and no interpreter starts as soon; so InterpreterPoolExecutor fails, too",
    "InterpreterPoolExecutorTest.test_init_closure": _OTHER_TEXT,
    "InterpreterPoolExecutorTest.test_init_instance_method": _OTHER_TEXT,
    "InterpreterPoolExecutorTest.test_init_exception_in_func": "it expects CPython's "
    "BrokenInterpreterPool and what that prints; ours is BrokenRunner, and logged",
    "InterpreterPoolExecutorTest.test_submit_exception_in_func": "it expects CPython's "
    "ExecutionFailed as the cause; ours is RemoteTraceback",
    "InterpreterPoolExecutorTest.test_pickle_errors_propagate": "it expects a text of CPython's, "
    "and submits what can't be called, which is what we say of it",
}

#: These expect that a function can't be sent, as it can't without the package cloudpickle.
WITHOUT_CLOUDPICKLE = (
    "test_submit_closure",
    "test_submit_instance_method",
    "test_submit_local_instance",
)


def patch_subprograms(name):
    """Programs that tests start find the tests as well, and import what is tested, as `name`."""
    from test.support import script_helper

    run, make = script_helper.assert_python_ok, script_helper.make_script

    def adapt(text):
        stock = "from concurrent.futures import InterpreterPoolExecutor\n"
        return text.replace(stock, f"from {name}\n")

    script_helper.assert_python_ok = lambda *args, **kwargs: run(
        *map(adapt, args), PYTHONPATH=os.environ["PYTHONPATH"], __isolated=False, **kwargs
    )
    script_helper.make_script = lambda folder, file, text, **kwargs: make(
        folder, file, adapt(text), **kwargs
    )


def mixin_for(side, util):
    if side == "stdlib":
        return util.InterpreterPoolMixin
    from events import Event

    import aiointerpreters

    class InterpreterPoolExecutor(aiointerpreters.Executor):
        """What the tests look for under other names."""

        _broken = property(lambda self: self._service.broken, lambda self, _: None)
        _threads = property(
            lambda self: range(self._service._pool.stats()["started"]), lambda self, _: None
        )

    class InterpreterPoolMixin(util.ExecutorMixin):
        executor_type = InterpreterPoolExecutor

        def create_event(self):
            return Event()

    util.InterpreterPoolMixin = InterpreterPoolMixin
    return InterpreterPoolMixin


def use_our_errors(own):
    """What can't be sent is refused by CPython and by us with different exceptions."""
    import _interpreters

    import aiointerpreters

    own._interpreters = SimpleNamespace(
        get_current=_interpreters.get_current, NotShareableError=aiointerpreters.RunnerError
    )
    absent = mock.patch.dict(sys.modules, {"cloudpickle": None})
    for name in WITHOUT_CLOUDPICKLE:
        tests = own.InterpreterPoolExecutorTest
        setattr(tests, name, absent(getattr(tests, name)))


def classes(side):
    package = "test.test_concurrent_futures"
    util = importlib.import_module(f"{package}.util")
    mixin = mixin_for(side, util)
    if side == "ours":
        patch_subprograms("aiointerpreters import Executor as InterpreterPoolExecutor")
    else:
        patch_subprograms("concurrent.futures import InterpreterPoolExecutor")
    modules = {}
    for module, base in (
        ("executor", "ExecutorTest"),
        ("test_shutdown", "ExecutorShutdownTest"),
        ("test_wait", "WaitTests"),
        ("test_as_completed", "AsCompletedTests"),
        ("test_init", "InitializerMixin"),
        ("test_init", "FailingInitializerMixin"),
    ):
        modules[module] = importlib.import_module(f"{package}.{module}")
        yield type(base, (getattr(modules[module], base), mixin, util.BaseTestCase), {})
    if sys.version_info >= (3, 14):
        own = importlib.import_module(f"{package}.test_interpreter_pool")
        if side == "ours":
            use_our_errors(own)
        yield own.InterpreterPoolExecutorTest
        yield own.AsyncioTest


class Results(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.by_test = {}

    def note(self, test, outcome):
        """The first failure of a test counts; what a subtest does is its test's."""
        test = getattr(test, "test_case", test)
        if not self.by_test.get(self.name(test), "").startswith("failed"):
            self.by_test[self.name(test)] = outcome

    def name(self, test):
        return f"{type(test).__name__}.{test._testMethodName}"

    def startTest(self, test):  # noqa: N802 - unittest's
        super().startTest(test)
        print(self.name(test), file=sys.stderr, flush=True)

    def addSuccess(self, test):  # noqa: N802
        self.note(test, "passed")

    def addFailure(self, test, err):  # noqa: N802
        self.note(test, "failed: " + self._exc_info_to_string(err, test))

    addError = addFailure  # noqa: N815

    def addSubTest(self, test, subtest, err):  # noqa: N802
        if err is not None:
            self.addFailure(test, err)

    def addSkip(self, test, reason):  # noqa: N802
        self.note(test, f"skipped: {reason}")

    def addExpectedFailure(self, test, err):  # noqa: N802
        self.note(test, "skipped: expected to fail")

    def addUnexpectedSuccess(self, test):  # noqa: N802
        self.note(test, "passed")


def main():
    side, file = sys.argv[1:]
    loader = unittest.TestLoader()
    results = Results()
    for made in classes(side):
        suite = unittest.TestSuite()
        for test in loader.loadTestsFromTestCase(made):
            name = results.name(test)
            if side == "ours" and name in CANNOT_APPLY:
                results.by_test[name] = f"skipped: {CANNOT_APPLY[name]}"
            else:
                suite.addTest(test)
        suite.run(results)
    Path(file).write_text(json.dumps(results.by_test))


if __name__ == "__main__":
    main()
