"""Which events came on both connections of a stream while one replaces the other; pure.

The exchange sends one sequence of events. The old connection has delivered it so far; the new one delivers
the end of it, from an unknown event on. So the two are aligned as sequences, not as sets: an event that the
exchange sends twice is kept twice. That is exact for events that are unique, and for equal events in direct
succession; where a pattern of events recurs, the alignment waits until only one is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from relay.binance.classifier import PayloadClass, PayloadClassifier
from relay.binance.streams import StreamSpec

# Beyond these limits no alignment is expected: seconds of the busiest stream without a match, or a payload
# that repeats endlessly.
MAX_EVENTS = 10_000
MAX_STARTS = 64

Key = Callable[[bytes], Hashable | None]
"""The key by which an event is recognised on both connections; None for a payload that is no event."""


class _OverlapEvent(NamedTuple):
    key: Hashable
    payload: bytes
    recv_ns: int


class Read(NamedTuple):
    """Payloads that were read together."""

    payloads: list[bytes]
    recv_ns: int


def event_key(spec: StreamSpec) -> Key:
    """The event's id, where the stream has unique ids, else the whole payload."""
    classify = PayloadClassifier(spec)

    def key(payload: bytes) -> Hashable | None:
        classification = classify(payload)
        if classification.payload_class is not PayloadClass.ACCEPTED:
            return None
        return classification.event_id if spec.id_key else payload

    return key


class Overlap:
    """Gets the payloads of both connections; the old one's events count as delivered, the new one's are held.

    With `unique` keys one match aligns the two. After `events_after_old` the new connection's payloads go
    through `drop_delivered`. `removed` counts the events that came on both; `misaligned` turns true when the
    new connection did not repeat an event that the old one had delivered, so the alignment was wrong.
    """

    def __init__(self, key: Key, *, unique: bool) -> None:
        self.removed = 0
        self.misaligned = False
        self.unique = unique
        self._key = key
        self._old: list[Hashable] = []
        self._held: list[_OverlapEvent] = []
        # Positions in `_old` where the new connection's sequence may begin, by all events so far.
        self._starts: list[int] = []
        # The first position in `_held` whose event differs from the first one. Until there is one, a run of
        # equal events fits anywhere in the old connection's run.
        self._first_change: int | None = None
        self._next = 0

    def old(self, payloads: list[bytes]) -> int:
        """What the old connection brought. Returns how many of the payloads are events."""
        keys = [key for payload in payloads if (key := self._key(payload)) is not None]
        for key in keys:
            at = len(self._old)
            self._old.append(key)
            self._starts = [start for start in self._starts if self._fits(start, at - start)]
            if self._held and self._held[0].key == key:
                self._starts.append(at)
        return len(keys)

    def new(self, payloads: list[bytes], recv_ns: int) -> list[bytes]:
        """What the new connection brought. Holds the events and returns the other payloads."""
        rest = []
        for payload in payloads:
            key = self._key(payload)
            if key is None:
                rest.append(payload)
            else:
                self._hold(_OverlapEvent(key, payload, recv_ns))
        return rest

    def _hold(self, held: _OverlapEvent) -> None:
        at = len(self._held)
        self._held.append(held)
        if at == 0:
            self._starts = [start for start, key in enumerate(self._old) if key == held.key]
            return
        self._starts = [start for start in self._starts if self._fits(start, at)]
        if self._first_change is None and held.key != self._held[0].key:
            self._first_change = at

    def _fits(self, start: int, at: int) -> bool:
        """Whether the new connection's event `at` equals the old one's there; True while one of them is
        unknown."""
        if at >= len(self._held) or start + at >= len(self._old):
            return True
        return self._held[at].key == self._old[start + at]

    @property
    def holding(self) -> bool:
        return bool(self._held)

    @property
    def matched(self) -> bool:
        """The new connection's events fit into the old one's sequence, in one place or in several."""
        return bool(self._starts)

    @property
    def aligned(self) -> bool:
        """They fit in exactly one place, and no later event can change that."""
        if len(self._starts) != 1:
            return False
        reach = len(self._old) - self._starts[0]
        return self.unique or (self._first_change is not None and reach > self._first_change)

    @property
    def hopeless(self) -> bool:
        return max(len(self._old), len(self._held)) > MAX_EVENTS or len(self._starts) > MAX_STARTS

    def events_after_old(self) -> list[Read]:
        """The new connection's events that the old one did not bring; without a match, all that are held.

        If they fit in several places, the last one counts: events may then be repeated, but none is lost.
        """
        start = self._starts[-1] if self._starts else len(self._old)
        self._old = self._old[start:]
        self.removed = len(self._old)
        self._next = min(len(self._held), self.removed)
        return _reads(self._held[self.removed :])

    def all_events(self) -> list[Read]:
        """Everything that is held, aligned or not."""
        self._old.clear()
        return _reads(self._held)

    @property
    def skipping(self) -> bool:
        """The new connection has yet to repeat events that the old one delivered."""
        return self._next < len(self._old)

    def drop_delivered(self, payloads: list[bytes]) -> list[bytes]:
        """The payloads without the events that the old connection has delivered."""
        kept = []
        for payload in payloads:
            key = self._key(payload) if self.skipping else None
            if key is None:
                kept.append(payload)
            elif key == self._old[self._next]:
                self._next += 1
            else:
                self.misaligned = True
                self._old.clear()
                kept.append(payload)
        return kept


def _reads(held: list[_OverlapEvent]) -> list[Read]:
    reads: list[Read] = []
    for each in held:
        if reads and reads[-1].recv_ns == each.recv_ns:
            reads[-1].payloads.append(each.payload)
        else:
            reads.append(Read([each.payload], each.recv_ns))
    return reads
