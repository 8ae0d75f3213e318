"""The model of docs/scaling.md holds to what can be worked out without it."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("simpy")
sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from _scaling_model import Case, Costs, bounds, least_task, most_workers, simulate

COSTS = Costs(
    submit=2.0,
    deliver=1.0,
    turn=4.0,
    round=10.0,
    worker=0.5,
    push=0.01,
    pop=0.01,
    hand_over=0.04,
    futex_wait=0.3,
    futex_wake=0.3,
    unpark=3.0,
    unpark_latency=9.0,
    signal=3.0,
    signal_latency=9.0,
)
#: What starts and ends in the middle of what is counted.
EDGE = 1.02

CASES = [
    Case(workers, task, exponential=exponential)
    for workers in (1, 2, 8, 64)
    for task in (0, 10, 100, 1_000)
    for exponential in (False, True)
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_simulated_throughput_is_above_what_paper_allows(case: Case) -> None:
    # Times that are drawn have another mean than they should, by so much with thousands of them.
    drawn = 1.1 if case.exponential else 1
    found = simulate(COSTS, case, calls=3_000)
    assert found.rate <= min(bounds(COSTS, case).values()) * EDGE * drawn


@pytest.mark.parametrize("task", [100.0, 1_000.0])
def test_one_call_at_a_time_takes_the_sum_of_its_steps(task: float) -> None:
    # The worker is parked when it comes, and so is the loop: nobody spins. The loop's way into its
    # sleep, which is a turn, takes no time of the call's.
    costs = replace(COSTS, spin=0.0, poll=0.0)
    around = (
        *(costs.submit, costs.unpark, costs.unpark_latency),
        *(costs.pop_hold, costs.worker - costs.pop_hold, task),
        *(costs.signal, costs.signal_latency, costs.round - costs.turn, costs.deliver),
    )
    found = simulate(costs, Case(1, task, in_flight=1), calls=500)
    assert found.rate == pytest.approx(1e6 / sum(around), rel=0.01)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_where_tasks_are_long_all_workers_are_busy(workers: int) -> None:
    found = simulate(COSTS, Case(workers, 10_000))
    assert found.worker_use == pytest.approx(1, abs=0.02)
    assert found.rate == pytest.approx(workers * 100, rel=0.02)


def test_where_tasks_are_short_and_calls_many_the_loop_is_the_limit() -> None:
    found = simulate(COSTS, Case(64, 0, in_flight=500), calls=5_000)
    assert found.loop_use == pytest.approx(1, abs=0.01)
    assert found.rate == pytest.approx(1e6 / COSTS.loop, rel=0.03)


@pytest.mark.parametrize("cores", [1, 2])
def test_shared_cores_do_no_more_than_their_time(cores: int) -> None:
    case = Case(8, 1_000, cores=cores)
    assert simulate(COSTS, case).rate <= bounds(COSTS, case)["cores"] * EDGE


def test_the_least_task_is_the_one_that_keeps_that_many_busy() -> None:
    for workers in (8, 64, 256):
        assert most_workers(COSTS, least_task(COSTS, workers)) == pytest.approx(workers)


def test_slower_lines_make_everything_slower() -> None:
    far = COSTS.elsewhere(0.3)
    assert far.loop > COSTS.loop
    assert far.worker > COSTS.worker
    case = Case(64, 10)
    assert simulate(far, case).rate < simulate(COSTS, case).rate
