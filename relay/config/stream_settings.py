"""The settings of each stream, resolved from the sections of the configuration; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from relay.binance.hosts import OFFICIAL_URLS, official_venue, rest_url_of
from relay.binance.request_weight import weight_pool
from relay.binance.streams import StreamSpec, parse_stream
from relay.config.models import (
    ExchangeConfig,
    JournalConfig,
    NatsConfig,
    OverflowChoice,
    QueueConfig,
    Section,
    ShardConfig,
)
from relay.config.subjects import check_subject
from relay.errors import ConfigError
from relay.model.choices import Delivery, Overflow
from relay.primitives.text import quoted

S = TypeVar("S", bound=Section)


class StreamSettings(Section):
    """The settings of one stream's actor.

    Consumers read `subject`; events are published on `stored_subject`, which differs where several streams
    share a subject and JetStream republishes to it. `streams` is how many sockets the relay had when this was
    resolved, two for a critical stream, and `rest_sharers` how many streams share the request weight; an
    actor is not replaced when these numbers change.
    """

    spec: StreamSpec
    url: str
    subject: str
    stored_subject: str
    queue: QueueConfig
    overflow: Overflow
    journal: bool
    journal_directory: Path
    journal_max_bytes: int
    critical: bool
    rotate_after_s: float
    connects_per_5min: int
    nodes_share_address: bool
    heal: bool
    rest_url: str
    api_key_file: Path | None
    streams: int
    rest_sharers: int = 1


class StreamSettingsResolver:
    """Lets each shard's own keys override the top level's; raises ConfigError for combinations that
    cannot work.
    """

    def __init__(
        self, exchange: ExchangeConfig, nats: NatsConfig, queue: QueueConfig, journal: JournalConfig
    ) -> None:
        self._exchange = exchange
        self._nats = nats
        self._queue = queue
        self._journal = journal

    def resolve(self, shards: Sequence[ShardConfig]) -> tuple[StreamSettings, ...]:
        sockets = len(shards) + sum(shard.critical for shard in shards)
        settings = [self._settings(shard, f"shards[{at}]", sockets) for at, shard in enumerate(shards)]
        _refuse_duplicates(settings)
        settings = _sharing_rest(settings)
        if self._nats.delivery is Delivery.CORE:
            return tuple(settings)
        users = Counter(one.subject for one in settings)
        return tuple(_stored_apart(one) if users[one.subject] > 1 else one for one in settings)

    def _settings(self, shard: ShardConfig, path: str, streams: int) -> StreamSettings:
        spec = self._spec(shard, path)
        subject = spec.subject(self._nats.subject)
        check_subject(subject, subject, path="nats.subject")
        base_url = self._base_url(shard, spec, path)
        queue = _merged(self._queue, shard.queue)
        journal = _merged(self._journal, shard.journal)
        return StreamSettings(
            spec=spec,
            url=base_url + spec.path,
            subject=subject,
            stored_subject=subject,
            queue=queue,
            overflow=_overflow(spec, queue.overflow, journal.enabled, shard, path),
            journal=journal.enabled,
            journal_directory=journal.directory,
            journal_max_bytes=journal.max_bytes,
            critical=shard.critical,
            rotate_after_s=self._exchange.rotate_after_s,
            connects_per_5min=self._exchange.connects_per_5min,
            nodes_share_address=self._exchange.nodes_share_address,
            heal=self._exchange.heal,
            rest_url=self._rest_url(shard, spec) or rest_url_of(base_url, spec.venue),
            api_key_file=self._exchange.api_key_file,
            streams=streams,
        )

    def _spec(self, shard: ShardConfig, path: str) -> StreamSpec:
        own = shard.exchange.venue
        if shard.venue and own and shard.venue is not own:
            raise ConfigError(
                f"{path}.venue", f"{shard.venue} is not exchange.venue, {own}", "keep one of the two"
            )
        try:
            spec = parse_stream(shard.venue or own or self._exchange.venue, shard.stream)
        except ConfigError as error:
            raise ConfigError(f"{path}.stream", error.problem, error.remedy) from error
        limit_s = _first_set(shard.exchange.silence_limit_s, self._exchange.silence_limit_s)
        return spec if limit_s is None else replace(spec, silence_limit_s=limit_s or None)

    def _base_url(self, shard: ShardConfig, spec: StreamSpec, path: str) -> str:
        url = shard.exchange.url or self._exchange.url
        if url is None:
            return OFFICIAL_URLS[spec.venue]
        host_venue = official_venue(url)
        if host_venue not in (None, spec.venue):
            where = f"{path}.exchange.url" if shard.exchange.url else "exchange.url"
            problem = f"{url} serves {host_venue}, but {quoted(spec.name)} is to come from {spec.venue}"
            raise ConfigError(where, problem, f"leave it out, or write {OFFICIAL_URLS[spec.venue]}")
        return url

    def _rest_url(self, shard: ShardConfig, spec: StreamSpec) -> str | None:
        """None where it follows from the stream's URL: a shard with its own `url` or venue ignores
        the top level's.
        """
        own = shard.exchange
        if own.rest_url or own.url or spec.venue is not self._exchange.venue:
            return own.rest_url
        return self._exchange.rest_url


def _first_set(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _merged(base: S, override: Section) -> S:
    return base.model_copy(update={key: value for key, value in override if value is not None})


def _stored_apart(one: StreamSettings) -> StreamSettings:
    return one.model_copy(update={"stored_subject": one.spec.stored_subject})


def _sharing_rest(settings: Sequence[StreamSettings]) -> list[StreamSettings]:
    sharers = Counter(weight_pool(one.spec.venue) for one in settings if one.heal and one.spec.healable)
    return [
        one.model_copy(update={"rest_sharers": max(1, sharers[weight_pool(one.spec.venue)])})
        for one in settings
    ]


def _refuse_duplicates(settings: Sequence[StreamSettings]) -> None:
    first: dict[str, int] = {}
    for at, one in enumerate(settings):
        earlier = first.setdefault(one.spec.key, at)
        if earlier != at:
            problem = f"{quoted(one.spec.name)} is listed at shards[{earlier}] already"
            raise ConfigError(f"shards[{at}].stream", problem, "remove one of the two")


def _overflow(
    spec: StreamSpec, choice: OverflowChoice, journal: bool, shard: ShardConfig, path: str
) -> Overflow:
    """`auto` loses no event of a lossless stream: without a journal it chooses `block`, which stops
    reading.
    """
    if choice is OverflowChoice.AUTO:
        lossless = Overflow.SPILL if journal else Overflow.BLOCK
        return Overflow.CONFLATE if spec.snapshot else lossless
    where = f"{path}.queue.overflow" if shard.queue.overflow else "queue.overflow"
    if choice is OverflowChoice.CONFLATE and spec.lossless:
        problem = f"conflate keeps the latest event alone, and each of {quoted(spec.name)} counts"
        raise ConfigError(where, problem, "write auto, spill or block")
    if choice is OverflowChoice.SPILL and not journal:
        where = f"{path}.journal" if shard.journal.enabled is not None and not shard.queue.overflow else where
        problem = f"{quoted(spec.name)} is to spill, but its journal is off"
        raise ConfigError(where, problem, "leave the journal on, or write block, drop_oldest or drop_newest")
    return Overflow(choice.value)
