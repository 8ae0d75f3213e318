"""What CPython itself leaks with every interpreter, without this package.

The same imports in as many interpreters as runners.py makes, each in a thread of its own.
"""

import os
import sys
import threading

from measure import arguments, check

try:
    import _interpreters
except ImportError:
    sys.exit("no _interpreters in this Python")

TEXT = """
import sys
sys.path[:] = {path!r}
from workfns import failing, values
assert values.square(3) == 9
"""


def use_an_interpreter() -> None:
    interpreter = _interpreters.create()
    failure = _interpreters.exec(interpreter, TEXT.format(path=sys.path))
    assert failure is None, failure
    _interpreters.destroy(interpreter)


def one_round() -> None:
    threads = [threading.Thread(target=use_an_interpreter) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


options = arguments(warm_up=10, rounds=100, allowed=float("inf"))
check(one_round, warm_up=options.warm_up, rounds=options.rounds, allowed=options.allowed)
assert os.listdir("/proc/self/task")
