"""How many lines one place in the code may log, and that every line left out is counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.log_rate_limit import LINES, MAX_WINDOW_S, WINDOW_S, LogRateLimiter


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 9)), max_size=200))
def test_every_line_is_written_or_counted_and_few_are_written(steps):
    limit, now, written, counted = LogRateLimiter[str](), 0.0, [], 0
    for place, pause in steps:
        now += pause
        counted += sum(count for _, count in limit.expired(now))
        if limit.allows(place, place, now):
            written.append((place, now))
    counted += sum(count for _, count in limit.expired(now + MAX_WINDOW_S))
    assert len(written) + counted == len(steps)
    for place, at in written:
        assert sum(other == place and at <= later < at + WINDOW_S for other, later in written) <= 2 * LINES


def written_of(every_s: float, for_s: float) -> int:
    limit, written = LogRateLimiter[str](), 0
    for number in range(int(for_s / every_s)):
        limit.expired(number * every_s)
        written += limit.allows("a", "", number * every_s)
    return written


def test_a_day_of_one_trouble_is_told_ever_more_seldom():
    assert written_of(every_s=1.0, for_s=86_400.0) < 86_400 / MAX_WINDOW_S * LINES * 1.1


def test_a_status_line_every_ten_seconds_is_never_left_out():
    assert written_of(every_s=10.0, for_s=86_400.0) == 8_640
