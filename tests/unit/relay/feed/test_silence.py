"""When a silence is too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.feed.silence import (
    FLOOR_S,
    LEARN_S,
    MAX_LIMIT_S,
    SAFETY_FACTOR,
    URGENT_FACTOR,
    SilenceDetector,
)
from relay.feed.timing import DEFAULT_TIMING


def busy(limit_s: float, pause_s: float, until: float) -> tuple[SilenceDetector, float]:
    """A stream that spoke every `pause_s` from 0 on, and when it did last."""
    detector = SilenceDetector(limit_s)
    detector.begin(0.0)
    now = 0.0
    while now + pause_s <= until:
        now += pause_s
        detector.event_received(now)
    return detector, now


def test_a_stream_that_just_began_has_the_limit_of_its_kind():
    detector, last = busy(30.0, 0.01, 1.0)
    assert detector.overdue_s(last + 29.0) is None
    assert detector.overdue_s(last + 31.0) == 31.0


def test_a_busy_stream_is_suspected_after_seconds():
    detector, last = busy(30.0, 0.1, 40.0)
    assert detector.overdue_s(last + FLOOR_S - 0.1) is None
    assert detector.overdue_s(last + FLOOR_S + 0.1) is not None


def test_a_silence_of_many_limits_is_dire():
    detector, last = busy(30.0, 0.1, 40.0)
    assert not detector.is_urgent(last + URGENT_FACTOR * FLOOR_S - 0.1)
    assert detector.is_urgent(last + URGENT_FACTOR * FLOOR_S + 0.1)
    detector.stop()
    assert not detector.is_urgent(last + 1000.0)


def test_the_longest_pause_counts_and_not_the_average():
    detector, last = busy(30.0, 0.1, 40.0)
    detector.event_received(last + 1.5)
    assert detector.limit_s() == SAFETY_FACTOR * 1.5


def test_a_pause_of_long_ago_is_forgotten():
    detector, now = busy(30.0, 0.5, 60.0)
    detector.event_received(now + 5.0)
    now += 5.0
    for _ in range(1300):
        now += 0.5
        detector.event_received(now)
    assert detector.limit_s() == FLOOR_S


def test_the_kinds_limit_is_the_ceiling():
    detector, _ = busy(5.0, 4.0, 60.0)
    assert detector.limit_s() == 5.0


def test_first_data_has_a_limit_of_its_own_and_only_while_it_can_come():
    detector = SilenceDetector(2.0)
    assert detector.overdue_s(1000.0) is None
    detector.begin(1000.0)
    assert detector.overdue_s(1000.0 + DEFAULT_TIMING.subscribed_s - 0.1) is None
    assert detector.overdue_s(1000.0 + DEFAULT_TIMING.subscribed_s + 0.1) is not None
    detector.stop()
    assert detector.overdue_s(2000.0) is None


def test_a_stream_that_may_stay_away_for_days_is_never_overdue():
    detector = SilenceDetector(None)
    detector.begin(0.0)
    detector.event_received(1.0)
    detector.confirm_quiet(2.0)
    assert detector.overdue_s(1e6) is None


def test_patience_doubles_with_every_shared_silence_up_to_its_bound():
    detector = SilenceDetector(30.0)
    detector.begin(0.0)
    limits, now = [], 0.0
    for _ in range(7):
        limits.append(detector.limit_s())
        now += 1000.0
        detector.confirm_quiet(now)
    assert limits == [30.0, 60.0, 120.0, 240.0, 480.0, MAX_LIMIT_S, MAX_LIMIT_S]


def test_after_a_shared_silence_a_busy_stream_has_its_kinds_limit_until_it_is_known_again():
    detector, last = busy(30.0, 0.1, 40.0)
    detector.confirm_quiet(last + 3.0)
    assert detector.limit_s() == 30.0
    now = last + 100.0
    while now < last + 100.0 + LEARN_S + 1:
        detector.event_received(now)
        now += 0.1
    assert detector.limit_s() == FLOOR_S, "the silence itself is no pause of the stream's"


def test_a_time_without_a_connection_is_no_pause_of_the_streams():
    detector, last = busy(30.0, 0.1, 40.0)
    detector.stop()
    detector.begin(last + 20.0)
    detector.event_received(last + 20.1)
    assert detector.limit_s() == FLOOR_S


@given(st.floats(0.5, 60.0), st.lists(st.tuples(st.floats(0.001, 100.0), st.booleans()), max_size=60))
def test_the_limit_stays_between_its_bounds(kind_s: float, steps: list[tuple[float, bool]]):
    detector = SilenceDetector(kind_s)
    detector.begin(0.0)
    now = 0.0
    for pause_s, spoke in steps:
        now += pause_s
        detector.event_received(now) if spoke else detector.confirm_quiet(now)
        limit_s = detector.limit_s()
        assert limit_s is not None
        assert min(FLOOR_S, kind_s) <= limit_s <= max(kind_s, MAX_LIMIT_S)
