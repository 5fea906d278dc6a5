"""Which of two sockets goes on, by what they brought and when."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.feed.handover import (
    GRACE_S,
    LAG_S,
    STAGGER,
    ConnectionHandover,
    HandoverCause,
    HandoverOutcome,
    rotation_age_s,
)
from relay.feed.overlap import Overlap
from relay.feed.timing import DEFAULT_TIMING

OPENED = 100.0


def handover(
    cause: HandoverCause = HandoverCause.AGE, limit_s: float | None = 30.0, *, unique: bool = True
) -> ConnectionHandover:
    made = ConnectionHandover(Overlap(lambda payload: payload, unique=unique), cause, limit_s)
    made.opened(OPENED)
    return made


def test_a_successor_joins_once_both_brought_the_same_event():
    one = handover()
    one.old_heard([b"1", b"2"], OPENED + 0.1)
    assert one.outcome(OPENED + 0.1) is None
    one.new_heard([b"2"], 1, OPENED + 0.2)
    assert one.outcome(OPENED + 0.2) is HandoverOutcome.JOIN


def test_a_deaf_successor_is_not_taken():
    one = handover()
    one.old_heard([b"1"], OPENED + 1)
    assert one.outcome(OPENED + DEFAULT_TIMING.successor_data_s - 1) is None
    assert one.outcome(OPENED + DEFAULT_TIMING.successor_data_s) is HandoverOutcome.KEEP


def test_when_both_are_silent_there_is_nothing_to_align():
    one = handover(limit_s=None)
    one.old_heard([b"1"], OPENED - 1)
    assert one.outcome(OPENED + DEFAULT_TIMING.successor_data_s) is HandoverOutcome.JOIN


def test_an_old_socket_that_fell_silent_during_a_rotation_holds_nothing_up():
    one = handover()
    one.new_heard([b"5"], 1, OPENED + 1)
    assert one.outcome(OPENED + 1 + LAG_S / 2) is None
    assert one.outcome(OPENED + 1 + LAG_S) is HandoverOutcome.REPLACE


def test_two_sockets_that_send_different_things_are_given_up():
    one = handover(limit_s=2.0)
    one.new_heard([b"a"], 1, OPENED + 1)
    one.old_heard([b"x"], OPENED + 1.5)
    assert one.outcome(OPENED + DEFAULT_TIMING.align_s) is None
    assert one.outcome(OPENED + 1 + DEFAULT_TIMING.align_s) is HandoverOutcome.UNALIGNED


def test_one_event_of_a_slow_stream_is_match_enough_when_no_second_comes():
    one = handover(limit_s=2.0, unique=False)
    one.old_heard([b"a"], OPENED + 1)
    one.new_heard([b"a"], 1, OPENED + 1)
    assert one.outcome(OPENED + 2) is None
    assert one.outcome(OPENED + 1 + DEFAULT_TIMING.align_s) is HandoverOutcome.JOIN


def test_an_old_socket_that_ended_is_joined_where_the_successor_still_shows_it():
    one = handover(HandoverCause.SHUTDOWN, unique=False)
    one.old_heard([b"1", b"2"], OPENED + 0.1)
    one.old_ended(OPENED + 0.2)
    assert one.outcome(OPENED + 0.3) is None
    one.new_heard([b"2"], 1, OPENED + 0.4)
    assert one.outcome(OPENED + 0.4) is HandoverOutcome.JOIN


def test_an_old_socket_that_ended_before_the_successor_opened_leaves_a_possible_hole():
    one = handover(HandoverCause.SHUTDOWN, unique=False)
    one.old_heard([b"1"], OPENED - 2)
    one.old_ended(OPENED - 1)
    one.new_heard([b"5"], 1, OPENED + 1)
    assert one.outcome(OPENED + 1) is HandoverOutcome.REPLACE


def test_a_silence_side_by_side_leaves_no_hole():
    one = handover(HandoverCause.SHUTDOWN, unique=False)
    one.old_heard([b"1"], OPENED - 1)
    one.old_ended(OPENED + GRACE_S)
    one.new_heard([b"5"], 1, OPENED + 1)
    assert one.outcome(OPENED + 1) is HandoverOutcome.JOIN


def test_an_orphan_waits_for_its_first_event_but_not_for_ever():
    one = handover(HandoverCause.SHUTDOWN)
    one.old_heard([b"1"], OPENED + 0.1)
    one.old_ended(OPENED + 0.2)
    assert one.outcome(OPENED + DEFAULT_TIMING.successor_data_s - 1) is None
    assert one.outcome(OPENED + DEFAULT_TIMING.successor_data_s) is HandoverOutcome.REPLACE


def test_a_witness_that_hears_what_the_old_one_does_not_takes_over():
    one = handover(HandoverCause.SILENCE)
    one.new_heard([b"5"], 1, OPENED + 1)
    assert one.outcome(OPENED + 1 + GRACE_S / 2) is None, "the old one may bring it in a moment"
    assert one.outcome(OPENED + 1 + GRACE_S) is HandoverOutcome.REPLACE


def test_a_witness_is_dismissed_when_the_old_one_speaks():
    one = handover(HandoverCause.SILENCE)
    one.new_heard([b"5"], 1, OPENED + 1)
    one.old_heard([b"5"], OPENED + 1.1)
    assert one.outcome(OPENED + 1.1) is HandoverOutcome.KEEP


@pytest.mark.parametrize(
    ("limit_s", "listens_s"), [(2.0, 2.0), (5.0, 5.0), (30.0, DEFAULT_TIMING.max_probe_s)]
)
def test_a_probe_that_is_silent_too_says_that_the_market_is_quiet(limit_s: float, listens_s: float):
    one = handover(HandoverCause.SILENCE, limit_s)
    assert one.outcome(OPENED + listens_s - 0.1) is None
    assert one.outcome(OPENED + listens_s) is HandoverOutcome.QUIET


def test_what_is_no_event_proves_nothing():
    one = ConnectionHandover(Overlap(lambda _: None, unique=True), HandoverCause.SILENCE, 2.0)
    one.opened(OPENED)
    assert one.new_heard([b"ack"], 1, OPENED + 0.1) == [b"ack"]
    one.old_heard([b"pong"], OPENED + 0.2)
    assert one.outcome(OPENED + 2.0) is HandoverOutcome.QUIET


def test_rotations_are_spread_the_same_way_every_time():
    ages = [rotation_age_s(f"usdm:s{number}@trade", 1000.0) for number in range(200)]
    assert ages == [rotation_age_s(f"usdm:s{number}@trade", 1000.0) for number in range(200)]
    assert all(1000.0 * (1 - STAGGER) <= age <= 1000.0 for age in ages)
    tenths = [sum(910 + 10 * n > age >= 900 + 10 * n for age in ages) for n in range(10)]
    assert min(tenths) >= 8, "no two connections in ten have to be replaced together"


class Exchange:
    """Sends one event at each of `times_s`; a socket gets each after its own delay, up to when it dies."""

    def __init__(self, times_s: list[float], opened_s: float, old_dies_s: float | None) -> None:
        self.events = [(at, b"%d" % number) for number, at in enumerate(times_s)]
        self.opened_s = opened_s
        self.old_dies_s = old_dies_s

    def arrivals(self, delays_s: list[float], *, new: bool) -> list[tuple[float, bool, bytes]]:
        """In the order of sending: a later event never arrives before an earlier one."""
        arrived, last = [], 0.0
        for (at, payload), delay_s in zip(self.events, delays_s, strict=True):
            last = max(last, at + delay_s)
            if new and at >= self.opened_s:
                arrived.append((max(last, self.opened_s), True, payload))
            elif not new and (self.old_dies_s is None or at < self.old_dies_s):
                arrived.append((last, False, payload))
        return arrived


@settings(max_examples=150)
@given(st.lists(st.integers(1, 3000), min_size=3, max_size=40, unique=True), st.data())
def test_a_rotation_of_living_sockets_neither_loses_nor_repeats(times_ms: list[int], data: st.DataObject):
    """With the delays of two routes to one exchange, below the least of the limits."""
    times_s = [at / 1000 for at in sorted(times_ms)]
    delays = st.lists(st.floats(0.0, 0.4), min_size=len(times_s), max_size=len(times_s))
    exchange = Exchange(times_s, data.draw(st.floats(0.0, 3.0)), None)
    arrivals = exchange.arrivals(data.draw(delays), new=False)
    arrivals += exchange.arrivals(data.draw(delays), new=True)
    one = ConnectionHandover(
        Overlap(lambda payload: payload, unique=data.draw(st.booleans())), HandoverCause.AGE, 2.0
    )
    taken: list[bytes] = []
    outcome = None
    for at, on_new, payload in sorted(arrivals, key=lambda arrival: arrival[0]):
        if at >= exchange.opened_s and outcome is None:
            one.opened(exchange.opened_s)
            outcome = one.outcome(at)
            if outcome is not None:
                assert outcome is HandoverOutcome.JOIN
                taken += [each for read in one.overlap.events_after_old() for each in read.payloads]
        if outcome is not None:
            taken += one.overlap.drop_delivered([payload]) if on_new else []
        elif on_new:
            one.new_heard([payload], 1, at)
        else:
            one.old_heard([payload], at)
            taken.append(payload)
    assert taken == [payload for _, payload in exchange.events]
