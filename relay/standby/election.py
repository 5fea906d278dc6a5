"""What an instance of a critical stream knows of its peer, and whether it must become active; pure.

The instances decide this without the controller, which may be down. Every publisher forwards the instances'
statuses, reports itself alive as often as they send one, and reports when the connection of an instance has
ended. An instance counts as stopped when a publisher has reported itself alive several times since the
instance's last status. Messages are counted, not seconds: while a publisher, or this instance, is itself
stopped, nothing is counted against the peer. If both instances believe for a moment that they are active, no
harm is done: the later epoch fences the earlier one, which ends once it receives the other's status.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.primitives.condition import held_since
from relay.standby.peer_status import PeerStatus

# A peer counts as dead after this many messages of a publisher without a status of the peer between them.
MAX_MISSED_STATUSES = 4
# This many messages of a publisher must have come before an instance without a status counts as absent.
MIN_STATUSES = 4
# An instance that has lost its last connection to a publisher opens another one within this time, unless it
# is dead.
RECONNECT_GRACE_S = 0.3
# When no instance was ever active, only the one with the lowest rank may start at once. Any other instance
# waits this long, even if it sees no peer: the peer may still be starting, and have more to replay.
STARTUP_DELAY_S = 3.0
# An instance whose replay buffer does not reach back to the stored position waits this long for the instance
# on the node with the journal: longer than a restart takes.
JOURNAL_NODE_DELAY_S = 10.0


@dataclass(slots=True)
class _Peer:
    """`missed_by_publisher` has the publishers through which it is connected, and how many messages each of
    them has sent since the last status. `left_at` is when the last publisher was removed."""

    status: PeerStatus
    missed_by_publisher: dict[str, int] = field(default_factory=dict)
    left_at: float = 0.0

    def alive(self, now: float) -> bool:
        if self.missed_by_publisher:
            return min(self.missed_by_publisher.values()) < MAX_MISSED_STATUSES
        return now - self.left_at <= RECONNECT_GRACE_S


class Election:
    """As the instance `instance_id` sees it. Times are monotonic seconds; `publisher` names one connection to
    a publisher, and is new for each connection."""

    def __init__(self, instance_id: int) -> None:
        self._instance_id = instance_id
        self._links: dict[str, int] = {}
        self._peers: dict[int, _Peer] = {}
        self._active: PeerStatus | None = None
        # Since when no active instance has been known, and since when every peer that exists is known.
        self._leaderless_at: float | None = None
        self._informed_at: float | None = None

    @property
    def active(self) -> PeerStatus | None:
        """The last status received from the active instance with the highest epoch, even if it is dead."""
        return self._active

    def link_opened(self, publisher: str) -> None:
        self._links[publisher] = 0

    def link_closed(self, publisher: str, now: float) -> None:
        """The connection of this instance has ended, which says nothing about the peer."""
        self._links.pop(publisher, None)
        for peer in self._peers.values():
            _remove_publisher(peer, publisher, now)

    def publisher_alive(self, publisher: str) -> None:
        """The publisher has reported that it is alive."""
        if publisher in self._links:
            self._links[publisher] += 1
            for peer in self._peers.values():
                if publisher in peer.missed_by_publisher:
                    peer.missed_by_publisher[publisher] += 1

    def status_received(self, publisher: str, status: PeerStatus) -> None:
        if status.instance_id == self._instance_id or publisher not in self._links:
            return
        peer = self._peers.setdefault(status.instance_id, _Peer(status))
        peer.status = status
        peer.missed_by_publisher[publisher] = 0
        if status.active and (self._active is None or status.epoch >= self._active.epoch):
            self._active = status

    def peer_left(self, publisher: str, instance_id: int, now: float) -> None:
        """The publisher has reported that the peer's connection to it has ended."""
        peer = self._peers.get(instance_id)
        if peer is not None:
            _remove_publisher(peer, publisher, now)

    def peer(self, now: float) -> PeerStatus | None:
        """The last status of the peer, None if there is none now. While a new process replaces a peer, both
        may be known: an active one counts before a standby, then the higher epoch."""
        self._forget_dead(now)
        statuses = [peer.status for peer in self._peers.values()]
        return max(
            statuses, key=lambda status: (status.active, status.epoch, status.instance_id), default=None
        )

    def must_take_over(self, own: PeerStatus, now: float, *, covers: bool) -> bool:
        """Call about every 50 ms, with this instance's `own` status. `covers` says that what it can replay
        reaches back to the stored position."""
        self._forget_dead(now)
        informed = any(messages >= MIN_STATUSES for messages in self._links.values())
        led = any(peer.status.active for peer in self._peers.values())
        self._informed_at = held_since(self._informed_at, informed, now)
        self._leaderless_at = held_since(self._leaderless_at, informed and not led, now)
        if self._leaderless_at is None or self._informed_at is None:
            return False
        return now - self._leaderless_at >= self._delay_s(own, covers)

    def _delay_s(self, own: PeerStatus, covers: bool) -> float:
        if self._active is not None:
            return 0.0 if covers else JOURNAL_NODE_DELAY_S
        statuses = [peer.status for peer in self._peers.values()]
        first = bool(statuses) and all(
            own.election_rank < status.election_rank and not status.ready for status in statuses
        )
        return 0.0 if first else STARTUP_DELAY_S

    def superseded_by(self, epoch: int) -> int | None:
        """The epoch of another active instance if it is above this one's own `epoch`."""
        return self._active.epoch if self._active is not None and self._active.epoch > epoch else None

    def _forget_dead(self, now: float) -> None:
        self._peers = {name: peer for name, peer in self._peers.items() if peer.alive(now)}


def _remove_publisher(peer: _Peer, publisher: str, now: float) -> None:
    if peer.missed_by_publisher.pop(publisher, None) is not None and not peer.missed_by_publisher:
        peer.left_at = now
