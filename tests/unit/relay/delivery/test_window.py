"""The window against a simple model, and each overflow policy by example."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.delivery.buffered_batch import (
    BATCH_BYTES,
    UNDROPPABLE_SIDE_RECORD,
    BatchFlags,
    BufferedBatch,
)
from relay.delivery.window import Admission, SendWindow
from relay.model.choices import Overflow
from relay.model.position import StoredPosition
from relay.model.record_batch import MAX_RECORDS, NO_EVENT_ID, OVERHEAD_BYTES, RecordKind, encode

EPOCH = 7


def held(
    offset: int,
    count: int = 1,
    *,
    seq: int | None = None,
    kind: RecordKind = RecordKind.EVENT,
    conflatable: bool = False,
    event_id: int = NO_EVENT_ID,
    recv_ns: int = 1000,
) -> BufferedBatch:
    """`count` records from `offset` on; events have that as their seq too, unless another is given."""
    ids = [event_id if event_id == NO_EVENT_ID else event_id + n for n in range(count)]
    encoded = encode(kind, offset, EPOCH, offset if seq is None else seq, recv_ns, ids, [b"x"] * count)
    flags = BatchFlags(is_event=kind is RecordKind.EVENT, conflatable=conflatable)
    return BufferedBatch(offset, count, recv_ns, encoded, flags)


def window(overflow: Overflow, max_messages: int = 3) -> SendWindow:
    return SendWindow(max_messages=max_messages, max_bytes=1 << 20, overflow=overflow)


def offsets(batches: list[BufferedBatch]) -> list[int]:
    """Of all records that are to be sent."""
    return [n for batch in batches for n in range(batch.offset + batch.done, batch.last_offset + 1)]


def balanced(subject: SendWindow) -> bool:
    books = subject.counts
    held_now = subject.queued + subject.in_flight + books.spilled
    return books.received == held_now + books.acknowledged + books.conflated + books.dropped + books.rejected


def test_spill_keeps_order_behind_a_full_memory() -> None:
    subject = window(Overflow.SPILL)
    assert [subject.offer(held(n)) for n in range(1, 6)] == [Admission.KEPT] * 3 + [Admission.SPILLED] * 2
    assert offsets(subject.start_sending(10, 1 << 20)) == [1, 2, 3]
    subject.acknowledge(3)
    assert subject.offer(held(6)) is Admission.SPILLED, "4 and 5 are still on disk alone"
    assert subject.wants_refill()
    subject.refill([held(4).encoded, held(5).encoded, held(6).encoded])
    assert offsets(subject.start_sending(10, 1 << 20)) == [4, 5, 6]
    assert not subject.has_spilled
    assert balanced(subject)


def test_conflate_replaces_the_newest_queued_state_once_memory_is_full() -> None:
    subject = window(Overflow.CONFLATE)
    for n in range(1, 6):
        subject.offer(held(n, conflatable=True))
    assert offsets(subject.start_sending(10, 1 << 20)) == [1, 2, 5]
    assert subject.counts.conflated == 2
    assert balanced(subject)


def test_conflate_never_supersedes_a_closed_candle() -> None:
    subject = window(Overflow.CONFLATE, max_messages=2)
    subject.offer(held(1, conflatable=True))
    subject.offer(held(2, conflatable=False))
    subject.offer(held(3, conflatable=True))
    assert offsets(subject.start_sending(10, 1 << 20)) == [1, 2, 3]
    assert subject.counts.conflated == 0


def test_drop_oldest_never_drops_what_is_in_flight() -> None:
    subject = window(Overflow.DROP_OLDEST)
    for n in range(1, 4):
        subject.offer(held(n))
    subject.start_sending(1, 1 << 20)
    subject.offer(held(4))
    assert subject.in_flight == 1
    assert offsets(subject.start_sending(10, 1 << 20)) == [3, 4]
    assert subject.counts.dropped == 1
    assert balanced(subject)


def test_drop_newest_counts_and_forgets_the_newcomer() -> None:
    subject = window(Overflow.DROP_NEWEST)
    assert [subject.offer(held(n)) for n in range(1, 5)][-1] is Admission.DROPPED
    assert subject.counts.dropped == 1
    assert balanced(subject)


def test_block_takes_what_was_read_and_asks_for_a_pause() -> None:
    subject = window(Overflow.BLOCK)
    for n in range(1, 5):
        subject.offer(held(n))
    assert subject.blocked
    subject.start_sending(10, 1 << 20)
    subject.acknowledge(4)
    assert not subject.blocked


def test_all_that_is_unanswered_waits_as_long_as_its_oldest() -> None:
    subject = window(Overflow.SPILL, max_messages=2)
    assert subject.unanswered(5000) == (0, 0.0)
    for offset in range(1, 5):
        subject.offer(held(offset, recv_ns=1000 * offset))
    subject.start_sending(1, 1 << 20)
    assert (subject.in_flight, subject.queued, subject.counts.spilled) == (1, 1, 2)
    assert subject.unanswered(1_000_001_000) == (4, 1.0)


def test_rewind_and_resume_send_only_what_is_not_stored() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    for n in range(1, 6):
        subject.offer(held(n))
    subject.start_sending(4, 1 << 20)
    subject.rewind()
    subject.resume(StoredPosition(EPOCH, 2))
    assert offsets(subject.start_sending(10, 1 << 20)) == [3, 4, 5]
    assert subject.counts.acknowledged == 2
    assert balanced(subject)


def test_a_side_record_outlives_a_later_stored_event() -> None:
    """Its stream in NATS is another one, so a stored event proves nothing about it."""
    subject = window(Overflow.SPILL, max_messages=10)
    subject.offer(held(1, seq=1))
    subject.offer(held(2, seq=1, kind=RecordKind.REJECTED))
    subject.offer(held(3, seq=2))
    subject.start_sending(10, 1 << 20)
    subject.rewind()
    subject.resume(StoredPosition(EPOCH, 2))
    assert offsets(subject.start_sending(10, 1 << 20)) == [2]


@pytest.mark.parametrize("overflow", [Overflow.DROP_NEWEST, Overflow.DROP_OLDEST, Overflow.BLOCK])
def test_a_full_memory_takes_what_must_be_told_and_no_other_side_record(overflow: Overflow) -> None:
    subject = window(overflow, max_messages=1)
    subject.offer(held(1))
    assert subject.offer(held(2, kind=RecordKind.REJECTED)) is Admission.DROPPED
    assert (
        subject.offer(replace(held(3, kind=RecordKind.LOSS), flags=UNDROPPABLE_SIDE_RECORD)) is Admission.KEPT
    )
    assert offsets(subject.start_sending(10, 1 << 20)) == [1, 3]


def test_what_recovers_from_the_journal_goes_before_what_is_new() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    subject.recover(events=2, acknowledged_offset=4, last_offset=6)
    assert subject.offer(held(7)) is Admission.SPILLED
    assert subject.newest_in_memory == 4
    subject.refill([held(5).encoded, held(6).encoded, held(7).encoded])
    assert offsets(subject.start_sending(10, 1 << 20)) == [5, 6, 7]
    assert subject.counts.recovered == 2
    assert balanced(subject)


def test_events_that_the_journal_lost_are_counted_as_dropped() -> None:
    subject = window(Overflow.SPILL)
    subject.recover(events=3, acknowledged_offset=0, last_offset=3)
    subject.refill([held(1).encoded])
    assert subject.refill_ended() == 2
    assert subject.counts.dropped == 2
    assert not subject.has_spilled
    assert balanced(subject)


def test_a_refused_event_leaves_as_rejected() -> None:
    subject = window(Overflow.SPILL)
    subject.offer(held(1))
    subject.offer(held(2))
    subject.start_sending(2, 1 << 20)
    refused = subject.refuse(1)
    assert refused is not None
    assert refused.offset == 1
    assert subject.refuse(1) is None
    assert subject.counts.rejected == 1
    assert balanced(subject)


def test_what_is_taken_goes_over_its_limits_by_one_batch_at_the_most() -> None:
    subject = window(Overflow.SPILL, max_messages=100)
    for n in range(1, 22, 5):
        subject.offer(held(n, 5))
    assert offsets(subject.start_sending(1, 1 << 20)) == [1, 2, 3, 4, 5]
    assert offsets(subject.start_sending(6, 1 << 20)) == list(range(6, 16))
    assert offsets(subject.start_sending(100, OVERHEAD_BYTES)) == list(range(16, 21))


@pytest.mark.parametrize(
    ("overflow", "when_full"),
    [
        (Overflow.SPILL, MAX_RECORDS), (Overflow.BLOCK, MAX_RECORDS), (Overflow.CONFLATE, 1),
        (Overflow.DROP_OLDEST, 1), (Overflow.DROP_NEWEST, 1),
    ],
)  # fmt: skip
def test_a_batch_is_as_large_as_the_policy_treats_alike(overflow: Overflow, when_full: int) -> None:
    subject = window(overflow, max_messages=3)
    assert subject.max_batch_records == (MAX_RECORDS if overflow is Overflow.BLOCK else 3)
    subject.offer(held(1, 2))
    assert subject.max_batch_records == (MAX_RECORDS if overflow is Overflow.BLOCK else 1)
    subject.offer(held(3))
    assert subject.max_batch_records == when_full


def test_a_part_of_a_batch_may_be_acknowledged_and_the_rest_sent_again() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    subject.offer(held(1, 5, recv_ns=70))
    subject.start_sending(10, 1 << 20)
    assert subject.acknowledge(2) == [(70, 2)]
    assert (subject.in_flight, subject.in_flight_records, subject.settled_offset()) == (3, 3, 2)
    subject.rewind()
    subject.resume(StoredPosition(EPOCH, 4))
    assert offsets(subject.start_sending(10, 1 << 20)) == [5]
    assert subject.acknowledge(5) == [(70, 1)]
    assert subject.empty
    assert subject.memory_bytes == subject.in_flight_bytes == 0
    assert balanced(subject)


def test_the_last_acknowledged_event_is_told_record_by_record() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    assert subject.last_acknowledged is None
    subject.offer(held(1, 3, event_id=50))
    subject.start_sending(10, 1 << 20)
    subject.acknowledge(2)
    last = subject.last_acknowledged
    assert last is not None
    assert (last.seq, last.event_ids[0]) == (2, 51)


def test_the_oldest_and_the_newest_of_a_batch_leave_alone() -> None:
    oldest, newest = window(Overflow.DROP_OLDEST, 3), window(Overflow.CONFLATE, 3)
    for subject in (oldest, newest):
        subject.offer(held(1, 3, conflatable=True))
        subject.offer(held(4, conflatable=True))
        assert balanced(subject)
    assert offsets(oldest.start_sending(10, 1 << 20)) == [2, 3, 4]
    assert offsets(newest.start_sending(10, 1 << 20)) == [1, 2, 4]


def test_a_refused_event_leaves_its_batch_and_the_others_stay() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    subject.offer(held(1))
    subject.offer(held(2, 3, event_id=50))
    subject.start_sending(10, 1 << 20)
    refused = subject.refuse(3)
    assert refused is not None
    assert (refused.offset, refused.event_ids[0], len(refused)) == (3, 51, 1)
    assert balanced(subject)
    subject.rewind()
    assert offsets(subject.start_sending(10, 1 << 20)) == [1, 2, 4]
    assert [count for _, count in subject.acknowledge(4)] == [1, 1, 1]
    assert balanced(subject)
    assert (subject.memory_bytes, subject.in_flight_records) == (0, 0)


def test_a_batch_of_which_the_journal_gives_back_a_part_goes_on_there() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    subject.recover(events=3, acknowledged_offset=2, last_offset=5)
    subject.refill([held(1, 5).encoded])
    assert (subject.queued, subject.counts.spilled) == (3, 0)
    assert offsets(subject.start_sending(10, 1 << 20)) == [3, 4, 5]
    assert balanced(subject)


def test_of_a_batch_that_was_stored_in_part_the_rest_is_sent() -> None:
    """By its ids: the incarnation that stored the first two had another epoch."""
    subject = window(Overflow.SPILL, max_messages=10)
    subject.resume(StoredPosition(EPOCH - 1, 900, 51, 105 * SECOND))
    subject.offer(held(1, 4, event_id=50, recv_ns=100 * SECOND))
    assert offsets(subject.start_sending(10, 1 << 20)) == [3, 4]
    assert subject.counts.acknowledged == 2
    assert balanced(subject)


SECOND = 1_000_000_000


def test_what_an_earlier_incarnation_stored_meanwhile_is_not_sent_again() -> None:
    """It was taken for dead and read on, under an older epoch; here it stored up to id 51."""
    subject = window(Overflow.SPILL, max_messages=10)
    subject.offer(held(1, seq=1, kind=RecordKind.LOSS))
    for n in range(2, 5):
        subject.offer(held(n, event_id=48 + n, recv_ns=100 * SECOND + n))
    subject.start_sending(10, 1 << 20)
    subject.rewind()
    subject.resume(StoredPosition(EPOCH - 1, 900, 51, 105 * SECOND))
    subject.offer(held(5, event_id=51, recv_ns=101 * SECOND))
    subject.offer(held(6, event_id=53, recv_ns=101 * SECOND))
    assert offsets(subject.start_sending(10, 1 << 20)) == [1, 4, 6]
    assert subject.counts.acknowledged == 3
    assert balanced(subject)


def test_low_ids_of_an_exchange_that_counts_anew_are_sent() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    for n in range(1, 4):
        subject.offer(held(n, event_id=n, recv_ns=200 * SECOND))
    subject.resume(StoredPosition(EPOCH - 1, 900, 1_000_000, 100 * SECOND))
    assert offsets(subject.start_sending(10, 1 << 20)) == [1, 2, 3]


def test_the_limit_is_one_of_memory_and_not_of_payloads_alone() -> None:
    limit_bytes = 1 << 20
    subject = SendWindow(max_messages=1_000_000, max_bytes=limit_bytes, overflow=Overflow.SPILL)
    tracemalloc.start()
    try:
        before_bytes, _ = tracemalloc.get_traced_memory()
        n = 1 << 32
        while not subject.full:
            n += 1
            subject.offer(held(n))
        taken_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
    finally:
        tracemalloc.stop()
    assert 0.7 * limit_bytes < taken_bytes < 1.1 * limit_bytes


class SpillingWindow(RuleBasedStateMachine):
    """A list of all records is the model: what was offered leaves acknowledged, once, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.subject = SendWindow(max_messages=6, max_bytes=900 + 3 * BATCH_BYTES, overflow=Overflow.SPILL)
        self.journal: list[BufferedBatch] = []
        self.offered = 0
        self.acknowledged = 0
        self.sent: list[int] = []

    @rule(count=st.integers(1, 5))
    def offer(self, count: int) -> None:
        batch = held(self.offered + 1, min(count, self.subject.max_batch_records))
        self.offered += batch.count
        self.journal.append(batch)
        assert self.subject.offer(replace(batch)) is not Admission.DROPPED

    @rule(count=st.integers(1, 6))
    def take(self, count: int) -> None:
        for offset in offsets(self.subject.start_sending(count, 300)):
            assert offset == (self.sent[-1] if self.sent else self.acknowledged) + 1
            self.sent.append(offset)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.sent))
        done = sum(count for _, count in self.subject.acknowledge(offset))
        assert done == offset - self.acknowledged
        self.sent = [each for each in self.sent if each > offset]
        self.acknowledged = offset

    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        """NATS may have stored any prefix of what was sent before the link broke."""
        stored = data.draw(st.sampled_from([self.acknowledged, *self.sent]))
        self.subject.rewind()
        self.subject.resume(StoredPosition(EPOCH, stored))
        self.acknowledged = stored
        self.sent = []

    @precondition(lambda self: self.subject.wants_refill())
    @rule(count=st.integers(1, 8))
    def refill(self, count: int) -> None:
        after = self.subject.newest_in_memory
        wanted = [batch.encoded for batch in self.journal if batch.last_offset > after]
        self.subject.refill(wanted[:count])

    @invariant()
    def books_balance(self) -> None:
        assert balanced(self.subject)
        assert self.subject.counts.acknowledged == self.acknowledged
        assert self.subject.counts.received == self.offered

    @invariant()
    def memory_is_exact_and_in_order(self) -> None:
        inside = [*self.subject._in_flight, *self.subject._queued]
        first = self.acknowledged + 1
        assert offsets(inside) == list(range(first, first + len(offsets(inside))))
        assert self.subject.memory_bytes == sum(BATCH_BYTES + len(batch.encoded) for batch in inside)
        assert self.subject.in_flight_bytes == sum(len(batch.encoded) for batch in self.subject._in_flight)
        assert (self.subject.queued, self.subject.in_flight) == (
            len(offsets(list(self.subject._queued))), len(self.sent)
        )  # fmt: skip

    @invariant()
    def the_journal_may_forget_only_what_left(self) -> None:
        assert self.subject.settled_offset() <= self.acknowledged


TestSpillingWindow = SpillingWindow.TestCase
TestSpillingWindow.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
