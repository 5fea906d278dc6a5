"""Which events were accepted, and what is missing before the next one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.binance.classifier import Classification, PayloadClass
from relay.intake.gap_tracker import MAX_RUNS, GapTracker, Interruption
from relay.journal.damage import JournalLoss
from relay.model.gap import Gap, LossCause
from relay.model.record_batch import NO_EVENT_ID

SECOND = 1_000_000_000


def event(event_id: int) -> Classification:
    return Classification(PayloadClass.ACCEPTED, event_id, event_id - 1)


def accept(tracker: GapTracker, event_id: int, at: int = SECOND) -> Gap | Interruption | None:
    missing = tracker.missing_before(b"{}", at, event(event_id))
    tracker.accepted(b"{}", at, event(event_id))
    return missing


def ids(missing: Gap | Interruption | None) -> tuple[int, int]:
    assert isinstance(missing, Gap)
    return missing.first_id, missing.last_id


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_while_ids_rise_one_is_a_repeat_exactly_if_it_was_accepted_before(arriving: list[int]) -> None:
    tracker, accepted = GapTracker(), set[int]()
    for event_id in arriving:
        assert tracker.is_repeat(event_id) is (event_id in accepted)
        if event_id > max(accepted, default=0):
            accept(tracker, event_id)
            accepted.add(event_id)


def test_an_exchange_that_counts_anew_repeats_nothing_by_its_higher_ids() -> None:
    tracker = GapTracker()
    accept(tracker, 100)
    assert accept(tracker, 1) is None
    assert not tracker.is_repeat(2)


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), max_size=20))
def test_extending_by_a_read_leaves_the_same_as_accepting_each_of_its_events(reads: list[list[int]]) -> None:
    fast, slow = GapTracker(), GapTracker()
    for tracker in (fast, slow):
        accept(tracker, 1)
    for read in reads:
        if fast.extend(read, b"{}", SECOND):
            assert [accept(slow, event_id) for event_id in read] == [None] * len(read)
    for event_id in range(14):
        assert fast.is_repeat(event_id) is slow.is_repeat(event_id)


@pytest.mark.parametrize("read", [[3], [1], [2, 4], [2, 2], [2, 3, 3]])
def test_a_read_that_is_not_certainly_the_next_one_changes_nothing(read: list[int]) -> None:
    tracker = GapTracker()
    accept(tracker, 1)
    assert not tracker.extend(read, b"{}", SECOND)
    assert tracker.extend([2], b"{}", SECOND)


def test_the_first_event_is_never_accepted_unseen() -> None:
    assert not GapTracker(7).extend([8], b"{}", SECOND)


def test_ids_that_are_passed_over_are_a_gap_of_the_exchange_while_connected() -> None:
    tracker = GapTracker()
    accept(tracker, 7, at=SECOND)
    missing = accept(tracker, 10, at=3 * SECOND)
    assert ids(missing) == (8, 9)
    assert isinstance(missing, Gap)
    assert (missing.cause, missing.from_ns, missing.to_ns) == (LossCause.UPSTREAM, SECOND, 3 * SECOND)


def test_a_gap_over_a_disconnection_is_caused_by_it() -> None:
    tracker = GapTracker()
    accept(tracker, 7)
    tracker.disconnected()
    tracker.disconnected(9 * SECOND)
    missing = accept(tracker, 9, at=5 * SECOND)
    assert isinstance(missing, Gap)
    assert (missing.cause, missing.from_ns) == (LossCause.DISCONNECT, SECOND)


def test_without_ids_a_disconnection_is_an_interruption() -> None:
    tracker, plain = GapTracker(), Classification(PayloadClass.ACCEPTED)
    assert tracker.missing_before(b"{}", SECOND, plain) is None
    tracker.accepted(b"{}", SECOND, plain)
    tracker.disconnected()
    assert not tracker.extend([NO_EVENT_ID], b"{}", 2 * SECOND)
    missing = tracker.missing_before(b"{}", 2 * SECOND, plain)
    assert missing == Interruption(LossCause.DISCONNECT, SECOND, 2 * SECOND)
    tracker.accepted(b"{}", 2 * SECOND, plain)
    assert tracker.extend([NO_EVENT_ID], b"{}", 3 * SECOND)


def test_a_clock_that_was_set_back_lengthens_the_time_of_a_gap_on_both_sides() -> None:
    tracker = GapTracker()
    accept(tracker, 7, at=10 * SECOND)
    tracker.clock_set_back(4 * SECOND)
    assert not tracker.extend([8], b"{}", 7 * SECOND)
    missing = accept(tracker, 9, at=7 * SECOND)
    assert isinstance(missing, Gap)
    assert (missing.from_ns, missing.to_ns) == (6 * SECOND, 11 * SECOND)


def test_what_a_backfill_gives_closes_the_gap_that_it_fills() -> None:
    tracker = GapTracker(7)
    for event_id in (8, 9):
        tracker.filled(b"{}", SECOND, event_id)
    tracker.close_gap(9)
    assert accept(tracker, 10) is None
    assert tracker.is_repeat(8)


def test_ids_that_a_backfill_does_not_give_are_no_repeats_later() -> None:
    tracker = GapTracker()
    accept(tracker, 7)
    tracker.close_gap(9)
    assert accept(tracker, 10) is None
    assert not tracker.is_repeat(8)
    assert tracker.is_repeat(7)


@pytest.mark.parametrize(
    ("stored_id", "missing"),
    [
        (5, None),
        (3, (4, 5)),
        (NO_EVENT_ID, Interruption(LossCause.DISCONNECT, SECOND, 2 * SECOND)),
    ],
)
def test_what_is_missing_after_the_last_event_that_nats_has(stored_id: int, missing: object) -> None:
    tracker = GapTracker()
    accept(tracker, 6, at=2 * SECOND)
    found = tracker.missing_after_predecessor(stored_id, SECOND)
    assert (ids(found) if isinstance(found, Gap) else found) == missing


def test_before_the_first_event_the_stored_one_is_its_predecessor() -> None:
    tracker = GapTracker()
    assert tracker.missing_after_predecessor(5, SECOND) is None
    assert ids(accept(tracker, 8)) == (6, 7)


@pytest.mark.parametrize(
    ("before_id", "missing"),
    [(9, None), (4, (5, 9)), (NO_EVENT_ID, Interruption(LossCause.JOURNAL, 3 * SECOND, 2 * SECOND))],
)
def test_damage_at_the_end_of_the_journal_took_what_came_since(before_id: int, missing: object) -> None:
    tracker = GapTracker()
    accept(tracker, 9, at=2 * SECOND)
    found = tracker.missing_in_journal(JournalLoss(before_id, 3 * SECOND, None), NO_EVENT_ID)
    assert (ids(found) if isinstance(found, Gap) else found) == missing


def test_runs_that_are_forgotten_take_a_bounded_memory() -> None:
    tracker = GapTracker()
    for event_id in range(1, 4 * MAX_RUNS, 2):
        accept(tracker, event_id)
    assert tracker._earlier_runs.runs <= MAX_RUNS
    assert tracker.is_repeat(4 * MAX_RUNS - 1)
