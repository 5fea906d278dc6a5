"""Reads the configuration file and the environment, checks them, and resolves the settings of each stream.

Pure but for reading the file and finding the home directory (`load`). It knows the venues' stream names and
hosts from `relay.binance` and nothing of actors, sockets or NATS clients. `load` reads and checks; `models`
and `values` say what a file may hold; `rules` what must agree; `stream_settings` what each stream actor is
given; `diff` what an `apply` would change.
"""

from relay.config.load import Config, load_config, parse_config
from relay.config.models import (
    ExchangeConfig,
    JetStreamConfig,
    JournalConfig,
    NatsConfig,
    OverflowChoice,
    PageConfig,
    Profile,
    PublishersConfig,
    QueueConfig,
    ResourcesConfig,
    ShardConfig,
)
from relay.config.stream_settings import StreamSettings
from relay.model.choices import Delivery, Overflow

__all__ = [
    "Config",
    "Delivery",
    "ExchangeConfig",
    "JetStreamConfig",
    "JournalConfig",
    "NatsConfig",
    "Overflow",
    "OverflowChoice",
    "PageConfig",
    "Profile",
    "PublishersConfig",
    "QueueConfig",
    "ResourcesConfig",
    "ShardConfig",
    "StreamSettings",
    "load_config",
    "parse_config",
]
