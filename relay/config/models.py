"""The models of the configuration's sections: names, types and defaults; pure."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from relay.binance.streams import Venue
from relay.config.values import (
    AbsolutePath,
    Cores,
    Count,
    Duration,
    ExchangeUrl,
    HostName,
    ListenAddress,
    NodeLabel,
    RestUrl,
    Scale,
    SecretReference,
    ServerUrl,
    SilenceLimit,
    Size,
    SubjectTemplate,
)
from relay.model.choices import Delivery

MIB = 1024 * 1024


class OverflowChoice(StrEnum):
    """The values of `queue.overflow`; `auto` chooses by the stream's kind."""

    AUTO = "auto"
    SPILL = "spill"
    CONFLATE = "conflate"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    BLOCK = "block"


class Profile(StrEnum):
    CONSERVATIVE = "conservative"
    RECOMMENDED = "recommended"
    AGGRESSIVE = "aggressive"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExchangeConfig(Section):
    """`url` replaces Binance's own hosts, `silence_limit_s` the limits by kind; 0, or `off`, is no limit.

    A connection is replaced at the age of `rotate_after_s` or somewhat earlier; Binance closes it at 24 h.
    `connects_per_5min` is for the whole cluster, or for each node where nodes have addresses of their own.
    With `heal` a gap in the ids of trades is filled over REST. `rest_url` is needed only if that is neither
    Binance's own host nor the host of `url`; with the key in `api_key_file`, futures return single trades of
    any age.
    """

    venue: Venue = Venue.USDM
    url: ExchangeUrl = None
    silence_limit_s: SilenceLimit = None
    rotate_after_s: Duration = 23 * 3600.0
    connects_per_5min: Count = 150
    nodes_share_address: bool = True
    heal: bool = True
    rest_url: RestUrl = None
    api_key_file: AbsolutePath | None = None


class JetStreamConfig(Section):
    """Limits of each JetStream stream; there is one for each Binance stream."""

    max_bytes: Size = 256 * MIB
    max_age_s: Duration = 86400.0
    duplicate_window_s: Duration = 120.0
    replicas: Count = 1


class NatsConfig(Section):
    """At most one way to log in may be set. The files are read where publishers run."""

    servers: tuple[ServerUrl, ...] = ("nats://127.0.0.1:4222",)
    delivery: Delivery = Delivery.JETSTREAM
    subject: SubjectTemplate = "binance.{venue}.{symbol}.{channel}"
    headers: bool = True
    stream: JetStreamConfig = JetStreamConfig()
    user: str | None = None
    password: SecretReference | None = None
    password_file: AbsolutePath | None = None
    token: SecretReference | None = None
    token_file: AbsolutePath | None = None
    creds_file: AbsolutePath | None = None
    nkey_file: AbsolutePath | None = None
    tls_ca_file: AbsolutePath | None = None
    tls_handshake_first: bool = False


class PublishersConfig(Section):
    min: Count = 1
    max: Count = 6
    scale: Scale = "auto"


class QueueConfig(Section):
    max_messages: Count = 5000
    max_bytes: Size = 16 * MIB
    overflow: OverflowChoice = OverflowChoice.AUTO


class JournalConfig(Section):
    """`max_bytes` counts for each stream. `journal: off` is short for `enabled: false`."""

    directory: AbsolutePath
    enabled: bool = True
    max_bytes: Size = 1024 * MIB


class ResourcesConfig(Section):
    """CPU cores that Ray reserves for each actor, and the value of the Ray label `sluice` that its node must
    have; None is any node. The controller is placed as the streams are. A critical stream's second actor
    reserves as much as the first; with `twin_nodes` None it is placed as the streams are."""

    stream_cpus: Cores = 0.1
    publisher_cpus: Cores = 0.1
    stream_nodes: NodeLabel = None
    twin_nodes: NodeLabel = None
    publisher_nodes: NodeLabel = None


class PageConfig(Section):
    """The status page, served where the controller runs. `page: off` is short for `listen: off`.

    `auto` is 127.0.0.1:8350, or any port there if that one is taken. `names` are host names, besides
    addresses and localhost, under which browsers reach it. Requests with the token in `token_file`, which is
    read where the controller runs, may scale and drain. Without the file no request may, except on a Ray
    that `run` started, which makes a token.
    """

    listen: ListenAddress = "auto"
    names: tuple[HostName, ...] = ()
    token_file: AbsolutePath | None = None


class ExchangeOverride(Section):
    venue: Venue | None = None
    url: ExchangeUrl = None
    silence_limit_s: SilenceLimit = None
    rest_url: RestUrl = None


class QueueOverride(Section):
    max_messages: Count | None = None
    max_bytes: Size | None = None
    overflow: OverflowChoice | None = None


class JournalOverride(Section):
    directory: AbsolutePath | None = None
    enabled: bool | None = None
    max_bytes: Size | None = None


class ShardConfig(Section):
    """One stream; keys that are None have the top level's value. `venue` is short for `exchange.venue`.

    A `critical` stream is read twice, by two actors on two nodes where there are two; the second takes over
    when the first dies or stops.
    """

    stream: str
    venue: Venue | None = None
    critical: bool = False
    exchange: ExchangeOverride = ExchangeOverride()
    queue: QueueOverride = QueueOverride()
    journal: JournalOverride = JournalOverride()
