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

from relay.binance.classifier import FrameClassifier, Outcome
from relay.binance.streams import StreamSpec
from relay.model.position import Point, digest_of

# Names of what is no event: a frame to be rejected, and the place where the connection was another one.
REJECTED, BREAK = -1, -2
# Words in a row whose event was not found here: it is not a matter of one socket lagging any more.
UNFOUND_WORDS = 4
# Two sockets read the same event at times, by two clocks, that differ by less.
SAME_TIME_NS = 1_000_000_000
# Evicted at once: this part of what memory may hold.
EVICTED_PART = 4


class Entry(NamedTuple):
    name: int
    payload: bytes
    recv_ns: int

    @property
    def is_event(self) -> bool:
        return self.name >= 0


class Seam(Enum):
    """How what a leg remembers joins what is stored."""

    EXACT = "exact"
    BY_ID = "by id"
    """The event itself is not remembered, but ids tell whether one is missing behind it."""
    BY_TIME = "by time"
    """Events may be missing or come again."""


class Place(NamedTuple):
    """Go on with entry number `at`, from 0."""

    at: int
    seam: Seam


class Seen(NamedTuple):
    events: int
    shutdown: bool


class Ring:
    """The newest entries, oldest first; what `evict` gives came before them. Call `evict` after `take`.

    Of what was read since `since_ns`, everything is remembered or stored; 0 while nothing was read.
    """

    def __init__(self, spec: StreamSpec, *, max_messages: int, max_bytes: int) -> None:
        self.entries: deque[Entry] = deque()
        self.memory_bytes = 0
        self.since_ns = 0
        self.numbered = bool(spec.id_key)
        self._classify = FrameClassifier(spec)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # Nothing was read between this event and the first entry.
        self._base: Point | None = None
        # The last event that is stored is remembered, or is the base, and everything since then.
        self._anchored = False
        self._stored = Point()
        self._unfound = 0
        # What was evicted is kept, and begins where memory once did.
        self._beyond = False

    @property
    def covers(self) -> bool:
        """It reaches back to what is stored, as far as this is known."""
        return self._anchored or (not self.numbered and self._covers_by_time)

    @property
    def _covers_by_time(self) -> bool:
        return 0 < self.since_ns < self._stored.recv_ns - SAME_TIME_NS

    def take(self, payloads: Sequence[bytes], recv_ns: int) -> Seen:
        event_ids = self._classify.event_ids(payloads)
        if event_ids is None:
            return self._take_with_thought(payloads, recv_ns)
        names = event_ids if self.numbered else map(digest_of, payloads)
        for name, payload in zip(names, payloads, strict=True):
            self._keep(Entry(name, payload, recv_ns))
        return Seen(len(payloads), False)

    def _take_with_thought(self, payloads: Sequence[bytes], recv_ns: int) -> Seen:
        events, shutdown = 0, False
        for payload in payloads:
            verdict = self._classify(payload)
            if verdict.outcome is Outcome.ACCEPTED:
                events += 1
                name = verdict.event_id if self.numbered else digest_of(payload)
                self._keep(Entry(name, payload, recv_ns))
            elif verdict.outcome is Outcome.REJECTED:
                self._keep(Entry(REJECTED, payload, recv_ns))
            elif verdict.outcome is Outcome.SHUTDOWN:
                shutdown = True
        return Seen(events, shutdown)

    def _keep(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.memory_bytes += len(entry.payload)
        self.since_ns = self.since_ns or entry.recv_ns

    def broke(self) -> None:
        """Events may be missing between those that were read and those that will be."""
        if self.entries and self.entries[-1].name != BREAK:
            self.entries.append(Entry(BREAK, b"", self.entries[-1].recv_ns))
        self._anchored = False
        self.since_ns = 0

    def evict(self) -> list[Entry]:
        """The oldest, once there is more than memory may hold: keep them elsewhere, or call `lost`."""
        if len(self.entries) <= self._max_messages and self.memory_bytes <= self._max_bytes:
            return []
        messages = self._max_messages - self._max_messages // EVICTED_PART
        size = self._max_bytes - self._max_bytes // EVICTED_PART
        evicted = []
        while self.entries and (len(self.entries) > messages or self.memory_bytes > size):
            evicted.append(self.pop())
        self._beyond = True
        return evicted

    def pop(self) -> Entry:
        entry = self.entries.popleft()
        self.memory_bytes -= len(entry.payload)
        return entry

    def lost(self) -> None:
        """What was evicted is not to be had any more."""
        self._anchored = self._beyond = False
        self._base = None
        self.since_ns = next((entry.recv_ns for entry in self._since_break()), 0)

    def stored(self, point: Point, held: int, *, reading: bool) -> bool:
        """The hot leg's word: this event is stored, and `held` are on their way behind it. `reading` says
        whether both legs have a connection.

        Returns whether everything that was evicted may be forgotten.
        """
        repeated, self._stored = point == self._stored, point
        place = place_after(self.entries, point) if point.seq else None
        if place is not None and place.seam is Seam.EXACT:
            # The event itself stays: it may be the last one for long.
            self._forget(place.at - 1)
            self._base = None
        elif held == 0 and repeated and reading and not self._beyond and not self._since_break():
            # A calm: the event came before this leg began to read, and whatever comes now, both legs read.
            self._forget(len(self.entries))
            self._base = point
        else:
            # It may be among what was evicted.
            self._unfound += not self._beyond
            self._anchored = self._anchored and self._unfound <= UNFOUND_WORDS
            return False
        self._unfound = 0
        self._beyond = False
        self._anchored = all(entry.name != BREAK for entry in self.entries)
        return True

    def _forget(self, count: int) -> None:
        for _ in range(count):
            self.pop()

    def _since_break(self) -> list[Entry]:
        """The events that were read since then."""
        found: list[Entry] = []
        for entry in self.entries:
            if entry.name == BREAK:
                found.clear()
            elif entry.is_event:
                found.append(entry)
        return found

    def place_after(self, entries: Iterable[Entry], point: Point) -> Place | None:
        """Which of these comes behind that event; None while it may be still to come."""
        if not point.seq:
            return Place(0, Seam.EXACT)
        place = place_after(entries, point)
        exact = place is not None and place.seam is Seam.EXACT
        known = self._base is not None and self._base.position == point.position
        return Place(0, Seam.EXACT) if known and not exact else place


def place_after(entries: Iterable[Entry], point: Point) -> Place | None:
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
        return Place(best[1], Seam.EXACT)
    return None if above is None else Place(above, Seam.BY_ID)


def place_by_time(entries: Sequence[Entry], point: Point) -> Place:
    """Before the first one that was read later: rather a repeat than a loss."""
    later = (at for at, entry in enumerate(entries) if entry.is_event and entry.recv_ns > point.recv_ns)
    return Place(next(later, len(entries)), Seam.BY_TIME)
