"""aiointerpreters.dask: Dask workers whose tasks run in subinterpreters.

On a real cluster: a scheduler, and two workers of two threads, each in a process of its own, that
talk TCP.
"""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="distributed is not installed")

import dask
import distributed

from aiointerpreters.dask import Interpreters
from aiointerpreters.errors import NotShareableError
from helpers.programs import Program
from workfns import cluster as work

pytestmark = [
    pytest.mark.filterwarnings("default"),  # of distributed, and of what it imports
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            processes=True,
            protocol="tcp",
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.register_plugin(Interpreters())
        yield client


@pytest.fixture
def annotated() -> Iterator[None]:
    with dask.annotate(executor="interpreters"):
        yield


def executors_of(client: Any) -> list[set[str]]:
    """The names of each worker's executors."""
    found: dict[str, set[str]] = client.run(lambda dask_worker: set(dask_worker.executors))
    return list(found.values())


@pytest.mark.usefixtures("annotated")
def test_annotated_tasks_run_in_the_interpreters_of_their_dask_worker(client: Any) -> None:
    for address, process in client.run(os.getpid).items():
        tasks = client.map(work.where, range(50), workers=[address], pure=False)
        found = set(client.gather(tasks))

        assert {each for each, _ in found} == {process}
        assert all("interpreters-" in str(name) for _, name in found)


@pytest.mark.usefixtures("annotated")
def test_tasks_of_one_dask_worker_run_at_the_same_time(client: Any, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    worker = next(iter(client.run(os.getpid)))
    met = [client.submit(work.meet, str(fifo), mode, workers=[worker]) for mode in "rw"]

    first, second = client.gather(met)
    assert first[0] == second[0]  # the process
    assert first[1] != second[1]


def test_other_tasks_run_where_they_did(client: Any) -> None:
    assert client.submit(work.where, 1).result()[1] is None


@pytest.mark.usefixtures("annotated")
def test_what_is_done_by_tasks_before_is_an_argument(client: Any) -> None:
    squares = client.map(work.square, range(100))
    sums = [client.submit(work.total, squares[start : start + 10]) for start in range(0, 100, 10)]
    both = client.submit(work.add, sums[0], sums[1], third=sums[2])

    assert client.submit(work.total, sums).result() == sum(n * n for n in range(100))
    assert both.result() == sum(n * n for n in range(30))


@pytest.mark.usefixtures("annotated")
def test_delayed_calls_and_bags_run_there(client: Any) -> None:
    bag = pytest.importorskip("dask.bag")
    total = dask.delayed(work.total)([dask.delayed(work.square)(n) for n in range(20)])
    mapped = bag.from_sequence(range(100), npartitions=4).map(work.where)

    assert client.compute(total).result() == sum(n * n for n in range(20))
    names = {name for _, name in client.compute(mapped, optimize_graph=False).result()}
    assert None not in names


@pytest.mark.usefixtures("annotated")
def test_functions_without_a_name_run_there(client: Any) -> None:
    factor = 3

    assert client.gather(client.map(lambda n: n * factor, range(5))) == [0, 3, 6, 9, 12]


@pytest.mark.usefixtures("annotated")
def test_large_data_is_sent_from_the_one_copy_of_its_worker(client: Any) -> None:
    data = client.scatter(b"x" * 5_000_000, broadcast=True)
    lengths = [client.submit(work.length, data, times) for times in range(20)]

    assert client.gather(lengths) == [5_000_000 * times for times in range(20)]


@pytest.mark.usefixtures("annotated")
def test_a_tasks_exception_is_its_own(client: Any) -> None:
    with pytest.raises(work.OddError) as caught:
        client.submit(work.refuse, 7).result()

    assert caught.value.number == 7
    assert caught.value.__notes__ == ["seen in a worker"]
    with pytest.raises(work.OddError):  # of a task before
        client.submit(work.square, client.submit(work.refuse, 9)).result()


@pytest.mark.usefixtures("annotated")
def test_a_task_fails_that_needs_what_refuses_subinterpreters(client: Any) -> None:
    with pytest.raises(ImportError, match="psutil"):
        client.submit(work.import_psutil).result()
    with pytest.raises(NotShareableError, match="socket"):
        client.submit(work.unsendable).result()

    assert client.submit(work.square, 12).result() == 144


@pytest.mark.usefixtures("annotated")
def test_a_cancelled_task_is_interrupted(client: Any, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    future = client.submit(work.spin, str(fifo))
    with fifo.open() as said:
        assert said.readline() == "begun\n"
        future.cancel()
        assert said.readline() == "Interrupted"

    assert future.cancelled()
    assert client.gather(client.map(work.square, range(1000, 1008))) == [
        n * n for n in range(1000, 1008)
    ]


@pytest.mark.usefixtures("annotated")
def test_a_task_that_was_interrupted_can_be_done_again(client: Any, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    future = client.submit(work.spin, str(fifo), key="again")
    with fifo.open() as said:
        assert said.readline() == "begun\n"
        future.release()
        assert said.readline() == "Interrupted"

    assert client.submit(work.square, 5, key="again").result() == 25


def test_the_executor_may_be_the_default_and_be_taken_away(client: Any) -> None:
    plugin = Interpreters(1, name="by default", default=True, preload="json")
    client.register_plugin(plugin)
    try:
        found = set(client.gather(client.map(work.where, range(300, 400))))
        assert {name for _, name in found} <= {"by default-0-0", "by default-1-0"}
        assert all("by default" in names for names in executors_of(client))
    finally:
        client.unregister_worker_plugin(plugin.name)

    assert not any("by default" in names for names in executors_of(client))
    assert client.submit(work.where, 400).result()[1] is None


def test_what_is_wrong_with_its_options_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="max_workers"):
        Interpreters(0)
    with pytest.raises(TypeError, match="initializer"):
        Interpreters(initializer=3)  # type: ignore[arg-type]


@pytest.mark.usefixtures("annotated")
def test_nothing_is_lost_if_a_dask_worker_is_killed_midway(client: Any) -> None:
    squares = client.map(work.square, range(10_000, 13_000))
    sums = [client.submit(work.total, squares[start : start + 30]) for start in range(0, 3000, 30)]
    total = client.submit(work.total, sums)
    processes = client.run(os.getpid)

    done = distributed.as_completed(squares)
    for _ in range(300):
        next(done)
    os.kill(next(iter(processes.values())), signal.SIGKILL)
    assert not total.done()

    assert total.result() == sum(n * n for n in range(10_000, 13_000))
    assert client.gather(squares) == [n * n for n in range(10_000, 13_000)]
    client.wait_for_workers(2)  # Dask has started another one
    assert set(client.run(os.getpid).values()) != set(processes.values())
    assert all("interpreters" in names for names in executors_of(client))


def test_functions_of_the_main_script_run_there(program: Program) -> None:
    ended = program(
        """
        import dask
        from distributed import Client, LocalCluster
        from aiointerpreters import current_worker
        from aiointerpreters.dask import Interpreters

        def where():
            return current_worker().name

        if __name__ == "__main__":
            with LocalCluster(
                n_workers=1, threads_per_worker=1, dashboard_address=None
            ) as cluster, Client(cluster) as client:
                client.register_plugin(Interpreters())
                with dask.annotate(executor="interpreters"):
                    print(client.submit(where).result())
        """
    )

    assert ended.status == 0, ended.err
    assert ended.out == "interpreters-0-0\n"
