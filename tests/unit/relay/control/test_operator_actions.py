"""What people may change, and how it is kept."""

from __future__ import annotations

import pytest

from relay.control.operator_actions import (
    apply_summary,
    display_name,
    publisher_name,
    resolve_stream,
    still_stopped,
    with_change,
)
from relay.control.store import CHANGES_KEPT
from relay.errors import UsageError
from relay.model.stats import StoppedStream

KEYS = ("usdm:btcusdt@trade", "spot:btcusdt@trade", "usdm:ethusdt@trade")


@pytest.mark.parametrize("text", ["usdm:ethusdt@trade", "ethusdt@trade"])
def test_a_stream_may_be_named_without_its_venue(text):
    assert resolve_stream(text, KEYS) == "usdm:ethusdt@trade"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("btcusdt@trade", "more than one venue; write usdm:btcusdt@trade or spot:btcusdt@trade"),
        ("dogeusdt@trade", "there is no stream dogeusdt@trade; there are spot:btcusdt@trade"),
        ("x" * 500, "…; there are"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(text, says):
    with pytest.raises(UsageError, match=says):
        resolve_stream(text, KEYS)


def test_a_publisher_that_does_not_run_is_refused_with_those_that_do():
    assert publisher_name("p1", ["p0", "p1"]) == "p1"
    with pytest.raises(UsageError, match="there is no publisher p7; there are p0, p1"):
        publisher_name("p7", ["p1", "p0"])


def test_long_lists_are_cut():
    with pytest.raises(UsageError, match=r"and 80 more$"):
        publisher_name("x", [f"p{number}" for number in range(100)])


@pytest.mark.parametrize(
    ("given", "kept"),
    [("ann", "ann"), ("", "somebody"), (" \x1b[31m\n", "[31m"), ("x" * 999, "x" * 79 + "…")],
)
def test_names_are_one_printable_line(given, kept):
    assert display_name(given) == kept


def test_the_last_changes_are_kept():
    changes = ()
    for number in range(CHANGES_KEPT + 5):
        changes = with_change(changes, "ann", f"publishers set to {number}", number)
    assert len(changes) == CHANGES_KEPT
    assert (changes[0].at_ns, changes[-1].at_ns) == (5, CHANGES_KEPT + 4)


def test_a_configuration_of_many_differences_is_told_in_a_few():
    assert apply_summary(["a", "b"]) == "configuration applied: a; b"
    assert apply_summary(list("abcdef")) == "configuration applied: a; b; c; d; and 2 more"
    long = with_change((), "ann", apply_summary(["x" * 5000]), 1)
    assert len(long[0].what) <= 300


def test_another_configuration_leaves_stopped_what_it_does_not_touch():
    stopped = {key: StoppedStream(key=key, who="ann", at_ns=1) for key in KEYS}
    assert still_stopped(stopped, {KEYS[0], "usdm:new@trade"}).keys() == {KEYS[0]}
