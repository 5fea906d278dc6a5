"""What the warm leg of a critical stream has read and must remember: everything behind what is stored; pure.

Events go by a name: the exchange's id where it is unique, else a digest of the payload. The hot leg's word
names the last event that is stored, and all before that is forgotten. On a takeover NATS names it, and
`place_after` says which event comes next.

Two sockets of the same stream need not be equal byte for byte where there are no ids. Where the stored event
is not found, the time of reading has to do, and whoever takes over says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from relay.binance.classifier import PayloadClass, PayloadClassifier
from relay.binance.streams import StreamSpec
from relay.model.position import SAME_TIME_NS, StoredPosition, digest_of

# Names of what is no event: a frame to be rejected, and the place where the connection was another one.
REJECTED, DISCONTINUITY = -1, -2
# Words in a row whose event was not found here: it is not a matter of one socket lagging any more.
MAX_UNFOUND_STATUSES = 4
# Evicted at once: this part of what memory may hold.
EVICTED_FRACTION = 4


class Entry(NamedTuple):
    name: int
    payload: bytes
    recv_ns: int

    @property
    def is_event(self) -> bool:
        return self.name >= 0


class JoinQuality(Enum):
    """How what a leg remembers joins what is stored."""

    EXACT = "exact"
    BY_ID = "by id"
    """The event itself is not remembered, but ids tell whether one is missing behind it."""
    BY_TIME = "by time"
    """Events may be missing or come again."""


class ReplayPoint(NamedTuple):
    """Go on with entry number `at`, from 0."""

    entry_index: int
    quality: JoinQuality


class AppendResult(NamedTuple):
    events: int
    shutdown: bool


class ReplayBuffer:
    """The newest entries, oldest first; what `evict` gives came before them. Call `evict` after `take`.

    Of what was read since `since_ns`, everything is remembered or stored; 0 while nothing was read.
    """

    def __init__(self, spec: StreamSpec, *, max_messages: int, max_bytes: int) -> None:
        self.entries: deque[Entry] = deque()
        self.memory_bytes = 0
        self.since_ns = 0
        self.numbered = bool(spec.id_key)
        self._classify = PayloadClassifier(spec)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # Nothing was read between this event and the first entry.
        self._preceding: StoredPosition | None = None
        # The last event that is stored is remembered, or is the base, and everything since then.
        self._anchored = False
        self._stored = StoredPosition()
        self._unfound = 0
        # What was evicted is kept, and begins where memory once did.
        self._reaches_evicted = False

    @property
    def covers(self) -> bool:
        """It reaches back to what is stored, as far as this is known."""
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
            verdict = self._classify(payload)
            if verdict.payload_class is PayloadClass.ACCEPTED:
                events += 1
                name = verdict.event_id if self.numbered else digest_of(payload)
                self._append_entry(Entry(name, payload, recv_ns))
            elif verdict.payload_class is PayloadClass.REJECTED:
                self._append_entry(Entry(REJECTED, payload, recv_ns))
            elif verdict.payload_class is PayloadClass.SHUTDOWN:
                shutdown = True
        return AppendResult(events, shutdown)

    def _append_entry(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.memory_bytes += len(entry.payload)
        self.since_ns = self.since_ns or entry.recv_ns

    def mark_discontinuity(self) -> None:
        """Events may be missing between those that were read and those that will be."""
        if self.entries and self.entries[-1].name != DISCONTINUITY:
            self.entries.append(Entry(DISCONTINUITY, b"", self.entries[-1].recv_ns))
        self._anchored = False
        self.since_ns = 0

    def evict(self) -> list[Entry]:
        """The oldest, once there is more than memory may hold: keep them elsewhere, or call `lost`."""
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
        """What was evicted is not to be had any more."""
        self._anchored = self._reaches_evicted = False
        self._preceding = None
        self.since_ns = next((entry.recv_ns for entry in self._events_since_discontinuity()), 0)

    def forget_stored(self, point: StoredPosition, held: int, *, reading: bool) -> bool:
        """The hot leg's word: this event is stored, and `held` are on their way behind it. `reading` says
        whether both legs have a connection.

        Returns whether everything that was evicted may be forgotten.
        """
        repeated, self._stored = point == self._stored, point
        place = replay_point_after(self.entries, point) if point.seq else None
        if place is not None and place.quality is JoinQuality.EXACT:
            # The event itself stays: it may be the last one for long.
            self._forget(place.entry_index - 1)
            self._preceding = None
        elif (
            held == 0
            and repeated
            and reading
            and not self._reaches_evicted
            and not self._events_since_discontinuity()
        ):
            # A calm: the event came before this leg began to read, and whatever comes now, both legs read.
            self._forget(len(self.entries))
            self._preceding = point
        else:
            # It may be among what was evicted.
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
        """The events that were read since then."""
        found: list[Entry] = []
        for entry in self.entries:
            if entry.name == DISCONTINUITY:
                found.clear()
            elif entry.is_event:
                found.append(entry)
        return found

    def replay_point_after(self, entries: Iterable[Entry], point: StoredPosition) -> ReplayPoint | None:
        """Which of these comes behind that event; None while it may be still to come."""
        if not point.seq:
            return ReplayPoint(0, JoinQuality.EXACT)
        place = replay_point_after(entries, point)
        exact = place is not None and place.quality is JoinQuality.EXACT
        known = self._preceding is not None and self._preceding.epoch_seq == point.epoch_seq
        return ReplayPoint(0, JoinQuality.EXACT) if known and not exact else place


def replay_point_after(entries: Iterable[Entry], point: StoredPosition) -> ReplayPoint | None:
    """Behind the event itself; if it is not there and has an id, before the first one with a higher id."""
    numbered = point.event_id >= 0
    name = point.event_id if numbered else point.digest
    best: tuple[int, int] | None = None
    above: int | None = None
    for at, entry in enumerate(entries):
        if entry.name == name:
            # Of equal events the one that was read at about that time.
            best = min(best or (1 << 64, 0), (abs(entry.recv_ns - point.recv_ns), at + 1))
        elif numbered and above is None and entry.name > name:
            above = at
    if best is not None:
        return ReplayPoint(best[1], JoinQuality.EXACT)
    return None if above is None else ReplayPoint(above, JoinQuality.BY_ID)


def replay_point_by_time(entries: Sequence[Entry], point: StoredPosition) -> ReplayPoint:
    """Before the first one that was read later: rather a repeat than a loss."""
    later = (at for at, entry in enumerate(entries) if entry.is_event and entry.recv_ns > point.recv_ns)
    return ReplayPoint(next(later, len(entries)), JoinQuality.BY_TIME)
