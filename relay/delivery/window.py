"""The bounded memory of one stream: what is queued, in flight and spilled, and the books over all of it.

Theory of operation. Records enter at one end in offset order, in batches, and leave at the other by
cumulative acknowledgement. Memory holds the oldest of them, up to its limits; once one batch is spilled (kept
by the journal alone), every later one is spilled too until memory has caught up, so what is on disk can never
be overtaken. Side records (rejected frames, losses) travel in the same order but are no events: they appear
in no count but `memory_bytes`. The window decides and counts; journal, link and clock belong to the caller.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from relay.delivery.buffered_batch import BufferedBatch, from_journal
from relay.model.choices import Overflow
from relay.model.position import NOTHING_STORED, StoredPosition
from relay.model.record_batch import (
    MAX_RECORDS,
    NO_EVENT_ID,
    RecordBatch,
    RecordKind,
    decode,
    head,
    record_of,
)

# Two sockets give the same event at times that differ by less.
SAME_TIME_NS = 1_000_000_000
# What Python takes for a batch in memory beside its bytes: `Held`, its numbers, the header of the bytes.
BATCH_BYTES = 200


class Admission(Enum):
    """What became of a batch that was offered. All but DROPPED go to the journal, if there is one."""

    KEPT = "kept"
    SPILLED = "spilled"
    DROPPED = "dropped"


@dataclass(slots=True)
class EventCounts:
    """Counts of events since the start of this incarnation."""

    received: int = 0
    recovered: int = 0
    acknowledged: int = 0
    conflated: int = 0
    dropped: int = 0
    rejected: int = 0
    repeated: int = 0
    spilled: int = 0


class SendWindow:
    """Use from one event loop only. With `spill` the caller keeps a journal to spill to."""

    def __init__(self, *, max_messages: int, max_bytes: int, overflow: Overflow) -> None:
        self.counts = EventCounts()
        self.overflow = overflow
        self.memory_bytes = 0
        self.in_flight_bytes = 0
        self.in_flight_records = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._queued: deque[BufferedBatch] = deque()
        self._in_flight: deque[BufferedBatch] = deque()
        self._queued_records = 0
        self._queued_events = 0
        self._in_flight_events = 0
        # Offsets: the newest record that memory has seen, and the newest that only the journal has.
        self._newest_in_memory = 0
        self._newest_spilled = 0
        self._stored = NOTHING_STORED
        # Newcomers may be stored already: until one is not, since ids rise.
        self._may_be_stored = False
        self._last_acknowledged: tuple[bytes, int] | None = None

    def __repr__(self) -> str:
        return f"Window(queued={self.queued}, in_flight={self.in_flight}, spilled={self.counts.spilled})"

    @property
    def queued(self) -> int:
        return self._queued_events

    @property
    def in_flight(self) -> int:
        return self._in_flight_events

    @property
    def has_queued(self) -> bool:
        return bool(self._queued)

    @property
    def has_spilled(self) -> bool:
        return self._newest_spilled > self._newest_in_memory

    @property
    def empty(self) -> bool:
        return not self._queued and not self._in_flight and not self.has_spilled

    @property
    def holds_nothing(self) -> bool:
        """In memory, whatever the journal may have."""
        return not self._queued and not self._in_flight

    @property
    def full(self) -> bool:
        held = self._queued_records + self.in_flight_records
        return held >= self._max_messages or self.memory_bytes >= self._max_bytes

    @property
    def blocked(self) -> bool:
        """Reading must pause: memory is full and the policy neither drops, conflates nor spills."""
        return self.full and self.overflow is Overflow.BLOCK and not self.has_spilled

    @property
    def max_batch_records(self) -> int:
        """How many records may be offered as one batch: those that have room, and without room as many as
        the policy treats alike."""
        if self.has_spilled or self.overflow is Overflow.BLOCK:
            return MAX_RECORDS
        if self.full:
            return MAX_RECORDS if self.overflow is Overflow.SPILL else 1
        return min(MAX_RECORDS, self._max_messages - self._queued_records - self.in_flight_records)

    @property
    def newest_in_memory(self) -> int:
        """The offset after which `refill` wants to be fed from the journal."""
        return self._newest_in_memory

    @property
    def last_acknowledged(self) -> RecordBatch | None:
        """The newest acknowledged event, alone in a batch; None until there is one."""
        if self._last_acknowledged is None:
            return None
        return record_of(*self._last_acknowledged)

    def oldest_recv_ns(self) -> int | None:
        oldest = self._in_flight or self._queued
        return oldest[0].recv_ns if oldest else None

    def unanswered(self, now_ns: int) -> tuple[int, float]:
        """How many events are unanswered, and for how many seconds the oldest of them in memory has been."""
        oldest = self._in_flight or self._queued
        if not oldest:
            return 0, 0.0
        events = self._in_flight_events + self._queued_events + self.counts.spilled
        return events, (now_ns - oldest[0].recv_ns) / 1e9

    def recover(self, events: int, acknowledged_offset: int, last_offset: int) -> None:
        """Start behind a journal that still holds `events` unacknowledged ones up to `last_offset`."""
        self.counts.received += events
        self.counts.recovered += events
        self.counts.spilled += events
        self._newest_in_memory = acknowledged_offset
        self._newest_spilled = last_offset

    def offer(self, batch: BufferedBatch) -> Admission:
        """Take in the next batch, of at most `takes` records, by the overflow policy once memory is full.

        Its events are counted as received.
        """
        if batch.is_event:
            self.counts.received += batch.count
        if self._newest_spilled > self._newest_in_memory:
            return self._spill(batch)
        admission = self._overflow(batch) if self.full else self._keep(batch)
        if self._may_be_stored and admission is Admission.KEPT and batch.is_event:
            self._may_be_stored = self._settle_newest(batch)
        return admission

    def has_room(self, count: int) -> bool:
        """Whether so many records more, in one batch, are kept in memory whatever the policy."""
        return (
            self._queued_records + self.in_flight_records + count <= self._max_messages
            and self.memory_bytes < self._max_bytes
            and self._newest_spilled <= self._newest_in_memory
        )

    def admit_in_flight(self, batch: BufferedBatch, max_records: int, max_bytes: int) -> bool:
        """Take in a batch of events that has room, straight to in flight, as `offer` and `take` would do.

        False, and nothing done, if something waits before it or these limits of in flight are reached.
        """
        if (
            self._queued
            or self._may_be_stored
            or self.in_flight_records >= max_records
            or self.in_flight_bytes >= max_bytes
        ):
            return False
        count, size = batch.count, len(batch.encoded)
        self._in_flight.append(batch)
        self.counts.received += count
        self.in_flight_records += count
        self._in_flight_events += count
        self.in_flight_bytes += size
        self.memory_bytes += BATCH_BYTES + size
        self._newest_in_memory = batch.offset + count - 1
        return True

    def _overflow(self, batch: BufferedBatch) -> Admission:
        if self.overflow is Overflow.SPILL:
            return self._spill(batch)
        if not batch.is_event:
            return self._keep(batch) if batch.undroppable else Admission.DROPPED
        if self.overflow is Overflow.DROP_NEWEST:
            self.counts.dropped += batch.count
            return Admission.DROPPED
        if self.overflow is Overflow.DROP_OLDEST:
            self._drop_oldest()
        if self.overflow is Overflow.CONFLATE:
            self._conflate_newest()
        return self._keep(batch)

    def _keep(self, batch: BufferedBatch) -> Admission:
        self._queued.append(batch)
        self._count_queued(batch, 1)
        self._newest_in_memory = batch.offset + batch.count - 1
        return Admission.KEPT

    def _count_queued(self, batch: BufferedBatch, sign: int) -> None:
        left = sign * (batch.count - batch.done)
        self._queued_records += left
        if batch.is_event:
            self._queued_events += left
        self.memory_bytes += sign * (BATCH_BYTES + len(batch.encoded))

    def _spill(self, batch: BufferedBatch) -> Admission:
        self._newest_spilled = batch.last_offset
        if batch.is_event:
            self.counts.spilled += batch.count
        return Admission.SPILLED

    def _drop_oldest(self) -> None:
        """What is in flight stays; with nothing queued the newcomer goes over the limit."""
        if self._queued:
            oldest = self._queued.popleft()
            self._count_queued(oldest, -1)
            self.counts.dropped += oldest.is_event
            if oldest.done + 1 < oldest.count:
                rest = oldest.part(oldest.done + 1, oldest.count)
                self._queued.appendleft(rest)
                self._count_queued(rest, 1)

    def _conflate_newest(self) -> None:
        """The newest queued full state is superseded; what cannot be superseded (a closed candle) stays."""
        if self._queued and self._queued[-1].conflatable:
            newest = self._queued.pop()
            self._count_queued(newest, -1)
            self.counts.conflated += 1
            if newest.done < newest.count - 1:
                rest = newest.part(newest.done, newest.count - 1)
                self._queued.append(rest)
                self._count_queued(rest, 1)

    def start_sending(self, max_records: int, max_bytes: int) -> list[BufferedBatch]:
        """Move the oldest queued batches to in flight, until these limits are reached or passed by one."""
        taken: list[BufferedBatch] = []
        queued = self._queued
        taken_bytes = records = events = 0
        while queued and records < max_records and taken_bytes < max_bytes:
            batch = queued.popleft()
            taken.append(batch)
            taken_bytes += len(batch.encoded)
            left = batch.count - batch.done
            records += left
            if batch.is_event:
                events += left
        self._in_flight.extend(taken)
        self.in_flight_bytes += taken_bytes
        self.in_flight_records += records
        self._in_flight_events += events
        self._queued_records -= records
        self._queued_events -= events
        return taken

    def acknowledge(self, offset: int) -> list[tuple[int, int]]:
        """Everything in flight up to `offset` is done; when its events were received, and how many then."""
        received: list[tuple[int, int]] = []
        in_flight = self._in_flight
        while in_flight and (batch := in_flight[0]).offset + batch.done <= offset:
            done = min(batch.count, offset - batch.offset + 1)
            left, batch.done = done - batch.done, done
            self.in_flight_records -= left
            if batch.is_event:
                received.append((batch.recv_ns, left))
                self._in_flight_events -= left
                self.counts.acknowledged += left
                self._last_acknowledged = batch.encoded, done - 1
            if done == batch.count:
                in_flight.popleft()
                self.memory_bytes -= BATCH_BYTES + len(batch.encoded)
                self.in_flight_bytes -= len(batch.encoded)
        return received

    def refuse(self, offset: int) -> RecordBatch | None:
        """NATS can never take the record at `offset`: it leaves as rejected, and is returned alone.

        None if it is not in flight.
        """
        for place, batch in enumerate(self._in_flight):
            number = offset - batch.offset
            if batch.done <= number < batch.count:
                self._replace_in_flight(place, batch.without(number))
                self.counts.rejected += batch.is_event
                return record_of(batch.encoded, number)
        return None

    def _replace_in_flight(self, place: int, parts: list[BufferedBatch]) -> None:
        """By what is left of it without one record."""
        in_flight = self._in_flight
        in_flight.rotate(-place)
        batch = in_flight.popleft()
        in_flight.extendleft(reversed(parts))
        in_flight.rotate(place)
        size_bytes = sum(len(part.encoded) for part in parts) - len(batch.encoded)
        self.memory_bytes += size_bytes + BATCH_BYTES * (len(parts) - 1)
        self.in_flight_bytes += size_bytes
        self.in_flight_records -= 1
        self._in_flight_events -= batch.is_event

    def rewind(self) -> None:
        """Nothing is in flight any more: all of it is queued again, in order."""
        self._queued.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self._queued_records += self.in_flight_records
        self._queued_events += self._in_flight_events
        self._in_flight_events = self.in_flight_records = 0
        self.in_flight_bytes = 0

    def resume(self, stored: StoredPosition) -> None:
        """Go on after the event that is stored last; everything up to it counts as acknowledged.

        Call after `rewind`. Records that come back from the journal later are measured by the same position.
        Side records stay: a later stored event says nothing of them, and their ids make a repeat harmless.
        An earlier incarnation that was taken for dead may have
        read and stored the same events as this one, and only their ids tell.
        """
        epoch, seq = max(self._stored.epoch_seq, stored.epoch_seq)
        self._stored = replace(stored, epoch=epoch, seq=seq)
        self._may_be_stored = stored.event_id != NO_EVENT_ID
        side_records: list[BufferedBatch] = []
        while self._queued:
            oldest = self._queued[0]
            if oldest.is_event and not self._settle(oldest, self._stored_records(oldest)):
                break
            self._queued.popleft()
            if not oldest.is_event:
                side_records.append(oldest)
        self._queued.extendleft(reversed(side_records))

    def _stored_records(self, batch: BufferedBatch) -> int:
        """How many records at its front are stored."""
        first = head(batch.encoded)
        if (first.epoch, first.seq) <= self._stored.epoch_seq:
            if first.epoch < self._stored.epoch:
                return batch.count
            return min(batch.count, self._stored.seq - first.seq + 1)
        # An id alone says nothing: an exchange that counts anew uses low ones again.
        # REST was asked for the ids behind a known one, which tells, and gave them later.
        read_together = (
            first.kind == RecordKind.HEALED or first.recv_ns <= self._stored.recv_ns + SAME_TIME_NS
        )
        if first.epoch == self._stored.epoch or not read_together:
            return 0
        event_ids = decode(batch.encoded, 0, check=False)[0].event_ids
        return 0 if event_ids[0] == NO_EVENT_ID else bisect_right(event_ids, self._stored.event_id)

    def _settle(self, batch: BufferedBatch, stored: int) -> bool:
        """The first `stored` records of a queued batch are done; whether all of them are."""
        if stored > batch.done:
            left, batch.done = stored - batch.done, stored
            self._queued_records -= left
            self._queued_events -= left
            self.counts.acknowledged += left
            self._last_acknowledged = batch.encoded, stored - 1
        if stored < batch.count:
            return False
        self.memory_bytes -= BATCH_BYTES + len(batch.encoded)
        return True

    def _settle_newest(self, newest: BufferedBatch) -> bool:
        """Whether the batch that was queued last is stored already."""
        stored = self._settle(newest, self._stored_records(newest))
        if stored:
            self._queued.pop()
        return stored

    def wants_refill(self) -> bool:
        """Memory is half empty and the journal holds more."""
        return (
            self.has_spilled
            and self._queued_records + self.in_flight_records <= self._max_messages // 2
            and self.memory_bytes <= self._max_bytes // 2
        )

    def refill(self, encoded: Iterable[bytes]) -> None:
        """Take the next batches back from the journal, in order, from after `newest_in_memory`."""
        for one in encoded:
            held = from_journal(one, self._newest_in_memory)
            if held.is_event:
                self.counts.spilled -= held.count - held.done
            self._keep(held)
            if held.is_event:
                self._settle_newest(held)

    def refill_ended(self) -> int:
        """The journal has nothing more: what it should have had is counted as dropped, and returned."""
        missing = self.counts.spilled
        self.counts.spilled = 0
        self.counts.dropped += missing
        self._newest_in_memory = max(self._newest_in_memory, self._newest_spilled)
        return missing

    def settled_offset(self) -> int:
        """Every record up to this offset has left for good; the journal may forget them."""
        oldest = self._in_flight or self._queued
        return oldest[0].offset + oldest[0].done - 1 if oldest else self._newest_in_memory
