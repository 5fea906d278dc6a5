"""Connects to a relay on Ray. Ray is imported in the functions: it takes a second, which usage errors
should not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.client import RelayClient
    from relay.config import Config


def join_relay(address: str | None) -> RelayClient:
    """The running relay; raises ClusterError if there is no cluster to join."""
    from actors.client import StartMode, connect

    return connect(StartMode.JOIN, address=address)


def join_or_start(address: str | None, config: Config) -> RelayClient:
    from actors.client import StartMode, connect

    return connect(StartMode.AUTO, address=address, needed_cpus=needed_cpus(config))


def start_local(config: Config, *, shared: bool) -> RelayClient:
    """Start a new local Ray, even if one runs already; `shared` lets a later `run` join it."""
    from actors.client import StartMode, connect

    return connect(StartMode.LOCAL, needed_cpus=needed_cpus(config), shared=shared)


def needed_cpus(config: Config) -> float:
    resources = config.resources
    actors = len(config.shards) + sum(shard.critical for shard in config.shards)
    return actors * resources.stream_cpus + config.publishers.max * resources.publisher_cpus
