"""What an actor's log says of lines that it leaves out."""

from __future__ import annotations

import io
import logging

import pytest

from actors.runtime.log import LimitedHandler
from relay.primitives.log_rate_limit import LINES, WINDOW_S


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
