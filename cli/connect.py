"""The way to Ray; imported late, since importing Ray takes a second that wrong usage need not wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.client import RelayClient
    from relay.config import Config


def joined(address: str | None) -> RelayClient:
    """The relay that runs; raises ClusterError if there is no cluster to join."""
    from actors.client import StartMode, connect

    return connect(StartMode.JOIN, address=address)


def joined_or_started(address: str | None, config: Config) -> RelayClient:
    from actors.client import StartMode, connect

    return connect(StartMode.AUTO, address=address, needed_cpus=needed_cpus(config))


def started(config: Config, *, shared: bool) -> RelayClient:
    """A Ray of our own, whatever else runs on this machine; `shared` lets a later `run` join it."""
    from actors.client import StartMode, connect

    return connect(StartMode.LOCAL, needed_cpus=needed_cpus(config), shared=shared)


def needed_cpus(config: Config) -> float:
    resources = config.resources
    actors = len(config.shards) + sum(shard.critical for shard in config.shards)
    return actors * resources.stream_cpus + config.publishers.max * resources.publisher_cpus
