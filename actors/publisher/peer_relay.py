"""A publisher's part in critical streams: it passes on what their legs say, and knows the highest epoch.

It believes no leg to be dead or alive. It tells what it sees: words, its own pulse between them, and the end
of a connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.adapters.link_server import PublishLink
from relay.delivery import link_codec
from relay.errors import LinkError
from relay.standby.peer_status import encode_leg, read_word

# A pair, and what is left of its predecessors for a moment.
MAX_LEGS = 8


@dataclass(eq=False, slots=True)
class _Leg:
    link: PublishLink
    key: str
    leg: int
    word: bytes = field(default=b"")


class Switchboard:
    """Use from one event loop. Streams go by their keys."""

    def __init__(self) -> None:
        self._legs: dict[PublishLink, _Leg] = {}
        self._streams: dict[str, list[_Leg]] = {}
        self._epochs: dict[str, int] = {}

    @property
    def links(self) -> tuple[PublishLink, ...]:
        return tuple(self._legs)

    def epoch_of(self, key: str) -> int:
        """The highest that a hot leg of the stream ever named; 0 if none did."""
        return self._epochs.get(key, 0)

    def join(self, link: PublishLink, key: str, leg: int) -> None:
        """It hears at once what the others said last. Raises LinkError for too many."""
        others = self._streams.setdefault(key, [])
        if len(others) >= MAX_LEGS:
            raise LinkError(f"{key} has {MAX_LEGS} legs already")
        for other in others:
            if other.word:
                link.send(other.word)
        self._legs[link] = one = _Leg(link, key, leg)
        others.append(one)

    def pass_on(self, link: PublishLink, body: bytes) -> str:
        """Returns the stream's key. Raises LinkError for a word that is none, or of somebody else."""
        one = self._legs.get(link)
        word = read_word(body)
        if one is None or word.leg != one.leg:
            raise LinkError("the peer says a word in another leg's name")
        if word.hot and word.epoch > self.epoch_of(one.key):
            self._epochs[one.key] = word.epoch
        one.word = link_codec.frame(link_codec.HEARD, body)
        self._tell(one, one.word)
        return one.key

    def leave(self, link: PublishLink) -> None:
        """Does nothing for a link that has not joined."""
        one = self._legs.pop(link, None)
        if one is None:
            return
        self._streams[one.key].remove(one)
        if self._streams[one.key]:
            self._tell(one, link_codec.frame(link_codec.PARTED, encode_leg(one.leg)))
        else:
            del self._streams[one.key]

    def _tell(self, one: _Leg, message: bytes) -> None:
        for other in self._streams[one.key]:
            if other is not one:
                other.link.send(message)

    def say_alive(self, message: bytes) -> None:
        """Call about as often as legs say words: they count."""
        for link in self.links:
            link.send(message)
