"""The bounded memory of one stream: what is queued, in flight and spilled, and the books over all of it.

Theory of operation. Records enter at one end in offset order and leave at the other by cumulative
acknowledgement. Memory holds the oldest of them, up to its limits; once one record is spilled (kept by the
journal alone), every later one is spilled too until memory has caught up, so what is on disk can never be
overtaken. Side records (rejected frames, losses) travel in the same order but are no events: they appear in
no count but `memory_bytes`. The window decides and counts; journal, link and clock belong to the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from relay.config import Overflow
from relay.record import EVENT_KINDS, NO_EVENT_ID, Kind, decode

# Two sockets give the same event at times that differ by less.
SAME_TIME_NS = 1_000_000_000
# What Python takes for a record in memory beside its bytes: `Held`, its numbers, the header of the bytes.
RECORD_BYTES = 200


class Admission(Enum):
    """What became of a record that was offered. All but DROPPED go to the journal, if there is one."""

    KEPT = "kept"
    SPILLED = "spilled"
    DROPPED = "dropped"


@dataclass(slots=True)
class Held:
    """A record in memory, encoded; `conflatable` says that a later full state makes it worthless, `vital`
    that no policy may drop it though it is no event."""

    offset: int
    recv_ns: int
    encoded: bytes
    is_event: bool
    conflatable: bool
    vital: bool = False


@dataclass(slots=True)
class Books:
    """Counts of events since the start of this incarnation."""

    received: int = 0
    recovered: int = 0
    acknowledged: int = 0
    conflated: int = 0
    dropped: int = 0
    rejected: int = 0
    repeated: int = 0
    spilled: int = 0


class Window:
    """Use from one event loop only. With `spill` the caller keeps a journal to spill to."""

    def __init__(self, *, max_messages: int, max_bytes: int, overflow: Overflow) -> None:
        self.books = Books()
        self.overflow = overflow
        self.memory_bytes = 0
        self.in_flight_bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._queued: deque[Held] = deque()
        self._in_flight: deque[Held] = deque()
        self._queued_events = 0
        self._in_flight_events = 0
        # Offsets: the newest record that memory has seen, and the newest that only the journal has.
        self._newest_in_memory = 0
        self._newest_spilled = 0
        self._stored_through = (0, 0)
        # The last event that another incarnation has stored: its id on the exchange, and when it was read.
        self._stored_id, self._stored_recv_ns = NO_EVENT_ID, 0
        # Newcomers may be stored already: until one is not, since ids rise.
        self._may_be_stored = False
        self._last_acknowledged: bytes | None = None

    def __repr__(self) -> str:
        return f"Window(queued={self.queued}, in_flight={self.in_flight}, spilled={self.books.spilled})"

    @property
    def queued(self) -> int:
        return self._queued_events

    @property
    def in_flight(self) -> int:
        return self._in_flight_events

    @property
    def in_flight_records(self) -> int:
        return len(self._in_flight)

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
    def full(self) -> bool:
        held = len(self._queued) + len(self._in_flight)
        return held >= self._max_messages or self.memory_bytes >= self._max_bytes

    @property
    def blocked(self) -> bool:
        """Reading must pause: memory is full and the policy neither drops, conflates nor spills."""
        return self.full and self.overflow is Overflow.BLOCK and not self.has_spilled

    @property
    def newest_in_memory(self) -> int:
        """The offset after which `refill` wants to be fed from the journal."""
        return self._newest_in_memory

    @property
    def last_acknowledged(self) -> bytes | None:
        """The newest acknowledged event, encoded; None until there is one."""
        return self._last_acknowledged

    def oldest_recv_ns(self) -> int | None:
        oldest = self._in_flight or self._queued
        return oldest[0].recv_ns if oldest else None

    def recover(self, events: int, acknowledged_offset: int, last_offset: int) -> None:
        """Start behind a journal that still holds `events` unacknowledged ones up to `last_offset`."""
        self.books.received += events
        self.books.recovered += events
        self.books.spilled += events
        self._newest_in_memory = acknowledged_offset
        self._newest_spilled = last_offset

    def offer(self, record: Held) -> Admission:
        """Take in the next record, by the overflow policy once memory is full; counts it as received."""
        if record.is_event:
            self.books.received += 1
        if self.has_spilled:
            return self._spill(record)
        admission = self._overflow(record) if self.full else self._keep(record)
        if self._may_be_stored and admission is Admission.KEPT and record.is_event:
            self._may_be_stored = self._settle_if_behind(record)
        return admission

    def _overflow(self, record: Held) -> Admission:
        if self.overflow is Overflow.SPILL:
            return self._spill(record)
        if not record.is_event:
            return self._keep(record) if record.vital else Admission.DROPPED
        if self.overflow is Overflow.DROP_NEWEST:
            self.books.dropped += 1
            return Admission.DROPPED
        if self.overflow is Overflow.DROP_OLDEST:
            self._drop_oldest()
        if self.overflow is Overflow.CONFLATE:
            self._conflate_newest()
        return self._keep(record)

    def _keep(self, record: Held) -> Admission:
        self._queued.append(record)
        self._queued_events += record.is_event
        self.memory_bytes += RECORD_BYTES + len(record.encoded)
        self._newest_in_memory = record.offset
        return Admission.KEPT

    def _spill(self, record: Held) -> Admission:
        self._newest_spilled = record.offset
        self.books.spilled += record.is_event
        return Admission.SPILLED

    def _drop_oldest(self) -> None:
        """What is in flight stays; with nothing queued the newcomer goes over the limit."""
        if self._queued:
            victim = self._queued.popleft()
            self._forget_queued(victim)
            self.books.dropped += victim.is_event

    def _conflate_newest(self) -> None:
        """The newest queued full state is superseded; what cannot be superseded (a closed candle) stays."""
        if self._queued and self._queued[-1].conflatable:
            self._forget_queued(self._queued.pop())
            self.books.conflated += 1

    def _forget_queued(self, record: Held) -> None:
        self._queued_events -= record.is_event
        self.memory_bytes -= RECORD_BYTES + len(record.encoded)

    def take(self, max_messages: int, max_bytes: int) -> list[Held]:
        """Move the oldest queued records to in flight, up to these limits; at least one if any fits none."""
        taken: list[Held] = []
        queued = self._queued
        taken_bytes = events = 0
        while queued and len(taken) < max_messages:
            size = len(queued[0].encoded)
            if taken and taken_bytes + size > max_bytes:
                break
            record = queued.popleft()
            taken.append(record)
            taken_bytes += size
            events += record.is_event
        self._in_flight.extend(taken)
        self.in_flight_bytes += taken_bytes
        self._in_flight_events += events
        self._queued_events -= events
        return taken

    def acknowledge(self, offset: int) -> list[int]:
        """Everything in flight up to `offset` is done; returns when its events were received."""
        recv_ns: list[int] = []
        in_flight = self._in_flight
        while in_flight and in_flight[0].offset <= offset:
            record = in_flight.popleft()
            size = len(record.encoded)
            self.memory_bytes -= RECORD_BYTES + size
            self.in_flight_bytes -= size
            if record.is_event:
                recv_ns.append(record.recv_ns)
                self._last_acknowledged = record.encoded
        self._in_flight_events -= len(recv_ns)
        self.books.acknowledged += len(recv_ns)
        return recv_ns

    def refuse(self, offset: int) -> Held | None:
        """NATS can never take the record at `offset`: it leaves as rejected. None if it is not in flight."""
        for index, record in enumerate(self._in_flight):
            if record.offset == offset:
                del self._in_flight[index]
                self.memory_bytes -= RECORD_BYTES + len(record.encoded)
                self.in_flight_bytes -= len(record.encoded)
                self._in_flight_events -= record.is_event
                self.books.rejected += record.is_event
                return record
        return None

    def rewind(self) -> None:
        """Nothing is in flight any more: all of it is queued again, in order."""
        self._queued.extendleft(reversed(self._in_flight))
        self._in_flight.clear()
        self._queued_events += self._in_flight_events
        self._in_flight_events = 0
        self.in_flight_bytes = 0

    def resume(self, epoch: int, seq: int, event_id: int = NO_EVENT_ID, recv_ns: int = 0) -> None:
        """Go on after the event that is stored last; everything up to it counts as acknowledged.

        Call after `rewind`. Records that come back from the journal later are measured by the same position.
        Side records stay: a later stored event says nothing of them, and their ids make a repeat harmless.
        `event_id` and `recv_ns` are that event's: an earlier incarnation that was taken for dead may have
        read and stored the same events as this one, and only their ids tell.
        """
        self._stored_through = max(self._stored_through, (epoch, seq))
        self._stored_id, self._stored_recv_ns = event_id, recv_ns
        self._may_be_stored = event_id != NO_EVENT_ID
        side_records: list[Held] = []
        while self._queued and self._may_pass(self._queued[0]):
            record = self._queued.popleft()
            if record.is_event:
                self._settle(record)
            else:
                side_records.append(record)
        self._queued.extendleft(reversed(side_records))

    def _may_pass(self, record: Held) -> bool:
        return not record.is_event or self._is_behind(record.encoded)

    def _is_behind(self, encoded: bytes) -> bool:
        record, _ = decode(encoded, 0, check=False)
        if (record.epoch, record.seq) <= self._stored_through:
            return True
        # An id alone says nothing: an exchange that counts anew uses low ones again.
        # REST was asked for the ids behind a known one, which tells, and gave them later.
        read_together = record.kind == Kind.HEALED or record.recv_ns <= self._stored_recv_ns + SAME_TIME_NS
        by_another = record.epoch > self._stored_through[0]
        return by_another and read_together and NO_EVENT_ID < record.event_id <= self._stored_id

    def _settle_if_behind(self, newest: Held) -> bool:
        """Whether the event that was queued last is stored already."""
        behind = self._is_behind(newest.encoded)
        if behind:
            self._settle(self._queued.pop())
        return behind

    def _settle(self, event: Held) -> None:
        self._forget_queued(event)
        self.books.acknowledged += 1
        self._last_acknowledged = event.encoded

    def wants_refill(self) -> bool:
        """Memory is half empty and the journal holds more."""
        return (
            self.has_spilled
            and len(self._queued) + len(self._in_flight) <= self._max_messages // 2
            and self.memory_bytes <= self._max_bytes // 2
        )

    def refill(self, encoded: Iterable[bytes]) -> None:
        """Take the next records back from the journal, in order, from after `newest_in_memory`."""
        for held in map(_held, encoded):
            self.books.spilled -= held.is_event
            self._keep(held)
            if held.is_event:
                self._settle_if_behind(held)

    def refill_ended(self) -> int:
        """The journal has nothing more: what it should have had is counted as dropped, and returned."""
        missing = self.books.spilled
        self.books.spilled = 0
        self.books.dropped += missing
        self._newest_in_memory = max(self._newest_in_memory, self._newest_spilled)
        return missing

    def settled_offset(self) -> int:
        """Every record up to this offset has left for good; the journal may forget them."""
        oldest = self._in_flight or self._queued
        return oldest[0].offset - 1 if oldest else self._newest_in_memory

    def held_encoded(self) -> Iterator[bytes]:
        """Everything in memory, oldest first."""
        for record in (*self._in_flight, *self._queued):
            yield record.encoded


def _held(encoded: bytes) -> Held:
    record, _ = decode(encoded, 0, check=False)
    return Held(record.offset, record.recv_ns, encoded, record.kind in EVENT_KINDS, False)
