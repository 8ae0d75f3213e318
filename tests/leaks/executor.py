"""Many calls go through an executor: results, errors, cancelled ones, chunks."""

import contextlib
from concurrent.futures import CancelledError, wait

from measure import arguments, check

from aiointerpreters import Executor, NotShareableError
from workfns import values

BATCH = 500


def one_round() -> None:
    futures = [executor.submit(values.square, n) for n in range(BATCH)]
    stopped = [future.interrupt() if n % 2 else future.cancel() for n, future in enumerate(futures)]
    assert len(wait(futures).done) == BATCH
    for n, future in enumerate(futures):
        with contextlib.suppress(CancelledError):
            assert future.result() == n * n
            assert not stopped[n]
    assert list(executor.map(values.add, range(BATCH), chunksize=50))[-1] == BATCH
    assert isinstance(executor.submit(divmod, 1, 0).exception(), ZeroDivisionError)
    assert isinstance(executor.submit(values.echo, (n for n in ())).exception(), NotShareableError)


options = arguments(warm_up=20, rounds=100, allowed=4)
with Executor(2) as executor:
    check(one_round, warm_up=options.warm_up, rounds=options.rounds, allowed=options.allowed)
