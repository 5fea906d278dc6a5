"""Changes to a configuration for local runs: the simulated exchange, a local nats-server, other journals.
Pure.

The streams stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relay.binance.streams import Venue
from relay.config import Config, JetStreamConfig, NatsConfig
from relay.errors import UsageError

GIB = 1024**3


def with_exchange(config: Config, urls: Mapping[Venue, str]) -> Config:
    """`config` with every stream from the simulated exchange of its venue; UsageError without one."""
    missing = venues(config).keys() - urls.keys()
    if missing:
        raise UsageError(f"no simulated exchange of {', '.join(sorted(missing))} runs; start `run` anew")
    shards = tuple(
        shard.model_copy(
            update={
                "exchange": shard.exchange.model_copy(
                    update={"url": urls[settings.spec.venue], "rest_url": None}
                )
            }
        )
        for shard, settings in zip(config.shards, config.streams, strict=True)
    )
    return config.model_copy(update={"shards": shards})


def with_nats(config: Config, server: str) -> Config:
    """`config` with a server on loopback that needs neither login nor TLS."""
    own = NatsConfig(
        servers=(server,),
        delivery=config.nats.delivery,
        subject=config.nats.subject,
        headers=config.nats.headers,
        stream=config.nats.stream,
    )
    return config.model_copy(update={"nats": own})


def with_journal_directory(config: Config, directory: Path, store_bytes: int = 16 * GIB) -> Config:
    """`config` with its journals in `directory`, and with JetStream streams that keep all events of a run."""
    stream = JetStreamConfig(
        max_bytes=store_bytes // len(config.shards),
        max_age_s=config.nats.stream.max_age_s,
        duplicate_window_s=config.nats.stream.duplicate_window_s,
    )
    shards = tuple(
        shard.model_copy(update={"journal": shard.journal.model_copy(update={"directory": None})})
        for shard in config.shards
    )
    return config.model_copy(
        update={
            "shards": shards,
            "journal": config.journal.model_copy(update={"directory": directory}),
            "nats": config.nats.model_copy(update={"stream": stream}),
        }
    )


def venues(config: Config) -> dict[Venue, list[str]]:
    """The names of the streams of each venue."""
    found: dict[Venue, list[str]] = {}
    for settings in config.streams:
        found.setdefault(settings.spec.venue, []).append(settings.spec.name)
    return found
