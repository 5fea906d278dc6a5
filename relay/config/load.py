"""The configuration: how it is read, and what it comes to for each stream; pure but for reading the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from relay.config.environment import complete, origins, venue_note
from relay.config.error_text import explain, renamed
from relay.config.models import (
    ExchangeConfig,
    JournalConfig,
    NatsConfig,
    PageConfig,
    Profile,
    PublishersConfig,
    QueueConfig,
    ResourcesConfig,
    Section,
    ShardConfig,
)
from relay.config.rules import check_exchange, check_nats, settle_publishers, settle_queue
from relay.config.stream_settings import StreamSettings, StreamSettingsResolver
from relay.config.yaml_file import interpolate, parse_yaml, read_file
from relay.errors import ConfigError


class Config(Section):
    """A whole, checked configuration. It names where secrets are and holds none, nor does its JSON."""

    shards: tuple[ShardConfig, ...]
    exchange: ExchangeConfig = ExchangeConfig()
    nats: NatsConfig = NatsConfig()
    publishers: PublishersConfig = PublishersConfig()
    queue: QueueConfig = QueueConfig()
    journal: JournalConfig
    resources: ResourcesConfig = ResourcesConfig()
    page: PageConfig = PageConfig()
    profile: Profile | None = None

    @property
    def streams(self) -> tuple[StreamSettings, ...]:
        return StreamSettingsResolver(self.exchange, self.nats, self.queue, self.journal).resolve(self.shards)


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Raises ConfigError; without a file the environment alone must name the streams."""
    return _configured(parse_yaml(read_file(path)) if path else {}, environ)


def parse_config(text: str, environ: Mapping[str, str]) -> Config:
    """Raises ConfigError for the first thing that is wrong."""
    return _configured(parse_yaml(text), environ)


def _configured(raw: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    try:
        config = _validated(complete(interpolate(raw, environ), environ))
        check_exchange(config.exchange)
        check_nats(config.nats)
        count = len(config.streams)
        publishers = settle_publishers(config.publishers, config.profile, count)
        queue = settle_queue(config.queue, config.profile)
    except ConfigError as error:
        if error.path.endswith(".stream"):
            error = ConfigError(error.path, error.problem, error.remedy + venue_note(environ))
        raise renamed(error, origins(environ)) from None
    return config.model_copy(update={"publishers": publishers, "queue": queue})


def _validated(raw: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise explain(error, Config) from None
