"""Who the actors of a relay are, and why one may give no figures."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """A critical stream has two actors, a STREAM and a TWIN; they decide themselves which one is active."""

    STREAM = "stream"
    TWIN = "twin"
    PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True, order=True)
class ActorId:
    """Who an actor is, over all its incarnations. `key` is a stream's key or a publisher's name."""

    role: Role
    key: str

    def __hash__(self) -> int:
        # Called six times per actor in each observation; hashing the role too would cost more than the rest.
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
    UNRESPONSIVE = "mute"
    """Its process runs but did not answer in time."""
    DEAD = "gone"
    """It is dead for good and has to be created again."""
