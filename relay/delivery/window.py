"""The bounded memory of one stream: what is queued, in flight and spilled, with counts of all of it; pure.

Records enter at one end in offset order, in batches, and leave at the other by cumulative acknowledgement.
Memory holds the oldest of them, up to its limits. Once a batch is spilled (kept by the journal alone), every
later one is spilled too until memory has caught up, so that records on the disk are never overtaken. Side
records (rejected frames, losses, repairs) are sent in the same order but are no events: no count includes
them, except `memory_bytes`. The window decides and counts; the caller owns journal, link and clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum

from relay.delivery.buffered_batch import BATCH_BYTES, BufferedBatch, from_journal
from relay.delivery.event_counts import EventCounts
from relay.delivery.resume import StoredEvents, advanced, remove_stored, remove_stored_newest
from relay.model.choices import Overflow
from relay.model.position import NOTHING_STORED, StoredPosition
from relay.model.record_batch import MAX_RECORDS, NO_EVENT_ID, RecordBatch, record_of


class Admission(Enum):
    """What was done with a batch that was offered. The caller journals all but DROPPED ones."""

    KEPT = "kept"
    SPILLED = "spilled"
    DROPPED = "dropped"


class SendWindow:
    """Use from one event loop only. `Overflow.SPILL` needs a journal, which the caller keeps."""

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
        # Offsets: the newest record that memory has held, and the newest that only the journal holds.
        self._newest_in_memory = 0
        self._newest_spilled = 0
        self._stored = NOTHING_STORED
        # Whether new events are compared with `_stored` as well. Their ids rise, so the first one that is not
        # stored yet ends this.
        self._may_be_stored = False
        # An encoded batch and the number of the record in it.
        self._last_acknowledged: tuple[bytes, int] | None = None

    def __repr__(self) -> str:
        return f"SendWindow(queued={self.queued}, in_flight={self.in_flight}, spilled={self.counts.spilled})"

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
        """Whether memory is empty; the journal may still hold records."""
        return not self._queued and not self._in_flight

    @property
    def full(self) -> bool:
        records = self._queued_records + self.in_flight_records
        return records >= self._max_messages or self.memory_bytes >= self._max_bytes

    @property
    def blocked(self) -> bool:
        """Reading must pause: memory is full and the policy neither drops, conflates nor spills."""
        return self.full and self.overflow is Overflow.BLOCK and not self.has_spilled

    @property
    def max_batch_records(self) -> int:
        """How many records may be offered as one batch: as many as have room, and without room as many as the
        overflow policy treats alike."""
        if self.has_spilled or self.overflow is Overflow.BLOCK:
            return MAX_RECORDS
        if self.full:
            return MAX_RECORDS if self.overflow is Overflow.SPILL else 1
        return min(MAX_RECORDS, self._max_messages - self._queued_records - self.in_flight_records)

    @property
    def newest_in_memory(self) -> int:
        """The offset after which `refill` continues from the journal."""
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
        """`(events, seconds)`: how many events are not acknowledged, and for how long the oldest of them in
        memory has been; (0, 0.0) while memory is empty."""
        oldest = self._in_flight or self._queued
        if not oldest:
            return 0, 0.0
        events = self._in_flight_events + self._queued_events + self.counts.spilled
        return events, (now_ns - oldest[0].recv_ns) / 1e9

    def recover(self, events: int, acknowledged_offset: int, last_offset: int) -> None:
        """Start with a journal that still holds `events` unacknowledged events, up to `last_offset`."""
        self.counts.received += events
        self.counts.recovered += events
        self.counts.spilled += events
        self._newest_in_memory = acknowledged_offset
        self._newest_spilled = last_offset

    def offer(self, batch: BufferedBatch) -> Admission:
        """Add the next batch, of at most `max_batch_records` records, by the overflow policy.

        The policy decides once memory is full. The events are counted as received.
        """
        if batch.flags.is_event:
            self.counts.received += batch.count
        if self._newest_spilled > self._newest_in_memory:
            return self._spill(batch)
        admission = self._overflow(batch) if self.full else self._keep(batch)
        if self._may_be_stored and admission is Admission.KEPT and batch.flags.is_event:
            self._may_be_stored = self._remove_newest_if_stored()
        return admission

    def has_room(self, count: int) -> bool:
        """Whether so many more records, in one batch, are kept in memory under every overflow policy."""
        return (
            self._queued_records + self.in_flight_records + count <= self._max_messages
            and self.memory_bytes < self._max_bytes
            and self._newest_spilled <= self._newest_in_memory
        )

    def admit_in_flight(self, batch: BufferedBatch, max_records: int, max_bytes: int) -> bool:
        """Add a batch of events that has room and put it in flight, as `offer` and `start_sending` would do.

        False, with nothing changed, if batches are queued or these limits of what is in flight are reached.
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
        if not batch.flags.is_event:
            return self._keep(batch) if batch.flags.undroppable else Admission.DROPPED
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
        if batch.flags.is_event:
            self._queued_events += left
        self.memory_bytes += sign * (BATCH_BYTES + len(batch.encoded))

    def _spill(self, batch: BufferedBatch) -> Admission:
        self._newest_spilled = batch.last_offset
        if batch.flags.is_event:
            self.counts.spilled += batch.count
        return Admission.SPILLED

    def _drop_oldest(self) -> None:
        """In flight nothing is dropped; if nothing is queued, the new batch goes over the limit."""
        if self._queued:
            oldest = self._queued.popleft()
            self._count_queued(oldest, -1)
            self.counts.dropped += oldest.flags.is_event
            if oldest.done + 1 < oldest.count:
                rest = oldest.part(oldest.done + 1, oldest.count)
                self._queued.appendleft(rest)
                self._count_queued(rest, 1)

    def _conflate_newest(self) -> None:
        """Drop the newest queued full state, unless it may not be superseded (a closed candle)."""
        if self._queued and self._queued[-1].flags.conflatable:
            newest = self._queued.pop()
            self._count_queued(newest, -1)
            self.counts.conflated += 1
            if newest.done < newest.count - 1:
                rest = newest.part(newest.done, newest.count - 1)
                self._queued.append(rest)
                self._count_queued(rest, 1)

    def start_sending(self, max_records: int, max_bytes: int) -> list[BufferedBatch]:
        """Put the oldest queued batches in flight until these limits are reached or passed by one batch."""
        sent: list[BufferedBatch] = []
        queued = self._queued
        sent_bytes = records = events = 0
        while queued and records < max_records and sent_bytes < max_bytes:
            batch = queued.popleft()
            sent.append(batch)
            sent_bytes += len(batch.encoded)
            left = batch.count - batch.done
            records += left
            if batch.flags.is_event:
                events += left
        self._in_flight.extend(sent)
        self.in_flight_bytes += sent_bytes
        self.in_flight_records += records
        self._in_flight_events += events
        self._queued_records -= records
        self._queued_events -= events
        return sent

    def acknowledge(self, offset: int) -> list[tuple[int, int]]:
        """Everything in flight up to `offset` is stored; `(recv_ns, events)` of each batch in it."""
        received: list[tuple[int, int]] = []
        in_flight = self._in_flight
        while in_flight and (batch := in_flight[0]).offset + batch.done <= offset:
            done = min(batch.count, offset - batch.offset + 1)
            left, batch.done = done - batch.done, done
            self.in_flight_records -= left
            if batch.flags.is_event:
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
        """NATS can never store the record at `offset`: it leaves as rejected and is returned, alone.

        None if it is not in flight.
        """
        for place, batch in enumerate(self._in_flight):
            number = offset - batch.offset
            if batch.done <= number < batch.count:
                self._replace_in_flight(place, batch.without(number))
                self.counts.rejected += batch.flags.is_event
                return record_of(batch.encoded, number)
        return None

    def _replace_in_flight(self, place: int, parts: list[BufferedBatch]) -> None:
        """Replace the batch at index `place` by what is left of it without one record."""
        in_flight = self._in_flight
        in_flight.rotate(-place)
        batch = in_flight.popleft()
        in_flight.extendleft(reversed(parts))
        in_flight.rotate(place)
        size_bytes = sum(len(part.encoded) for part in parts) - len(batch.encoded)
        self.memory_bytes += size_bytes + BATCH_BYTES * (len(parts) - 1)
        self.in_flight_bytes += size_bytes
        self.in_flight_records -= 1
        self._in_flight_events -= batch.flags.is_event

    def rewind(self) -> None:
        """The link has ended: what was in flight is queued again, in order."""
        self._queued.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self._queued_records += self.in_flight_records
        self._queued_events += self._in_flight_events
        self._in_flight_events = self.in_flight_records = 0
        self.in_flight_bytes = 0

    def resume(self, stored: StoredPosition) -> None:
        """Continue after the event that is stored last; everything up to it counts as acknowledged.

        Call after `rewind`. Records that come back from the journal later are compared with it as well.
        """
        self._stored = advanced(self._stored, stored)
        self._may_be_stored = stored.event_id != NO_EVENT_ID
        self._count_stored(remove_stored(self._queued, self._stored))

    def _remove_newest_if_stored(self) -> bool:
        """For a batch of events that was queued last; whether all of it is stored."""
        found = remove_stored_newest(self._queued, self._stored)
        self._count_stored(found)
        return found.freed_bytes > 0

    def _count_stored(self, found: StoredEvents) -> None:
        self._queued_records -= found.events
        self._queued_events -= found.events
        self.counts.acknowledged += found.events
        self.memory_bytes -= found.freed_bytes
        if found.last is not None:
            self._last_acknowledged = found.last

    def wants_refill(self) -> bool:
        """Memory is half empty and the journal holds more."""
        return (
            self.has_spilled
            and self._queued_records + self.in_flight_records <= self._max_messages // 2
            and self.memory_bytes <= self._max_bytes // 2
        )

    def refill(self, encoded: Iterable[bytes]) -> None:
        """Queue the next encoded batches from the journal, in order, from after `newest_in_memory`."""
        for each in encoded:
            batch = from_journal(each, self._newest_in_memory)
            if batch.flags.is_event:
                self.counts.spilled -= batch.count - batch.done
            self._keep(batch)
            if batch.flags.is_event:
                self._remove_newest_if_stored()

    def refill_ended(self) -> int:
        """The journal holds nothing more. Events that it should hold count as dropped; returns how many."""
        missing = self.counts.spilled
        self.counts.spilled = 0
        self.counts.dropped += missing
        self._newest_in_memory = max(self._newest_in_memory, self._newest_spilled)
        return missing

    def settled_offset(self) -> int:
        """Every record up to this offset is done with, and the journal may remove it."""
        oldest = self._in_flight or self._queued
        return oldest[0].offset + oldest[0].done - 1 if oldest else self._newest_in_memory
