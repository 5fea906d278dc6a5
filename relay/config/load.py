"""Reads and checks the configuration; pure except for reading the file and finding the home folder."""

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
from relay.config.rules import check_exchange, check_nats, publishers_with_defaults, queue_with_defaults
from relay.config.stream_settings import StreamSettings, StreamSettingsResolver
from relay.config.yaml_file import interpolate, parse_yaml, read_file
from relay.errors import ConfigError


class Config(Section):
    """A complete, checked configuration. It and its JSON refer to secrets and hold none."""

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
    """Raises ConfigError for the first error found."""
    return _configured(parse_yaml(text), environ)


def _configured(raw: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    try:
        config = _validated(complete(interpolate(raw, environ), environ, _home_folder()))
        check_exchange(config.exchange)
        check_nats(config.nats)
        count = len(config.streams)
        publishers = publishers_with_defaults(config.publishers, config.profile, count)
        queue = queue_with_defaults(config.queue, config.profile)
    except ConfigError as error:
        if error.path.endswith(".stream"):
            error = ConfigError(error.path, error.problem, error.remedy + venue_note(environ))
        raise renamed(error, origins(environ)) from None
    return config.model_copy(update={"publishers": publishers, "queue": queue})


def _home_folder() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _validated(raw: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise explain(error, Config) from None
