"""What the two legs of a critical stream say to each other, as bytes; pure.

Each leg says a word four times a second to every publisher, which passes it on as it is. It tells whether the
leg is hot, and what is stored, so that the other one need not remember it any longer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

from relay.errors import LinkError
from relay.model.position import Point

WORD_EVERY_S = 0.25
_HEAD = Struct("<QBBBQIQQQ")
_POINT = Struct("<QQqQQ")
_LEG = Struct("<Q")


@dataclass(frozen=True, slots=True)
class Word:
    """`leg` names the process. Of a hot leg, `epoch` is its incarnation and `held` what it has accepted and
    nobody acknowledged; a `ready` leg is warm and could take over without a loss. A `reading` one has a
    connection to the exchange. `takeovers` counts those that the pair has seen. `journal` is the newest epoch
    in the journal of the leg's node, `since_ns` when its unbroken reading began, by its own clock; both are 0
    where there is none.
    """

    leg: int
    hot: bool
    ready: bool = False
    reading: bool = False
    epoch: int = 0
    held: int = 0
    takeovers: int = 0
    journal: int = 0
    since_ns: int = 0
    stored: Point = field(default_factory=Point)

    @property
    def rank(self) -> tuple[int, int, int]:
        """Of legs that start together the one with the lowest goes first: that which has most."""
        return -self.journal, self.since_ns or 1 << 64, self.leg


def encode_word(word: Word) -> bytes:
    flags = word.hot, word.ready, word.reading
    head = _HEAD.pack(word.leg, *flags, word.epoch, word.held, word.takeovers, word.journal, word.since_ns)
    point = word.stored
    return head + _POINT.pack(point.epoch, point.seq, point.event_id, point.recv_ns, point.digest)


def read_word(body: bytes) -> Word:
    """Raises LinkError unless it is one."""
    if len(body) != _HEAD.size + _POINT.size:
        raise LinkError(f"a word of {len(body)} bytes")
    leg, hot, ready, reading, epoch, held, takeovers, journal, since_ns = _HEAD.unpack_from(body)
    flags = bool(hot), bool(ready), bool(reading)
    stored = Point(*_POINT.unpack_from(body, _HEAD.size))
    return Word(leg, *flags, epoch, held, takeovers, journal, since_ns, stored)


def encode_leg(leg: int) -> bytes:
    return _LEG.pack(leg)


def read_leg(body: bytes) -> int:
    """Raises LinkError unless it is one."""
    if len(body) != _LEG.size:
        raise LinkError(f"a leg's name of {len(body)} bytes")
    (leg,) = _LEG.unpack(body)
    return int(leg)
