"""What damage to a journal took, against a model that knows every event."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.journal.damage import JournalLoss, JournalLossTracker
from relay.model.position import StoredPosition
from relay.model.record_batch import NO_EVENT_ID, RecordKind
from tests.support.records import encode

EVENTS = 12


def record(number: int, kind: RecordKind = RecordKind.EVENT) -> bytes:
    """Event `number` has this seq and an exchange id ten times as high."""
    event_id = 10 * number if kind is RecordKind.EVENT else NO_EVENT_ID
    return encode(kind, number, 1, number, number, event_id, b"{}")


def lost(tracker: list[JournalLoss], last: int) -> set[int]:
    found: set[int] = set()
    for loss in tracker:
        after = last + 1 if loss.after is None else loss.after.seq
        found |= set(range(max(0, loss.before_id // 10) + 1, after))
    return found


@given(
    damaged=st.sets(st.integers(1, EVENTS)),
    stored=st.integers(0, EVENTS),
    cuts=st.sets(st.integers(1, EVENTS)),
    late=st.booleans(),
)
def test_exactly_what_is_neither_read_back_nor_stored_is_told(
    damaged: set[int], stored: int, cuts: set[int], late: bool
) -> None:
    tracker, told = JournalLossTracker(), []

    def know() -> None:
        if stored:
            tracker.stored(StoredPosition(1, stored, 10 * stored, stored))

    if not late:
        know()
    batch, is_damaged = [], False
    for number in range(1, EVENTS + 1):
        if number in damaged or number in cuts:
            tracker.follow(batch, damaged=is_damaged)
            batch, is_damaged = [], number in damaged
        if number not in damaged:
            batch.append(record(number))
    know()
    tracker.follow(batch, damaged=is_damaged)
    told += tracker.found()
    told += tracker.end()
    assert lost(told, EVENTS) - set(range(1, stored + 1)) == damaged - set(range(1, stored + 1))
    assert all(number in damaged for number in lost(told, EVENTS) if number > stored)


def test_side_records_alone_leave_no_hole() -> None:
    tracker = JournalLossTracker()
    tracker.follow([record(1)], damaged=False)
    tracker.follow([record(1, RecordKind.LOSS), record(2)], damaged=True)
    assert list(tracker.found()) == []


def test_a_hole_is_told_once() -> None:
    tracker = JournalLossTracker()
    tracker.follow([record(1)], damaged=False)
    tracker.follow([record(3)], damaged=True)
    assert [(loss.before_id, loss.after.event_ids[0]) for loss in tracker.found() if loss.after] == [(10, 30)]
    assert list(tracker.found()) == []
    assert list(tracker.end()) == []


def test_the_id_of_a_stored_message_of_someone_else_bounds_a_loss() -> None:
    tracker = JournalLossTracker()
    tracker.follow([record(3)], damaged=True)
    tracker.stored(StoredPosition(event_id=15))
    assert [(loss.before_id, loss.before_ns) for loss in tracker.found()] == [(15, 0)]
