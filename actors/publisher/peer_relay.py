"""Forwards statuses between the instances of critical streams, and keeps each stream's highest epoch.

It does not decide which instance is alive. It sends what it observes: statuses, its own Alive between them,
and the end of a connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from relay.adapters.link_server import LinkServerConnection
from relay.delivery import link_codec
from relay.errors import LinkError
from relay.standby.peer_status import encode_instance_id, read_status

# Two instances, and for a moment the connections of their predecessors.
MAX_INSTANCES = 8


@dataclass(eq=False, slots=True)
class _Instance:
    link: LinkServerConnection
    key: str
    instance_id: int
    last_status: bytes = field(default=b"")


class PeerRelay:
    """Use from one event loop. Streams are named by their keys."""

    def __init__(self) -> None:
        self._instances: dict[LinkServerConnection, _Instance] = {}
        self._streams: dict[str, list[_Instance]] = {}
        self._epochs: dict[str, int] = {}

    @property
    def links(self) -> tuple[LinkServerConnection, ...]:
        return tuple(self._instances)

    def epoch_of(self, key: str) -> int:
        """The highest epoch that an active instance of the stream has named; 0 if none has."""
        return self._epochs.get(key, 0)

    def join(self, link: LinkServerConnection, key: str, instance_id: int) -> None:
        """Add an instance and send it the others' last statuses. Raises LinkError if there are too many."""
        others = self._streams.setdefault(key, [])
        if len(others) >= MAX_INSTANCES:
            raise LinkError(f"{key} has {MAX_INSTANCES} instances already")
        for other in others:
            if other.last_status:
                link.send(other.last_status)
        self._instances[link] = instance = _Instance(link, key, instance_id)
        others.append(instance)

    def forward(self, link: LinkServerConnection, body: bytes) -> str:
        """Returns the stream's key. Raises LinkError for a status that is malformed or another's."""
        instance = self._instances.get(link)
        status = read_status(body)
        if instance is None or status.instance_id != instance.instance_id:
            raise LinkError("the peer sent a status in another instance's name")
        if status.active and status.epoch > self.epoch_of(instance.key):
            self._epochs[instance.key] = status.epoch
        instance.last_status = link_codec.frame(link_codec.PEER_STATUS, body)
        self._send(instance, instance.last_status)
        return instance.key

    def peer_left(self, link: LinkServerConnection) -> None:
        """Does nothing for a link that has not joined."""
        instance = self._instances.pop(link, None)
        if instance is None:
            return
        self._streams[instance.key].remove(instance)
        if self._streams[instance.key]:
            body = encode_instance_id(instance.instance_id)
            self._send(instance, link_codec.frame(link_codec.PEER_LEFT, body))
        else:
            del self._streams[instance.key]

    def _send(self, instance: _Instance, message: bytes) -> None:
        for other in self._streams[instance.key]:
            if other is not instance:
                other.link.send(message)

    def send_alive(self, message: bytes) -> None:
        """Call about as often as instances send statuses: they count the statuses missing in between."""
        for link in self.links:
            link.send(message)
