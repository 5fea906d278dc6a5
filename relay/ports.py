"""What actors need of the place where they run, so that they can be run without Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from relay.stats import Assignment, PublisherStats, StreamStats

if TYPE_CHECKING:
    from relay.config import NatsConfig, StreamSettings
    from relay.metrics import Metrics


class Role(StrEnum):
    """A critical stream has a twin beside its stream actor; which of the two is hot, they settle themselves.
    """

    STREAM = "stream"
    TWIN = "twin"
    PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True, order=True)
class ActorId:
    """Who an actor is, over all its incarnations. `key` is a stream's key or a publisher's name."""

    role: Role
    key: str

    def __hash__(self) -> int:
        # Asked six times an actor and look; a role's own hash takes longer than all the rest.
        return hash(self.key)

    def __str__(self) -> str:
        return f"{self.role} {self.key}"

    @property
    def name(self) -> str:
        """The one that it has in the cluster."""
        return f"sluice/{self.role}/{self.key}"

    @classmethod
    def from_name(cls, name: str) -> ActorId | None:
        """None for what is not ours, and for the controller."""
        prefix, _, rest = name.partition("/")
        role, _, key = rest.partition("/")
        if prefix != "sluice" or role not in tuple(Role):
            return None
        return cls(Role(role), key)


class Silence(StrEnum):
    """Why an actor gave no stats."""

    STARTING = "starting"
    """It waits for resources, starts, or is being restarted: nothing to do but wait."""
    MUTE = "mute"
    """Its process runs but did not answer in time."""
    GONE = "gone"
    """It is dead for good and has to be created again."""


Look = StreamStats | PublisherStats | Silence


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
        """Shared by all actors of this relay, and by nobody else."""

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
    """What an actor takes of a cluster: CPU cores, and the label of the nodes where; None is any node.

    `node` is the one where it goes as long as that is there, through its restarts too.
    """

    cpus: float
    nodes: str | None = None
    node: str | None = None


class Cluster(Protocol):
    """The actors of one relay, by identity, and the facts that outlive the controller.

    Nothing here waits for an actor, save `look`, and that no longer than its deadline. A failure of one actor
    shows in the next `look`; ClusterError means that the cluster's head does not answer.
    """

    def actors(self) -> frozenset[ActorId]:
        """All that exist, including those that start, restart or are mute."""

    def nodes(self, label: str | None) -> frozenset[str]:
        """Those that are alive, with this label if one is given."""

    def create_stream(self, settings: StreamSettings, room: Room) -> None:
        """Adopts the one that exists."""

    def create_twin(self, settings: StreamSettings, room: Room) -> None:
        """Adopts the one that exists."""

    def create_publisher(self, publisher: str, nats: NatsConfig, room: Room) -> None:
        """Adopts the one that exists."""

    def look(self, actors: Iterable[ActorId], deadline_s: float) -> Mapping[ActorId, Look]: ...

    def assign(self, actor: ActorId, assignment: Assignment) -> None: ...

    def begin_drain(self, actor: ActorId, deadline_s: float) -> None:
        """Does nothing for an actor that drains already."""

    def drained(self, actor: ActorId) -> Look | None:
        """The stats that the drain ended with, or why there are none; None while it runs."""

    def remove(self, actor: ActorId) -> None:
        """At once, without a drain, and for good."""

    def load(self, fact: str) -> bytes | None: ...

    def load_all(self, prefix: str) -> Mapping[str, bytes]:
        """The facts whose names start with `prefix`, without it."""

    def save(self, fact: str, value: bytes) -> None: ...

    def forget(self, fact: str) -> None: ...
