"""A clock that is set back is noticed; one that is slewed, or set ahead, disturbs nothing."""

from __future__ import annotations

from relay.primitives.clock_step import MIN_STEP_NS, ClockStepDetector

SECOND = 1_000_000_000


def test_a_clock_set_back_is_told_once_and_by_how_much() -> None:
    watch = ClockStepDetector()
    assert watch.set_back_ns(9000 * SECOND, 5 * SECOND) == 0
    assert watch.set_back_ns(5401 * SECOND, 6 * SECOND) == 3600 * SECOND
    assert watch.set_back_ns(5402 * SECOND, 7 * SECOND) == 0


def test_slewing_and_a_clock_set_ahead_are_nothing() -> None:
    watch = ClockStepDetector()
    wall_ns = 9000 * SECOND
    for second in range(100):
        assert watch.set_back_ns(wall_ns - second * (MIN_STEP_NS - 1), 0) == 0
    assert watch.set_back_ns(2 * wall_ns, 0) == 0
