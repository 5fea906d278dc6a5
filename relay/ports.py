"""What actors need from the place where they run, as protocols, so that they can run without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from relay.model.actors import ActorId, Silence
from relay.model.assignment import Assignment
from relay.model.stats import PublisherStats, StreamStats

if TYPE_CHECKING:
    from relay.config import NatsConfig, StreamSettings
    from relay.observability.metrics import Metrics


Observation = StreamStats | PublisherStats | Silence


class Host(Protocol):
    """The node and the relay around one actor. Every property and method may be used from any thread.

    `assignment` raises ClusterError when the cluster's head does not answer.
    """

    @property
    def node(self) -> str: ...

    @property
    def address(self) -> str:
        """The node's IP address, under which the other nodes reach it."""

    @property
    def secret(self) -> bytes:
        """Shared by all actors of this relay, and known to nothing else."""

    @property
    def socket_directory(self) -> Path:
        """Mode 0700, short enough for unix sockets, the same for every actor on the node."""

    @property
    def metrics(self) -> Metrics: ...

    def assignment(self, stream: str) -> Assignment | None:
        """The last one published for the stream with this key; it outlives the controller."""

    def set_title(self, text: str) -> None:
        """The process title, which Ray's Cluster page shows; Ray sets its own once the actor is made."""


@dataclass(frozen=True, slots=True)
class Room:
    """What an actor needs of a cluster: CPU cores, and the label of the nodes to run on; None is any node.

    `node` is the node to prefer as long as it exists, for restarts too.
    """

    cpus: float
    nodes: str | None = None
    node: str | None = None


class Cluster(Protocol):
    """The actors of one relay, by identity, and the state that outlives the controller.

    Nothing here waits for an actor except `observe`, and that no longer than its deadline. A failure of one
    actor shows in the next observation; ClusterError means that the cluster's head does not answer.
    """

    def actors(self) -> frozenset[ActorId]:
        """All that exist, including those that start, restart or are unresponsive."""

    def nodes(self, label: str | None) -> frozenset[str]:
        """Those that are alive, with this label if one is given."""

    def create_stream(self, settings: StreamSettings, room: Room) -> None:
        """Adopts the one that exists."""

    def create_twin(self, settings: StreamSettings, room: Room) -> None:
        """Adopts the one that exists."""

    def create_publisher(self, publisher: str, nats: NatsConfig, room: Room) -> None:
        """Adopts the one that exists."""

    def observe(self, actors: Iterable[ActorId], deadline_s: float) -> Mapping[ActorId, Observation]: ...

    def assign(self, actor: ActorId, assignment: Assignment) -> None: ...

    def begin_drain(self, actor: ActorId, deadline_s: float) -> None:
        """Does nothing for an actor that drains already."""

    def drained(self, actor: ActorId) -> Observation | None:
        """The stats that the drain ended with, or why there are none; None while it runs."""

    def remove(self, actor: ActorId) -> None:
        """At once, without a drain, and for good."""

    def load(self, key: str) -> bytes | None: ...

    def load_all(self, prefix: str) -> Mapping[str, bytes]:
        """The values whose keys start with `prefix`, by key without it."""

    def save(self, key: str, value: bytes) -> None: ...

    def forget(self, key: str) -> None: ...
