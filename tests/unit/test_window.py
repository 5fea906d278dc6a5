"""The window against a simple model, and each overflow policy by example."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay.config import Overflow
from relay.record import NO_EVENT_ID, OVERHEAD_BYTES, Kind, decode, encode
from relay.window import RECORD_BYTES, Admission, Held, Window

EPOCH = 7


def held(offset: int, *, seq: int | None = None, kind: Kind = Kind.EVENT, conflatable: bool = False) -> Held:
    encoded = encode(kind, offset, EPOCH, offset if seq is None else seq, 1000 + offset, NO_EVENT_ID, b"x")
    return Held(offset, 1000 + offset, encoded, kind is Kind.EVENT, conflatable)


def window(overflow: Overflow, max_messages: int = 3) -> Window:
    return Window(max_messages=max_messages, max_bytes=1 << 20, overflow=overflow)


def offsets(batch: list[Held]) -> list[int]:
    return [record.offset for record in batch]


def balanced(subject: Window) -> bool:
    books = subject.books
    held_now = subject.queued + subject.in_flight + books.spilled
    return books.received == held_now + books.acknowledged + books.conflated + books.dropped + books.rejected


def test_spill_keeps_order_behind_a_full_memory() -> None:
    subject = window(Overflow.SPILL)
    assert [subject.offer(held(n)) for n in range(1, 6)] == [Admission.KEPT] * 3 + [Admission.SPILLED] * 2
    assert offsets(subject.take(10, 1 << 20)) == [1, 2, 3]
    subject.acknowledge(3)
    assert subject.offer(held(6)) is Admission.SPILLED, "4 and 5 are still on disk alone"
    assert subject.wants_refill()
    subject.refill([held(4).encoded, held(5).encoded, held(6).encoded])
    assert offsets(subject.take(10, 1 << 20)) == [4, 5, 6]
    assert not subject.has_spilled
    assert balanced(subject)


def test_conflate_replaces_the_newest_queued_state_once_memory_is_full() -> None:
    subject = window(Overflow.CONFLATE)
    for n in range(1, 6):
        subject.offer(held(n, conflatable=True))
    assert offsets(subject.take(10, 1 << 20)) == [1, 2, 5]
    assert subject.books.conflated == 2
    assert balanced(subject)


def test_conflate_never_supersedes_a_closed_candle() -> None:
    subject = window(Overflow.CONFLATE, max_messages=2)
    subject.offer(held(1, conflatable=True))
    subject.offer(held(2, conflatable=False))
    subject.offer(held(3, conflatable=True))
    assert offsets(subject.take(10, 1 << 20)) == [1, 2, 3]
    assert subject.books.conflated == 0


def test_drop_oldest_never_drops_what_is_in_flight() -> None:
    subject = window(Overflow.DROP_OLDEST)
    for n in range(1, 4):
        subject.offer(held(n))
    subject.take(1, 1 << 20)
    subject.offer(held(4))
    assert subject.in_flight == 1
    assert offsets(subject.take(10, 1 << 20)) == [3, 4]
    assert subject.books.dropped == 1
    assert balanced(subject)


def test_drop_newest_counts_and_forgets_the_newcomer() -> None:
    subject = window(Overflow.DROP_NEWEST)
    assert [subject.offer(held(n)) for n in range(1, 5)][-1] is Admission.DROPPED
    assert subject.books.dropped == 1
    assert balanced(subject)


def test_block_takes_what_was_read_and_asks_for_a_pause() -> None:
    subject = window(Overflow.BLOCK)
    for n in range(1, 5):
        subject.offer(held(n))
    assert subject.blocked
    subject.take(10, 1 << 20)
    subject.acknowledge(4)
    assert not subject.blocked


def test_rewind_and_resume_send_only_what_is_not_stored() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    for n in range(1, 6):
        subject.offer(held(n))
    subject.take(4, 1 << 20)
    subject.rewind()
    subject.resume(EPOCH, 2)
    assert offsets(subject.take(10, 1 << 20)) == [3, 4, 5]
    assert subject.books.acknowledged == 2
    assert balanced(subject)


def test_a_side_record_outlives_a_later_stored_event() -> None:
    """Its stream in NATS is another one, so a stored event proves nothing about it."""
    subject = window(Overflow.SPILL, max_messages=10)
    subject.offer(held(1, seq=1))
    subject.offer(held(2, seq=1, kind=Kind.REJECTED))
    subject.offer(held(3, seq=2))
    subject.take(10, 1 << 20)
    subject.rewind()
    subject.resume(EPOCH, 2)
    assert offsets(subject.take(10, 1 << 20)) == [2]


@pytest.mark.parametrize("overflow", [Overflow.DROP_NEWEST, Overflow.DROP_OLDEST, Overflow.BLOCK])
def test_a_full_memory_takes_what_must_be_told_and_no_other_side_record(overflow: Overflow) -> None:
    subject = window(overflow, max_messages=1)
    subject.offer(held(1))
    assert subject.offer(held(2, kind=Kind.REJECTED)) is Admission.DROPPED
    assert subject.offer(replace(held(3, kind=Kind.LOSS), vital=True)) is Admission.KEPT
    assert offsets(subject.take(10, 1 << 20)) == [1, 3]


def test_what_recovers_from_the_journal_goes_before_what_is_new() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    subject.recover(events=2, acknowledged_offset=4, last_offset=6)
    assert subject.offer(held(7)) is Admission.SPILLED
    assert subject.newest_in_memory == 4
    subject.refill([held(5).encoded, held(6).encoded, held(7).encoded])
    assert offsets(subject.take(10, 1 << 20)) == [5, 6, 7]
    assert subject.books.recovered == 2
    assert balanced(subject)


def test_events_that_the_journal_lost_are_counted_as_dropped() -> None:
    subject = window(Overflow.SPILL)
    subject.recover(events=3, acknowledged_offset=0, last_offset=3)
    subject.refill([held(1).encoded])
    assert subject.refill_ended() == 2
    assert subject.books.dropped == 2
    assert not subject.has_spilled
    assert balanced(subject)


def test_a_refused_event_leaves_as_rejected() -> None:
    subject = window(Overflow.SPILL)
    subject.offer(held(1))
    subject.offer(held(2))
    subject.take(2, 1 << 20)
    refused = subject.refuse(1)
    assert refused is not None
    assert refused.offset == 1
    assert subject.refuse(1) is None
    assert subject.books.rejected == 1
    assert balanced(subject)


def test_a_batch_respects_its_byte_limit_but_always_moves() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    for n in range(1, 4):
        subject.offer(held(n))
    size = OVERHEAD_BYTES + 1
    assert offsets(subject.take(10, 2 * size)) == [1, 2]
    assert offsets(subject.take(10, 1)) == [3]


def with_id(offset: int, event_id: int, recv_ns: int, epoch: int = EPOCH) -> Held:
    encoded = encode(Kind.EVENT, offset, epoch, offset, recv_ns, event_id, b"x")
    return Held(offset, recv_ns, encoded, True, False)


SECOND = 1_000_000_000


def test_what_an_earlier_incarnation_stored_meanwhile_is_not_sent_again() -> None:
    """It was taken for dead and read on, under an older epoch; here it stored up to id 51."""
    subject = window(Overflow.SPILL, max_messages=10)
    subject.offer(held(1, seq=1, kind=Kind.LOSS))
    for n in range(2, 5):
        subject.offer(with_id(n, 48 + n, 100 * SECOND + n))
    subject.take(10, 1 << 20)
    subject.rewind()
    subject.resume(EPOCH - 1, 900, 51, 105 * SECOND)
    subject.offer(with_id(5, 51, 101 * SECOND))
    subject.offer(with_id(6, 53, 101 * SECOND))
    assert offsets(subject.take(10, 1 << 20)) == [1, 4, 6]
    assert subject.books.acknowledged == 3
    assert balanced(subject)


def test_low_ids_of_an_exchange_that_counts_anew_are_sent() -> None:
    subject = window(Overflow.SPILL, max_messages=10)
    for n in range(1, 4):
        subject.offer(with_id(n, n, 200 * SECOND))
    subject.resume(EPOCH - 1, 900, 1_000_000, 100 * SECOND)
    assert offsets(subject.take(10, 1 << 20)) == [1, 2, 3]


def test_the_limit_is_one_of_memory_and_not_of_payloads_alone() -> None:
    limit_bytes = 1 << 20
    subject = Window(max_messages=1_000_000, max_bytes=limit_bytes, overflow=Overflow.SPILL)
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
        self.subject = Window(max_messages=4, max_bytes=400 + 4 * RECORD_BYTES, overflow=Overflow.SPILL)
        self.journal: list[Held] = []
        self.acknowledged = 0
        self.sent: list[int] = []

    @rule(count=st.integers(1, 5))
    def offer(self, count: int) -> None:
        for _ in range(count):
            record = held(len(self.journal) + 1)
            self.journal.append(record)
            assert self.subject.offer(record) is not Admission.DROPPED

    @rule(count=st.integers(1, 6))
    def take(self, count: int) -> None:
        for record in self.subject.take(count, 300):
            assert record.offset == (self.sent[-1] if self.sent else self.acknowledged) + 1
            self.sent.append(record.offset)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(self.sent))
        assert len(self.subject.acknowledge(offset)) == offset - self.acknowledged
        self.sent = [each for each in self.sent if each > offset]
        self.acknowledged = offset

    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        """NATS may have stored any prefix of what was sent before the link broke."""
        stored = data.draw(st.sampled_from([self.acknowledged, *self.sent]))
        self.subject.rewind()
        self.subject.resume(EPOCH, stored)
        self.acknowledged = stored
        self.sent = []

    @precondition(lambda self: self.subject.wants_refill())
    @rule(count=st.integers(1, 8))
    def refill(self, count: int) -> None:
        after = self.subject.newest_in_memory
        self.subject.refill([record.encoded for record in self.journal[after : after + count]])

    @invariant()
    def books_balance(self) -> None:
        assert balanced(self.subject)
        assert self.subject.books.acknowledged == self.acknowledged
        assert self.subject.books.received == len(self.journal)

    @invariant()
    def memory_is_exact_and_bounded(self) -> None:
        inside = [decode(encoded, 0, check=True)[0].offset for encoded in self.subject.held_encoded()]
        assert inside == sorted(inside)
        sizes = [RECORD_BYTES + len(encoded) for encoded in self.subject.held_encoded()]
        assert self.subject.memory_bytes == sum(sizes)

    @invariant()
    def the_journal_may_forget_only_what_left(self) -> None:
        assert self.subject.settled_offset() <= max(self.acknowledged, 0)


TestSpillingWindow = SpillingWindow.TestCase
TestSpillingWindow.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
