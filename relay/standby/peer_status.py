"""What the two legs of a critical stream say to each other, as bytes; pure.

Each leg says a word four times a second to every publisher, which passes it on as it is. It tells whether the
leg is hot, and what is stored, so that the other one need not remember it any longer.
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
    """`leg` names the process. Of a hot leg, `epoch` is its incarnation and `held` what it has accepted and
    nobody acknowledged; a `ready` leg is warm and could take over without a loss. A `reading` one has a
    connection to the exchange. `takeovers` counts those that the pair has seen. `journal` is the newest epoch
    in the journal of the leg's node, `since_ns` when its unbroken reading began, by its own clock; both are 0
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
        """Of legs that start together the one with the lowest goes first: that which has most."""
        return -self.journal_epoch, self.since_ns or 1 << 64, self.instance_id


def encode_status(word: PeerStatus) -> bytes:
    flags = word.active, word.ready, word.reading
    head = _HEAD.pack(
        word.instance_id,
        *flags,
        word.epoch,
        word.unacknowledged,
        word.takeovers,
        word.journal_epoch,
        word.since_ns,
    )
    point = word.stored
    return head + _POSITION.pack(point.epoch, point.seq, point.event_id, point.recv_ns, point.digest)


def read_status(body: bytes) -> PeerStatus:
    """Raises LinkError unless it is one."""
    if len(body) != _HEAD.size + _POSITION.size:
        raise LinkError(f"a word of {len(body)} bytes")
    leg, hot, ready, reading, epoch, held, takeovers, journal, since_ns = _HEAD.unpack_from(body)
    flags = bool(hot), bool(ready), bool(reading)
    stored = StoredPosition(*_POSITION.unpack_from(body, _HEAD.size))
    return PeerStatus(leg, *flags, epoch, held, takeovers, journal, since_ns, stored)


def encode_instance_id(leg: int) -> bytes:
    return _INSTANCE_ID.pack(leg)


def read_instance_id(body: bytes) -> int:
    """Raises LinkError unless it is one."""
    if len(body) != _INSTANCE_ID.size:
        raise LinkError(f"a leg's name of {len(body)} bytes")
    (leg,) = _INSTANCE_ID.unpack(body)
    return int(leg)
