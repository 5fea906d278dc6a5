"""What one leg of a critical stream knows of the other, and whether it is its turn to be hot; pure.

Nobody else decides: the controller may be away. Every publisher passes on what the legs say, says that it is
alive as often as they do, and tells when a connection of theirs has ended. So a leg that is stopped shows in
how often a publisher was heard since the leg's last word: it is counted in words and not in seconds, so that
a publisher that was itself stopped, or this leg, accuses nobody. Two legs that believe to be hot for a moment
do no harm, since the later epoch fences the earlier one; the earlier one ends once it hears of the later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.primitives.condition import held_since
from relay.standby.peer_status import PeerStatus

# Words of a publisher without one of the leg between them.
MAX_MISSED_STATUSES = 4
# Before it is known who is there, a publisher has to have been heard so often.
MIN_STATUSES = 4
# A leg that has lost its connection has opened another one by then, unless it is dead.
RECONNECT_GRACE_S = 0.3
# A leg that knows of no hot one leaves one that has more so much time, be it there or not.
STARTUP_DELAY_S = 3.0
# A leg whose memory does not reach back to what is stored leaves the journal's node so much: longer than a
# restart takes.
JOURNAL_NODE_DELAY_S = 10.0


@dataclass(slots=True)
class _Peer:
    """`vouchers` are the publishers that last said that it is there, with their words since its last one."""

    status: PeerStatus
    witnesses: dict[str, int] = field(default_factory=dict)
    left_at: float = 0.0

    def alive(self, now: float) -> bool:
        if self.witnesses:
            return min(self.witnesses.values()) < MAX_MISSED_STATUSES
        return now - self.left_at <= RECONNECT_GRACE_S


class Election:
    """Of the leg named `leg`. Times are monotonic seconds; connections to publishers go by any names."""

    def __init__(self, instance_id: int) -> None:
        self._instance_id = instance_id
        self._links: dict[str, int] = {}
        self._peers: dict[int, _Peer] = {}
        self._active: PeerStatus | None = None
        # Since when nobody has been hot, and since when it has been known who is there.
        self._leaderless_at: float | None = None
        self._informed_at: float | None = None

    @property
    def active(self) -> PeerStatus | None:
        """The last word of the hot leg with the highest epoch that was ever heard of."""
        return self._active

    def link_opened(self, publisher: str) -> None:
        self._links[publisher] = 0

    def link_closed(self, publisher: str, now: float) -> None:
        """The connection to a publisher is over, which says nothing about the legs."""
        self._links.pop(publisher, None)
        for other in self._peers.values():
            _lose(other, publisher, now)

    def publisher_alive(self, publisher: str) -> None:
        """The publisher spoke for itself."""
        if publisher in self._links:
            self._links[publisher] += 1
            for other in self._peers.values():
                if publisher in other.witnesses:
                    other.witnesses[publisher] += 1

    def status_received(self, publisher: str, word: PeerStatus) -> None:
        if word.instance_id == self._instance_id or publisher not in self._links:
            return
        other = self._peers.setdefault(word.instance_id, _Peer(word))
        other.status = word
        other.witnesses[publisher] = 0
        if word.active and (self._active is None or word.epoch >= self._active.epoch):
            self._active = word

    def peer_left(self, publisher: str, leg: int, now: float) -> None:
        other = self._peers.get(leg)
        if other is not None:
            _lose(other, publisher, now)

    def peer(self, now: float) -> PeerStatus | None:
        """The last word of the other leg, if it is there; of several, that of the newest."""
        self._forget(now)
        there = [other.status for other in self._peers.values()]
        return max(there, key=lambda word: (word.active, word.epoch, word.instance_id), default=None)

    def must_take_over(self, own: PeerStatus, now: float, *, covers: bool) -> bool:
        """Ask often, with this leg's `own` word. `covers` says that what it has reaches back to what is
        stored."""
        self._forget(now)
        informed = any(words >= MIN_STATUSES for words in self._links.values())
        led = any(other.status.active for other in self._peers.values())
        self._informed_at = held_since(self._informed_at, informed, now)
        self._leaderless_at = held_since(self._leaderless_at, informed and not led, now)
        if self._leaderless_at is None or self._informed_at is None:
            return False
        return now - self._leaderless_at >= self._delay_s(own, covers)

    def _delay_s(self, own: PeerStatus, covers: bool) -> float:
        if self._active is not None:
            return 0.0 if covers else JOURNAL_NODE_DELAY_S
        words = [other.status for other in self._peers.values()]
        first = bool(words) and all(
            own.election_rank < word.election_rank and not word.ready for word in words
        )
        return 0.0 if first else STARTUP_DELAY_S

    def superseded_by(self, epoch: int) -> int | None:
        """The epoch of another hot leg that is above this leg's own `epoch`."""
        return self._active.epoch if self._active is not None and self._active.epoch > epoch else None

    def _forget(self, now: float) -> None:
        self._peers = {leg: other for leg, other in self._peers.items() if other.alive(now)}


def _lose(other: _Peer, publisher: str, now: float) -> None:
    if other.witnesses.pop(publisher, None) is not None and not other.witnesses:
        other.left_at = now
