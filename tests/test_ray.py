"""aiointerpreters.ray: an actor that holds subinterpreters, in a real Ray on this machine."""

import builtins
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="ray is not installed: it has no wheel for this Python")

import ray

from aiointerpreters.errors import NotShareableError
from aiointerpreters.ray import Interpreters
from workfns import cluster as work

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of ray, and of what it imports
    pytest.mark.timeout(240),  # to start Ray takes long on a busy machine
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    its_own = builtins.print
    ray.init(  # which takes the place of print()
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
    )
    yield
    ray.shutdown()
    builtins.print = its_own


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[Any]:
    pool = Interpreters(2)
    yield pool
    pool.close()


def test_calls_run_at_the_same_time_in_the_interpreters_of_one_process(
    pool: Any, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    first, second = ray.get([pool.submit(work.meet, str(fifo), mode) for mode in "rw"])

    assert first[0] == second[0] != os.getpid()
    assert {first[1], second[1]} == {"ray-0", "ray-1"}


def test_refs_are_replaced_by_what_they_refer_to(pool: Any) -> None:
    squares = [pool.submit(work.square, number) for number in range(100)]

    assert ray.get(pool.submit(work.total, squares)) == sum(n * n for n in range(100))
    assert ray.get(pool.submit(work.add, squares[2], ray.put(5), third=squares[3])) == 18


def test_a_calls_exception_is_its_own(pool: Any) -> None:
    with pytest.raises(work.OddError) as caught:
        ray.get(pool.submit(work.refuse, 7))
    assert caught.value.cause.number == 7
    with pytest.raises(NotShareableError, match="socket"):
        ray.get(pool.submit(work.unsendable))

    assert ray.get(pool.submit(work.square, 12)) == 144


def test_tasks_may_use_an_actor_that_they_are_given(pool: Any) -> None:
    def total(pool: Any) -> Any:
        return sum(ray.get([pool.submit(work.square, number) for number in range(10)]))

    assert ray.get(ray.remote(total).options(num_cpus=1).remote(pool)) == 285


def test_nothing_is_lost_if_the_actors_process_is_killed(cluster: None) -> None:
    pool = Interpreters(1, options={"max_restarts": 1, "max_task_retries": -1})
    process, _ = ray.get(pool.submit(work.where, 0))

    squares = [pool.submit(work.square, number) for number in range(2000)]
    ray.wait(squares, num_returns=200)
    os.kill(process, signal.SIGKILL)

    assert ray.get(squares) == [n * n for n in range(2000)]
    assert ray.get(pool.submit(work.where, 0))[0] != process
    pool.close()


def test_what_is_wrong_with_its_options_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="max_workers"):
        Interpreters(0)
