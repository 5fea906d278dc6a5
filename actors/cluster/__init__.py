"""Everything that touches Ray: nothing else imports it."""

from actors.cluster.connection import BringUp, Connection, Start, connect
from actors.cluster.ray_cluster import ActorClasses
from actors.tick import TakenDown

__all__ = ["ActorClasses", "BringUp", "Connection", "Start", "TakenDown", "connect"]
