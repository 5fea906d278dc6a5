"""One place logs a few lines, then a count; another one is not held up by it."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.log import LimitedHandler
from relay.primitives.log_rate_limit import LINES, LONGEST_S, WINDOW_S, LogRateLimiter


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 9)), max_size=200))
def test_every_line_is_written_or_counted_and_few_are_written(steps):
    limit, now, written, counted = LogRateLimiter[str](), 0.0, [], 0
    for place, pause in steps:
        now += pause
        counted += sum(count for _, count in limit.over(now))
        if limit.allows(place, place, now):
            written.append((place, now))
    counted += sum(count for _, count in limit.over(now + LONGEST_S))
    assert len(written) + counted == len(steps)
    for place, at in written:
        assert sum(other == place and at <= later < at + WINDOW_S for other, later in written) <= 2 * LINES


def written_of(every_s: float, for_s: float) -> int:
    limit, written = LogRateLimiter[str](), 0
    for number in range(int(for_s / every_s)):
        limit.over(number * every_s)
        written += limit.allows("a", "", number * every_s)
    return written


def test_a_day_of_one_trouble_is_told_ever_more_seldom():
    assert written_of(every_s=1.0, for_s=86_400.0) < 86_400 / LONGEST_S * LINES * 1.1


def test_a_status_line_every_ten_seconds_is_never_left_out():
    assert written_of(every_s=10.0, for_s=86_400.0) == 8_640


@pytest.fixture
def logged():
    """A logger as actors have it, and what it wrote."""
    stream = io.StringIO()
    logger = logging.Logger("actor")
    logger.addHandler(LimitedHandler(stream))
    return logger, stream


def test_a_flood_from_one_place_is_a_few_lines(logged):
    logger, stream = logged
    for number in range(1000):
        logger.error("event %d is refused", number)
    logger.info("another place")
    lines = stream.getvalue().splitlines()
    assert len(lines) == LINES + 1
    assert lines[-1].endswith("INFO actor: another place")


def test_what_was_left_out_is_told_when_the_flood_is_over(logged, monkeypatch):
    logger, stream = logged
    now = 0.0
    monkeypatch.setattr("actors.runtime.log.time.monotonic", lambda: now)
    for number in range(1000):
        logger.error("event %d is refused", number)
    now = WINDOW_S
    logger.info("another place")
    assert (
        stream.getvalue()
        .splitlines()[-2]
        .endswith("ERROR actor: event 999 is refused (the last of 995 like this that are left out)")
    )
