"""Records get their numbers in order, however they come, and leave in batches that the window takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery.window import SendWindow
from relay.intake.sequencer import Sequencer
from relay.model.choices import Overflow
from relay.model.record_batch import FULL_BYTES, MAX_RECORDS, NO_EVENT_ID, RecordKind, decode
from tests.support.records import read_records

EPOCH = 5


def sequencer(max_messages: int = 1000, overflow: Overflow = Overflow.SPILL) -> tuple[Sequencer, SendWindow]:
    window = SendWindow(max_messages=max_messages, max_bytes=1 << 24, overflow=overflow)
    return Sequencer(window, EPOCH, 40), window


def sizes(journal: bytes) -> list[int]:
    """Records in each batch."""
    found, at = [], 0
    while at < len(journal):
        batch, at = decode(journal, at, check=True)
        found.append(len(batch))
    return found


def test_events_and_side_records_are_numbered_in_the_order_of_coming() -> None:
    subject, _ = sequencer()
    subject.append_event(RecordKind.EVENT, 1, 7, b"a", False)
    subject.append_event(RecordKind.EVENT, 1, 8, b"b", False)
    subject.append_side_record(RecordKind.LOSS, 2, b"{}")
    subject.append_events(RecordKind.EVENT, 3, False, [9, 10], [b"c", b"d"])
    journal, last_offset = subject.flush()
    read = read_records(journal)
    assert [(each.kind, each.offset, each.seq) for each in read] == [
        (RecordKind.EVENT, 41, 1),
        (RecordKind.EVENT, 42, 2),
        (RecordKind.LOSS, 43, 2),
        (RecordKind.EVENT, 44, 3),
        (RecordKind.EVENT, 45, 4),
    ]
    assert last_offset == 45
    assert sizes(journal) == [2, 1, 2]


def test_what_has_ended_is_not_told_again() -> None:
    subject, _ = sequencer()
    subject.append_event(RecordKind.EVENT, 1, 7, b"a", False)
    subject.flush()
    assert subject.flush() == (b"", 41)


@pytest.mark.parametrize(
    "other",
    [
        (RecordKind.HEALED, 1, 8, b"b", False),
        (RecordKind.EVENT, 2, 8, b"b", False),
        (RecordKind.EVENT, 1, 8, b"b", True),
        (RecordKind.EVENT, 1, 7, b"b", False),
        (RecordKind.EVENT, 1, 3, b"b", False),
    ],
    ids=["kind", "time", "conflatable", "same id", "lower id"],
)
def test_a_batch_holds_what_is_alike_with_rising_ids(other: tuple[RecordKind, int, int, bytes, bool]) -> None:
    subject, _ = sequencer()
    subject.append_event(RecordKind.EVENT, 1, 7, b"a", False)
    subject.append_event(*other)
    assert sizes(subject.flush()[0]) == [1, 1]


def test_a_batch_closes_when_it_is_full() -> None:
    subject, _ = sequencer()
    count = 2 * MAX_RECORDS + 1
    subject.append_events(RecordKind.EVENT, 1, False, [NO_EVENT_ID] * count, [b"x"] * count)
    assert sizes(subject.flush()[0]) == [MAX_RECORDS, MAX_RECORDS, 1]
    subject.append_events(RecordKind.EVENT, 2, False, [NO_EVENT_ID] * 4, [b"x" * (FULL_BYTES // 2 + 1)] * 4)
    assert sizes(subject.flush()[0]) == [1, 1, 1, 1]


def test_what_the_policy_drops_is_not_journalled_and_keeps_its_numbers() -> None:
    subject, window = sequencer(2, Overflow.DROP_NEWEST)
    subject.append_events(RecordKind.EVENT, 1, False, [1, 2, 3, 4], [b"a", b"b", b"c", b"d"])
    journal, last_offset = subject.flush()
    assert [each.event_id for each in read_records(journal)] == [1, 2]
    assert (last_offset, window.counts.dropped) == (44, 2)


def test_a_batch_that_is_not_offered_is_numbered_like_any() -> None:
    subject, window = sequencer()
    batch = subject.batch(3, False, [7, 8], [b"a", b"b"])
    assert (batch.offset, batch.count, batch.last_offset, window.queued) == (41, 2, 42, 0)
    subject.append_event(RecordKind.EVENT, 4, 9, b"c", False)
    (after,) = read_records(subject.flush()[0])
    assert (after.offset, after.seq) == (43, 3)


# Events of the feed twice, since they are the most.
EVENTFUL = (RecordKind.EVENT, RecordKind.EVENT, RecordKind.HEALED)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*EVENTFUL, RecordKind.LOSS, RecordKind.REJECTED]),
            st.integers(1, 3), st.booleans(), st.binary(max_size=200),
        ),
        max_size=60,
    ),
    st.integers(1, 30),
)  # fmt: skip
def test_every_record_is_journalled_once_and_in_order(
    records: list[tuple[RecordKind, int, bool, bytes]], max_messages: int
) -> None:
    subject, window = sequencer(max_messages)
    for number, (kind, recv_ns, conflatable, payload) in enumerate(records):
        if kind in (RecordKind.LOSS, RecordKind.REJECTED):
            subject.append_side_record(kind, recv_ns, payload)
        else:
            subject.append_event(kind, recv_ns, number, payload, conflatable)
    journal, last_offset = subject.flush()
    read = read_records(journal)
    assert [(each.kind, each.recv_ns, each.payload) for each in read] == [
        (kind, recv_ns, payload) for kind, recv_ns, _, payload in records
    ]
    assert [each.offset for each in read] == list(range(41, 41 + len(records)))
    events = [each for each in read if each.kind in (RecordKind.EVENT, RecordKind.HEALED)]
    assert [each.seq for each in events] == list(range(1, len(events) + 1))
    assert window.counts.received == len(events)
    assert last_offset == 40 + len(records)
