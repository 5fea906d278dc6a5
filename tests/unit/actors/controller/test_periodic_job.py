"""Work that is done again and again: when it starts, what it returns, and what becomes of its failures."""

from __future__ import annotations

import pytest

from actors.controller.periodic_job import PeriodicJob
from relay.errors import BusError
from tests.support.executors import AtOnce, OnDemand

EVERY_S, RETRY_S = 10.0, 3.0


class Work:
    """Returns how often it was done, or raises `failure`."""

    def __init__(self) -> None:
        self.done = 0
        self.failure: Exception | None = None

    def __call__(self) -> int:
        self.done += 1
        if self.failure is not None:
            raise self.failure
        return self.done


def job(work: Work, executor: AtOnce | OnDemand, *, from_end: bool = False) -> PeriodicJob[int]:
    return PeriodicJob(work, EVERY_S, RETRY_S, name="job", from_end=from_end, executor=executor)


def starts(job: PeriodicJob[int], work: Work, seconds: int) -> list[int]:
    """At which of the first seconds the work began."""
    found = []
    for second in range(seconds):
        before = work.done
        job.poll(float(second))
        job.start_if_due(float(second))
        found += [second] * (work.done - before)
    return found


def test_it_is_done_at_once_and_then_again_and_again():
    work = Work()
    assert starts(job(work, AtOnce()), work, 25) == [0, 10, 20]


def test_the_pause_may_count_from_the_end_that_was_noticed():
    work = Work()
    assert starts(job(work, AtOnce(), from_end=True), work, 25) == [0, 11, 22]


@pytest.mark.parametrize("from_end", [False, True])
def test_what_fails_is_retried_sooner(from_end):
    work = Work()
    work.failure = BusError("away")
    assert starts(job(work, AtOnce(), from_end=from_end), work, 10) == [0, 4, 8]


def test_a_run_that_is_under_way_is_not_joined_by_another():
    work, executor = Work(), OnDemand()
    slow = job(work, executor)
    assert starts(slow, work, 35) == []
    assert len(executor.waiting) == 1


@pytest.mark.parametrize("from_end", [False, True])
def test_it_is_done_soon_when_asked_for_during_a_run_and_after_one(from_end):
    work, executor = Work(), OnDemand()
    asked = job(work, executor, from_end=from_end)
    asked.start_if_due(0.0)
    asked.run_soon()
    executor.run()
    assert asked.poll(1.0) == 1
    asked.start_if_due(1.0)
    executor.run()
    assert asked.poll(2.0) == 2
    asked.start_if_due(2.0)
    assert not executor.waiting
    asked.run_soon()
    asked.start_if_due(2.0)
    assert executor.waiting


def test_each_result_is_given_once():
    work, executor = Work(), OnDemand()
    polled = job(work, executor)
    polled.start_if_due(0.0)
    assert polled.poll(0.0) is None
    executor.run()
    assert [polled.poll(1.0), polled.poll(2.0)] == [1, None]


def test_a_failure_is_shown_until_a_run_succeeds():
    work, shown = Work(), []
    failing = job(work, AtOnce())
    for turn, failure in enumerate([BusError("away"), BusError("still away"), None, None]):
        work.failure = failure
        failing.start_if_due(turn * 20.0)
        shown.append(failing.problem)
        failing.poll(turn * 20.0)
    assert shown == ["", "away", "still away", ""]


def test_a_defect_is_no_failure_to_retry():
    work, executor = Work(), OnDemand()
    broken = job(work, executor)
    broken.start_if_due(0.0)
    executor.waiting[0][0].set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        broken.poll(1.0)


def test_the_work_runs_beside_its_caller():
    work = Work()
    alone = PeriodicJob(work, EVERY_S, RETRY_S, name="job")
    alone.start_if_due(0.0)
    alone.close()
    result = None
    while result is None:
        result = alone.poll(1.0)
    assert result == 1
