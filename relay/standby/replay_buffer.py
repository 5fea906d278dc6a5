"""What a standby instance has read and must keep: everything after the stored position; pure.

An event is recognised by its name: the exchange's id where that is unique, else a digest of the payload. The
active instance's status names the last event that is stored, and everything before it is forgotten. On a
takeover NATS names that event, and `replay_point_after` finds the one that comes next.

Where events have no ids, two sockets of the same stream may deliver different bytes. If the stored event
is not found, the replay point is chosen by the time of reading, and the log says that events may be missing
or repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from relay.binance.classifier import PayloadClass, PayloadClassifier
from relay.binance.streams import StreamSpec
from relay.model.position import SAME_TIME_NS, StoredPosition, digest_of

# Names of entries that are not events: a payload to be rejected, and the end of a connection.
REJECTED, DISCONTINUITY = -1, -2
# After this many statuses in a row whose event is not found here, our own socket is not merely late.
MAX_UNFOUND_STATUSES = 4
# A quarter of what memory may hold is evicted at once, so that it is written to the file in large pieces.
EVICTED_FRACTION = 4


class Entry(NamedTuple):
    name: int
    payload: bytes
    recv_ns: int

    @property
    def is_event(self) -> bool:
        return self.name >= 0


class JoinQuality(Enum):
    """How the entries of a standby instance join the last event that was accepted before."""

    EXACT = "exact"
    BY_ID = "by id"
    """The event itself is not among the entries, but ids show whether one is missing after it."""
    BY_TIME = "by time"
    """Events may be missing or repeated."""


class ReplayPoint(NamedTuple):
    """Replay from the entry `entry_index` on, counted from 0."""

    entry_index: int
    quality: JoinQuality


class AppendResult(NamedTuple):
    events: int
    shutdown: bool


class ReplayBuffer:
    """The newest entries, oldest first; what `evict` has returned came before them. Call `evict` after each
    `append`.

    `since_ns` (Unix time, 0 while nothing was read) is the time from which on every event that was read is
    here, evicted, or stored.
    """

    def __init__(self, spec: StreamSpec, *, max_messages: int, max_bytes: int) -> None:
        self.entries: deque[Entry] = deque()
        self.memory_bytes = 0
        self.since_ns = 0
        self.numbered = bool(spec.id_key)
        self._classify = PayloadClassifier(spec)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # The stored event that directly precedes the first entry, where it is known and not an entry itself.
        self._preceding: StoredPosition | None = None
        # Everything after the stored position is here: its event is an entry, or `_preceding`, and no
        # connection has ended since.
        self._anchored = False
        self._stored = StoredPosition()
        self._unfound = 0
        # Evicted entries are kept elsewhere, so the stored event may be among them.
        self._reaches_evicted = False

    @property
    def covers(self) -> bool:
        """Whether it reaches back to the stored position, as far as this is known."""
        return self._anchored or (not self.numbered and self._covers_by_time)

    @property
    def _covers_by_time(self) -> bool:
        return 0 < self.since_ns < self._stored.recv_ns - SAME_TIME_NS

    def append(self, payloads: Sequence[bytes], recv_ns: int) -> AppendResult:
        event_ids = self._classify.event_ids(payloads)
        if event_ids is None:
            return self._append_slow(payloads, recv_ns)
        names = event_ids if self.numbered else map(digest_of, payloads)
        for name, payload in zip(names, payloads, strict=True):
            self._append_entry(Entry(name, payload, recv_ns))
        return AppendResult(len(payloads), False)

    def _append_slow(self, payloads: Sequence[bytes], recv_ns: int) -> AppendResult:
        events, shutdown = 0, False
        for payload in payloads:
            found = self._classify(payload)
            if found.payload_class is PayloadClass.ACCEPTED:
                events += 1
                name = found.event_id if self.numbered else digest_of(payload)
                self._append_entry(Entry(name, payload, recv_ns))
            elif found.payload_class is PayloadClass.REJECTED:
                self._append_entry(Entry(REJECTED, payload, recv_ns))
            elif found.payload_class is PayloadClass.SHUTDOWN:
                shutdown = True
        return AppendResult(events, shutdown)

    def _append_entry(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.memory_bytes += len(entry.payload)
        self.since_ns = self.since_ns or entry.recv_ns

    def mark_discontinuity(self) -> None:
        """A connection has ended: events may be missing between what was read and what will be."""
        if self.entries and self.entries[-1].name != DISCONTINUITY:
            self.entries.append(Entry(DISCONTINUITY, b"", self.entries[-1].recv_ns))
        self._anchored = False
        self.since_ns = 0

    def evict(self) -> list[Entry]:
        """The oldest entries, once there are more than memory may hold: keep them elsewhere, or call
        `evicted_lost`."""
        if len(self.entries) <= self._max_messages and self.memory_bytes <= self._max_bytes:
            return []
        messages = self._max_messages - self._max_messages // EVICTED_FRACTION
        size = self._max_bytes - self._max_bytes // EVICTED_FRACTION
        evicted = []
        while self.entries and (len(self.entries) > messages or self.memory_bytes > size):
            evicted.append(self.pop())
        self._reaches_evicted = True
        return evicted

    def pop(self) -> Entry:
        entry = self.entries.popleft()
        self.memory_bytes -= len(entry.payload)
        return entry

    def evicted_lost(self) -> None:
        """The evicted entries could not be kept."""
        self._anchored = self._reaches_evicted = False
        self._preceding = None
        self.since_ns = next((entry.recv_ns for entry in self._events_since_discontinuity()), 0)

    def forget_stored(self, position: StoredPosition, unacknowledged: int, *, reading: bool) -> bool:
        """The active instance has sent its status: the event at `position` is stored last, and
        `unacknowledged` events after it are not stored yet. `reading` says whether both instances have a
        connection.

        Returns whether all evicted entries may be forgotten.
        """
        repeated, self._stored = position == self._stored, position
        found = replay_point_after(self.entries, position) if position.seq else None
        if found is not None and found.quality is JoinQuality.EXACT:
            # The event itself stays: it may be the last one for long, and the next status names it again.
            self._forget(found.entry_index - 1)
            self._preceding = None
        elif (
            unacknowledged == 0
            and repeated
            and reading
            and not self._reaches_evicted
            and not self._events_since_discontinuity()
        ):
            # A quiet stream: the stored event came before this instance began to read, and both instances
            # will read all that comes from now on.
            self._forget(len(self.entries))
            self._preceding = position
        else:
            # The event may be among the evicted entries, which are not searched here.
            self._unfound += not self._reaches_evicted
            self._anchored = self._anchored and self._unfound <= MAX_UNFOUND_STATUSES
            return False
        self._unfound = 0
        self._reaches_evicted = False
        self._anchored = all(entry.name != DISCONTINUITY for entry in self.entries)
        return True

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self.pop()

    def _events_since_discontinuity(self) -> list[Entry]:
        """All events, if no connection has ended."""
        found: list[Entry] = []
        for entry in self.entries:
            if entry.name == DISCONTINUITY:
                found.clear()
            elif entry.is_event:
                found.append(entry)
        return found

    def replay_point_after(self, entries: Iterable[Entry], position: StoredPosition) -> ReplayPoint | None:
        """The entry that follows the event at `position`; None while that event may still arrive."""
        if not position.seq:
            return ReplayPoint(0, JoinQuality.EXACT)
        found = replay_point_after(entries, position)
        exact = found is not None and found.quality is JoinQuality.EXACT
        known = self._preceding is not None and self._preceding.epoch_seq == position.epoch_seq
        return ReplayPoint(0, JoinQuality.EXACT) if known and not exact else found


def replay_point_after(entries: Iterable[Entry], position: StoredPosition) -> ReplayPoint | None:
    """After the event itself; if it is not among the entries and has an id, before the first entry with a
    higher id."""
    numbered = position.event_id >= 0
    name = position.event_id if numbered else position.digest
    best: tuple[int, int] | None = None
    above: int | None = None
    for at, entry in enumerate(entries):
        if entry.name == name:
            # Equal payloads have the same digest: the one that was read closest to that time counts.
            best = min(best or (1 << 64, 0), (abs(entry.recv_ns - position.recv_ns), at + 1))
        elif numbered and above is None and entry.name > name:
            above = at
    if best is not None:
        return ReplayPoint(best[1], JoinQuality.EXACT)
    return None if above is None else ReplayPoint(above, JoinQuality.BY_ID)


def replay_point_by_time(entries: Sequence[Entry], position: StoredPosition) -> ReplayPoint:
    """Before the first event that was read later: this may repeat an event but loses none."""
    later = (at for at, entry in enumerate(entries) if entry.is_event and entry.recv_ns > position.recv_ns)
    return ReplayPoint(next(later, len(entries)), JoinQuality.BY_TIME)
