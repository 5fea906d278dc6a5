"""A publisher's part in critical streams: it passes on what their legs say, and knows the highest epoch.

It believes no leg to be dead or alive. It tells what it sees: words, its own pulse between them, and the end
of a connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.adapters.link_server import LinkServerConnection
from relay.delivery import link_codec
from relay.errors import LinkError
from relay.standby.peer_status import encode_instance_id, read_status

# A pair, and what is left of its predecessors for a moment.
MAX_INSTANCES = 8


@dataclass(eq=False, slots=True)
class _Instance:
    link: LinkServerConnection
    key: str
    instance_id: int
    last_status: bytes = field(default=b"")


class PeerRelay:
    """Use from one event loop. Streams go by their keys."""

    def __init__(self) -> None:
        self._legs: dict[LinkServerConnection, _Instance] = {}
        self._streams: dict[str, list[_Instance]] = {}
        self._epochs: dict[str, int] = {}

    @property
    def links(self) -> tuple[LinkServerConnection, ...]:
        return tuple(self._legs)

    def epoch_of(self, key: str) -> int:
        """The highest that a hot leg of the stream ever named; 0 if none did."""
        return self._epochs.get(key, 0)

    def join(self, link: LinkServerConnection, key: str, leg: int) -> None:
        """It hears at once what the others said last. Raises LinkError for too many."""
        others = self._streams.setdefault(key, [])
        if len(others) >= MAX_INSTANCES:
            raise LinkError(f"{key} has {MAX_INSTANCES} legs already")
        for other in others:
            if other.last_status:
                link.send(other.last_status)
        self._legs[link] = one = _Instance(link, key, leg)
        others.append(one)

    def forward(self, link: LinkServerConnection, body: bytes) -> str:
        """Returns the stream's key. Raises LinkError for a word that is none, or of somebody else."""
        one = self._legs.get(link)
        word = read_status(body)
        if one is None or word.instance_id != one.instance_id:
            raise LinkError("the peer says a word in another leg's name")
        if word.active and word.epoch > self.epoch_of(one.key):
            self._epochs[one.key] = word.epoch
        one.last_status = link_codec.frame(link_codec.PEER_STATUS, body)
        self._send(one, one.last_status)
        return one.key

    def peer_left(self, link: LinkServerConnection) -> None:
        """Does nothing for a link that has not joined."""
        one = self._legs.pop(link, None)
        if one is None:
            return
        self._streams[one.key].remove(one)
        if self._streams[one.key]:
            self._send(one, link_codec.frame(link_codec.PEER_LEFT, encode_instance_id(one.instance_id)))
        else:
            del self._streams[one.key]

    def _send(self, one: _Instance, message: bytes) -> None:
        for other in self._streams[one.key]:
            if other is not one:
                other.link.send(message)

    def say_alive(self, message: bytes) -> None:
        """Call about as often as legs say words: they count."""
        for link in self.links:
            link.send(message)
