"""What the two instances of a critical stream tell each other, as bytes; pure.

Each instance sends its status four times a second to every publisher, which forwards it unchanged. The status
says whether the instance is active, and which event is stored last, so that the other instance can forget all
events up to that one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

from relay.errors import LinkError
from relay.model.position import StoredPosition

STATUS_INTERVAL_S = 0.25
_HEAD = Struct("<QBBBQIQQQ")
_POSITION = Struct("<QQqQQ")
_INSTANCE_ID = Struct("<Q")


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """`instance_id` names the process, `epoch` the incarnation of an active one. `unacknowledged` counts the
    events that an active instance has accepted and that are not stored yet. `ready` means a standby that
    could take over now without a loss, `reading` that the instance has a connection to the exchange and reads
    from it. `takeovers` counts those of the pair. `journal_epoch` is the newest epoch in the journal of the
    instance's node, `since_ns` when its unbroken reading began, by its own clock (Unix time); both are 0
    where there is none.
    """

    instance_id: int
    active: bool
    ready: bool = False
    reading: bool = False
    epoch: int = 0
    unacknowledged: int = 0
    takeovers: int = 0
    journal_epoch: int = 0
    since_ns: int = 0
    stored: StoredPosition = field(default_factory=StoredPosition)

    @property
    def election_rank(self) -> tuple[int, int, int]:
        """Of instances that start together, the lowest becomes active: the one with the newest journal, or
        else the one that has read longest, since it can replay most."""
        return -self.journal_epoch, self.since_ns or 1 << 64, self.instance_id


def encode_status(status: PeerStatus) -> bytes:
    flags = status.active, status.ready, status.reading
    head = _HEAD.pack(
        status.instance_id,
        *flags,
        status.epoch,
        status.unacknowledged,
        status.takeovers,
        status.journal_epoch,
        status.since_ns,
    )
    stored = status.stored
    return head + _POSITION.pack(stored.epoch, stored.seq, stored.event_id, stored.recv_ns, stored.digest)


def read_status(body: bytes) -> PeerStatus:
    """Raises LinkError if `body` is no status."""
    if len(body) != _HEAD.size + _POSITION.size:
        raise LinkError(f"a peer status of {len(body)} bytes")
    head = _HEAD.unpack_from(body)
    instance_id, active, ready, reading, epoch, unacknowledged, takeovers, journal_epoch, since_ns = head
    stored = StoredPosition(*_POSITION.unpack_from(body, _HEAD.size))
    return PeerStatus(
        instance_id,
        bool(active),
        bool(ready),
        bool(reading),
        epoch,
        unacknowledged,
        takeovers,
        journal_epoch,
        since_ns,
        stored,
    )


def encode_instance_id(instance_id: int) -> bytes:
    return _INSTANCE_ID.pack(instance_id)


def read_instance_id(body: bytes) -> int:
    """Raises LinkError if `body` is no instance id."""
    if len(body) != _INSTANCE_ID.size:
        raise LinkError(f"an instance id of {len(body)} bytes")
    (instance_id,) = _INSTANCE_ID.unpack(body)
    return int(instance_id)
