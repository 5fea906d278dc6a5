"""Two sockets of one stream while one takes over from the other: which events came on both; pure.

The exchange sends one sequence of events. The old socket has delivered it so far, the new one gets a tail of
it, from an event on that nobody names. So the two are aligned as sequences, not as sets: an event that the
exchange sends twice comes out twice. That is exact for events that are unique, and for equal events in direct
succession; where a pattern of events recurs, it waits until one alignment is left.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

from relay.binance.classifier import PayloadClass, PayloadClassifier
from relay.binance.streams import StreamSpec

# Beyond these a match is not to be hoped for: seconds of the busiest stream, and a payload in endless repeat.
MAX_EVENTS = 10_000
MAX_STARTS = 64

Key = Callable[[bytes], Hashable | None]


class _OverlapEvent(NamedTuple):
    key: Hashable
    payload: bytes
    recv_ns: int


class Read(NamedTuple):
    """Payloads that were read together."""

    payloads: list[bytes]
    recv_ns: int


def event_key(spec: StreamSpec) -> Key:
    """By what an event is known on two sockets: its id, else its bytes; None for what is no event."""
    classify = PayloadClassifier(spec)

    def key(payload: bytes) -> Hashable | None:
        verdict = classify(payload)
        if verdict.payload_class is not PayloadClass.ACCEPTED:
            return None
        return verdict.event_id if spec.id_key else payload

    return key


class Overlap:
    """Fed with what each socket brings; the old one's events count as delivered, the new one's are held.

    With `unique` keys one match aligns the two. After `join` what the new socket brings belongs into
    `pass_on`. `removed` events came on both; `torn` says that one that was to come again did not.
    """

    def __init__(self, key: Key, *, unique: bool) -> None:
        self.removed = 0
        self.misaligned = False
        self.unique = unique
        self._key = key
        self._old: list[Hashable] = []
        self._held: list[_OverlapEvent] = []
        # Places in `_old` where the new socket's sequence may begin, by all that is known.
        self._starts: list[int] = []
        # The first place in `_held` whose event differs from the first one: before it, a run of equal events
        # fits anywhere in the old socket's run.
        self._first_change: int | None = None
        self._next = 0

    def old(self, payloads: list[bytes]) -> int:
        """Returns how many of them are events."""
        keys = [key for payload in payloads if (key := self._key(payload)) is not None]
        for key in keys:
            at = len(self._old)
            self._old.append(key)
            self._starts = [start for start in self._starts if self._fits(start, at - start)]
            if self._held and self._held[0].key == key:
                self._starts.append(at)
        return len(keys)

    def new(self, payloads: list[bytes], recv_ns: int) -> list[bytes]:
        """Holds the events; returns the rest."""
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
        """Whether the new socket's event `at` is the one that the old socket had there, if both have come."""
        if at >= len(self._held) or start + at >= len(self._old):
            return True
        return self._held[at].key == self._old[start + at]

    @property
    def holding(self) -> bool:
        return bool(self._held)

    @property
    def matched(self) -> bool:
        """The new socket's events fit into the old one's somewhere, be it in several places."""
        return bool(self._starts)

    @property
    def aligned(self) -> bool:
        """They fit in one place, and no event to come can change that."""
        if len(self._starts) != 1:
            return False
        reach = len(self._old) - self._starts[0]
        return self.unique or (self._first_change is not None and reach > self._first_change)

    @property
    def hopeless(self) -> bool:
        return max(len(self._old), len(self._held)) > MAX_EVENTS or len(self._starts) > MAX_STARTS

    def events_after_old(self) -> list[Read]:
        """What the new socket brought beyond the old one; without a match, everything that is held.

        Of several places where it fits the last one counts: rather repeat than lose.
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
        """Events are still to come on the new socket that the old one has delivered."""
        return self._next < len(self._old)

    def drop_delivered(self, payloads: list[bytes]) -> list[bytes]:
        """The payloads without the events that the old socket has delivered."""
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
