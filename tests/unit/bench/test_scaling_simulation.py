"""A few hours of a small relay, with a flood and a failure an hour: what `bench.scaling_simulation` shows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.scaling_simulation import Course, picture, simulate

HOURS, STREAMS, PUBLISHERS = 4, 120, 20


@pytest.fixture(scope="module")
def course() -> Course:
    return simulate(STREAMS, PUBLISHERS, HOURS, mean_per_s=600.0)


def test_the_pool_follows_the_demand_and_does_not_swing(course: Course) -> None:
    figures = course.figures()
    assert figures["turns"] <= 3 * HOURS, "a flood an hour: up, down, and up again for the day's own course"
    assert figures["fewest_publishers"] < figures["most_publishers"] <= PUBLISHERS


def test_nobody_starves(course: Course) -> None:
    figures = course.figures()
    assert figures["longest_backlog_s"] < 30
    assert figures["share_of_looks_with_1_s_of_backlog"] < 0.05


def test_moves_are_few(course: Course) -> None:
    assert 0 < course.figures()["moves_per_stream_and_hour"] < 3
    assert course.failovers > 0, "nothing failed"


def test_the_day_is_the_same_every_time(course: Course) -> None:
    again = simulate(STREAMS, PUBLISHERS, HOURS, mean_per_s=600.0)
    assert again.samples == course.samples
    assert again.moves == course.moves


def test_the_picture_is_a_document(course: Course) -> None:
    root = ElementTree.fromstring(picture(course, "a machine"))
    assert root.tag.endswith("svg")
