"""What one leg of a critical stream knows of the other, and whether it is its turn to be hot; pure.

Nobody else decides: the controller may be away. Every publisher passes on what the legs say, says that it is
alive as often as they do, and tells when a connection of theirs has ended. So a leg that is stopped shows in
how often a publisher was heard since the leg's last word: it is counted in words and not in seconds, so that
a publisher that was itself stopped, or this leg, accuses nobody. Two legs that believe to be hot for a moment
do no harm, since the later epoch fences the earlier one; the earlier one ends once it hears of the later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.standby.peer_status import Word

# Words of a publisher without one of the leg between them.
MISSED_WORDS = 4
# Before it is known who is there, a publisher has to have been heard so often.
KNOWN_WORDS = 4
# A leg that has lost its connection has opened another one by then, unless it is dead.
PARTED_S = 0.3
# A leg that knows of no hot one leaves one that has more so much time, be it there or not.
YIELD_S = 3.0
# A leg whose memory does not reach back to what is stored leaves the journal's node so much: longer than a
# restart takes.
JOURNAL_S = 10.0


@dataclass(slots=True)
class _Other:
    """`vouchers` are the publishers that last said that it is there, with their words since its last one."""

    word: Word
    vouchers: dict[str, int] = field(default_factory=dict)
    parted_at: float = 0.0

    def alive(self, now: float) -> bool:
        if self.vouchers:
            return min(self.vouchers.values()) < MISSED_WORDS
        return now - self.parted_at <= PARTED_S


class Vigil:
    """Of the leg named `leg`. Times are monotonic seconds; connections to publishers go by any names."""

    def __init__(self, leg: int) -> None:
        self._leg = leg
        self._links: dict[str, int] = {}
        self._others: dict[int, _Other] = {}
        self._hot: Word | None = None
        # Since when nobody has been hot, and since when it has been known who is there.
        self._leaderless_at: float | None = None
        self._informed_at: float | None = None

    @property
    def hot(self) -> Word | None:
        """The last word of the hot leg with the highest epoch that was ever heard of."""
        return self._hot

    def opened(self, publisher: str) -> None:
        self._links[publisher] = 0

    def ended(self, publisher: str, now: float) -> None:
        """The connection to a publisher is over, which says nothing about the legs."""
        self._links.pop(publisher, None)
        for other in self._others.values():
            _lose(other, publisher, now)

    def alive(self, publisher: str) -> None:
        """The publisher spoke for itself."""
        if publisher in self._links:
            self._links[publisher] += 1
            for other in self._others.values():
                if publisher in other.vouchers:
                    other.vouchers[publisher] += 1

    def heard(self, publisher: str, word: Word) -> None:
        if word.leg == self._leg or publisher not in self._links:
            return
        other = self._others.setdefault(word.leg, _Other(word))
        other.word = word
        other.vouchers[publisher] = 0
        if word.hot and (self._hot is None or word.epoch >= self._hot.epoch):
            self._hot = word

    def parted(self, publisher: str, leg: int, now: float) -> None:
        other = self._others.get(leg)
        if other is not None:
            _lose(other, publisher, now)

    def partner(self, now: float) -> Word | None:
        """The last word of the other leg, if it is there; of several, that of the newest."""
        self._forget(now)
        there = [other.word for other in self._others.values()]
        return max(there, key=lambda word: (word.hot, word.epoch, word.leg), default=None)

    def must_take_over(self, own: Word, now: float, *, covers: bool) -> bool:
        """Ask often, with this leg's `own` word. `covers` says that what it has reaches back to what is
        stored."""
        self._forget(now)
        informed = any(words >= KNOWN_WORDS for words in self._links.values())
        led = any(other.word.hot for other in self._others.values())
        self._informed_at = _since(self._informed_at, informed, now)
        self._leaderless_at = _since(self._leaderless_at, informed and not led, now)
        if self._leaderless_at is None or self._informed_at is None:
            return False
        return now - self._leaderless_at >= self._patience_s(own, covers)

    def _patience_s(self, own: Word, covers: bool) -> float:
        if self._hot is not None:
            return 0.0 if covers else JOURNAL_S
        words = [other.word for other in self._others.values()]
        first = bool(words) and all(own.rank < word.rank and not word.ready for word in words)
        return 0.0 if first else YIELD_S

    def superseded_by(self, epoch: int) -> int | None:
        """The epoch of another hot leg that is above this leg's own `epoch`."""
        return self._hot.epoch if self._hot is not None and self._hot.epoch > epoch else None

    def _forget(self, now: float) -> None:
        self._others = {leg: other for leg, other in self._others.items() if other.alive(now)}


def _lose(other: _Other, publisher: str, now: float) -> None:
    if other.vouchers.pop(publisher, None) is not None and not other.vouchers:
        other.parted_at = now


def _since(before: float | None, holds: bool, now: float) -> float | None:
    if not holds:
        return None
    return now if before is None else before
