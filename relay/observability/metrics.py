"""The closed set of metric names, and what each of them reads from the records that actors report.

docs/metrics.md is generated from this table. Recording is in relay.observability.metric_recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Protocol

from relay.model.stats import (
    ErrorCode,
    Health,
    PublisherStats,
    ScaleMode,
    ScaleStatus,
    StreamState,
    StreamStats,
)

# Upper bounds of the exported latencies. A histogram in memory has some 500 buckets, so that adding a value
# costs no more than an index and an increment; once a second they are summed up to these bounds.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)

# A value, or one for each value of the metric's last tag; None is not recorded, so that a gauge expires
# instead of showing an old value.
Reading = float | dict[str, float] | None


class MetricKind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    BUCKETS = "buckets"
    """A counter for each bound, in the tag `le`: of the values up to it."""


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """`read` takes a record of the type `source`; a counter's reading is the total so far. None for a metric
    that is not read from a record: buckets come from a histogram, and LegMetrics records events.
    """

    name: str
    kind: MetricKind
    tags: tuple[str, ...]
    meaning: str
    source: type | None = None
    read: Callable[[Any], Reading] | None = None

    @property
    def exported_name(self) -> str:
        """The name that Ray's exporter makes of it."""
        return f"ray_{self.name}" if self.kind is MetricKind.GAUGE else f"ray_{self.name}_total"


def _stream_gauge(
    name: str, read: Callable[[StreamStats], Reading] | None, meaning: str, *more: str
) -> MetricDefinition:
    tags = ("stream", *more)
    return MetricDefinition(f"sluice_stream_{name}", MetricKind.GAUGE, tags, meaning, StreamStats, read)


def _stream_counter(
    name: str, read: Callable[[StreamStats], Reading] | None, meaning: str
) -> MetricDefinition:
    name = f"sluice_stream_{name}"
    return MetricDefinition(name, MetricKind.COUNTER, ("stream",), meaning, StreamStats, read)


def _publisher_gauge(name: str, read: Callable[[PublisherStats], Reading], meaning: str) -> MetricDefinition:
    name = f"sluice_publisher_{name}"
    return MetricDefinition(name, MetricKind.GAUGE, ("publisher",), meaning, PublisherStats, read)


def _publisher_counter(
    name: str, read: Callable[[PublisherStats], Reading], meaning: str, *more: str
) -> MetricDefinition:
    name, tags = f"sluice_publisher_{name}", ("publisher", *more)
    return MetricDefinition(name, MetricKind.COUNTER, tags, meaning, PublisherStats, read)


def _pool_gauge(name: str, read: Callable[[ScaleStatus], Reading], meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_pool_{name}", MetricKind.GAUGE, (), meaning, ScaleStatus, read)


def _relay_gauge(name: str, read: Callable[[Health], Reading], meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_relay_{name}", MetricKind.GAUGE, (), meaning, Health, read)


def _latency(name: str, tag: str, meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_{name}_seconds_bucket", MetricKind.BUCKETS, (tag, "le"), meaning)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1_000


def _state(stats: StreamStats) -> dict[str, float]:
    return {state: state is stats.state for state in StreamState}


def _errors(stats: PublisherStats) -> dict[str, float]:
    """By kind, all kinds always: NATS has hundreds of error numbers, and each value of a tag is a series."""
    counts: dict[str, float] = dict.fromkeys(ErrorCode, 0)
    for code, count in stats.errors_by_code.items():
        counts[ErrorCode.of(code)] += count
    return counts


class Metric(Enum):
    """Every metric there is. `stream` is the stream's key, `publisher` the publisher's name, `state` is
    of StreamState, `code` of ErrorCode, `le` one of the bounds or `+Inf`.
    """

    STREAM_BACKLOG = _stream_gauge(
        "backlog_events", lambda s: s.backlog_count, "events accepted and not yet acknowledged by NATS"
    )
    STREAM_BACKLOG_BYTES = _stream_gauge(
        "backlog_bytes", lambda s: s.backlog_bytes, "memory that these events take"
    )
    STREAM_BACKLOG_AGE = _stream_gauge(
        "backlog_age_seconds", lambda s: s.backlog_age_s, "age of the oldest of these events"
    )
    STREAM_QUEUED = _stream_gauge(
        "queued_events", lambda s: s.queued, "part of the backlog that waits in memory"
    )
    STREAM_IN_FLIGHT = _stream_gauge(
        "in_flight_events", lambda s: s.in_flight, "part of the backlog that a publisher has"
    )
    STREAM_SPILLED = _stream_gauge(
        "spilled_events", lambda s: s.spilled, "part of the backlog that is in the journal alone"
    )
    STREAM_JOURNAL_BYTES = _stream_gauge(
        "journal_bytes", lambda s: s.journal_bytes, "size of the journal on disk"
    )
    STREAM_JOURNAL_LIMIT = _stream_gauge(
        "journal_limit_bytes",
        lambda s: s.journal_max_bytes or None,
        "size of a full journal; unset without one",
    )
    STREAM_STATE = _stream_gauge(
        "state", _state, "1 for the state that the stream is in, 0 for the others", "state"
    )
    STREAM_RATE = _stream_gauge(
        "events_per_second", lambda s: s.rate_per_s, "events received from the exchange"
    )
    STREAM_LIVE = _stream_gauge(
        "live",
        lambda s: s.state is StreamState.LIVE,
        "1 when data has come on the present connection, else 0",
    )
    STREAM_LINKED = _stream_gauge(
        "linked", lambda s: s.linked, "1 when a publisher serves the stream, else 0"
    )
    STREAM_DATA_AGE = _stream_gauge(
        "data_age_seconds", lambda s: s.last_data_age_s, "time since the exchange sent anything"
    )
    STREAM_LATENCY_P50 = _stream_gauge(
        "latency_p50_seconds", lambda s: _seconds(s.latency_p50_ms), "socket read to acknowledgement, median"
    )
    STREAM_LATENCY_P99 = _stream_gauge(
        "latency_p99_seconds", lambda s: _seconds(s.latency_p99_ms), "socket read to acknowledgement, p99"
    )
    STREAM_LATENCY = _latency("stream_latency", "stream", "events by socket read to acknowledgement")
    STREAM_RELAY_LATENCY_P50 = _stream_gauge(
        "relay_latency_p50_seconds",
        lambda s: _seconds(s.relay_latency_p50_ms),
        "socket read to NATS write, median",
    )
    STREAM_RELAY_LATENCY_P99 = _stream_gauge(
        "relay_latency_p99_seconds",
        lambda s: _seconds(s.relay_latency_p99_ms),
        "socket read to NATS write, p99",
    )
    STREAM_RELAY_LATENCY = _latency("stream_relay_latency", "stream", "events by socket read to NATS write")
    STREAM_RECEIVED = _stream_counter(
        "received_events", lambda s: s.received, "events taken from the exchange or the journal"
    )
    STREAM_ACKNOWLEDGED = _stream_counter(
        "acknowledged_events", lambda s: s.acknowledged, "events that NATS confirmed"
    )
    STREAM_CONFLATED = _stream_counter(
        "conflated_events", lambda s: s.conflated, "snapshots replaced by a later one, memory full"
    )
    STREAM_DROPPED = _stream_counter(
        "dropped_events", lambda s: s.dropped, "events given up by the chosen overflow policy"
    )
    STREAM_REJECTED = _stream_counter(
        "rejected_frames", lambda s: s.rejected, "frames that are not what the stream promises"
    )
    STREAM_REPEATED = _stream_counter(
        "repeated_events", lambda s: s.repeated, "events whose id had come before"
    )
    STREAM_LOST = _stream_counter(
        "lost_events", lambda s: s.lost, "events that the exchange sent and nobody received, by id"
    )
    STREAM_GAPS = _stream_counter(
        "gaps", lambda s: s.gaps, "gaps announced on the loss ledger, with ids or without"
    )
    STREAM_HEALED = _stream_counter(
        "healed_events", lambda s: s.healed, "missing events that REST gave, in their place"
    )
    STREAM_REPAIRED = _stream_counter(
        "repaired_events", lambda s: s.repaired, "lost events that REST gave later, elsewhere"
    )
    STREAM_RECONNECTS = _stream_counter(
        "reconnects", lambda s: s.reconnects, "connections to the exchange after the first"
    )
    STREAM_ROTATIONS = _stream_counter(
        "rotations", lambda s: s.rotations, "connections replaced by a successor without a gap"
    )
    STREAM_SILENCES = _stream_counter(
        "silences", lambda s: s.silences, "connections left dead, as a second one was not silent"
    )
    STREAM_UNALIGNED = _stream_counter(
        "unaligned_replacements", lambda s: s.unaligned, "replaced connections with a possible gap"
    )
    STREAM_TAKEOVERS = _stream_counter(
        "takeovers", None, "standby instances that became active, as the active one was gone"
    )
    STREAM_WARM = _stream_gauge(
        "warm_ready", None, "1 when a standby instance could take over without a loss, else 0"
    )
    STREAM_FAILOVERS = _stream_counter(
        "failovers", lambda s: s.failovers, "links to a publisher that ended unplanned"
    )
    PUBLISHER_LOAD = _publisher_gauge(
        "load_ratio", lambda s: s.load, "share of one core that the process uses"
    )
    PUBLISHER_RATE = _publisher_gauge("events_per_second", lambda s: s.rate_per_s, "events published")
    PUBLISHER_QUEUED = _publisher_gauge(
        "queued_events", lambda s: s.queued, "events that wait for their turn"
    )
    PUBLISHER_IN_FLIGHT = _publisher_gauge(
        "in_flight_events", lambda s: s.in_flight, "events sent to NATS and not yet acknowledged"
    )
    PUBLISHER_STREAMS = _publisher_gauge("streams", lambda s: len(s.streams), "streams served")
    PUBLISHER_CONNECTED = _publisher_gauge(
        "connected", lambda s: s.connected, "1 when NATS is connected, else 0"
    )
    PUBLISHER_ACK_P50 = _publisher_gauge(
        "ack_p50_seconds", lambda s: _seconds(s.ack_p50_ms), "publish to acknowledgement, median"
    )
    PUBLISHER_ACK_P99 = _publisher_gauge(
        "ack_p99_seconds", lambda s: _seconds(s.ack_p99_ms), "publish to acknowledgement, p99"
    )
    PUBLISHER_WAITING = _publisher_gauge(
        "waiting_seconds", lambda s: _seconds(s.waiting_ms), "age of the oldest message without an answer"
    )
    PUBLISHER_ACK = _latency("publisher_ack", "publisher", "messages by publish to acknowledgement")
    PUBLISHER_BATCHES = _publisher_counter("batches", lambda s: s.batches, "batches taken from streams")
    PUBLISHER_ACKNOWLEDGED = _publisher_counter(
        "acknowledged_events", lambda s: s.acknowledged, "events that NATS confirmed"
    )
    PUBLISHER_DUPLICATES = _publisher_counter(
        "duplicates", lambda s: s.duplicates, "events that NATS had stored before"
    )
    PUBLISHER_ERRORS = _publisher_counter("errors", _errors, "what went wrong, by kind", "code")
    PUBLISHER_RECONNECTS = _publisher_counter(
        "reconnects", lambda s: s.reconnects, "connections to NATS after the first"
    )
    POOL_WANTED = _pool_gauge("wanted_publishers", lambda s: s.wanted, "publishers that there should be")
    POOL_ACTUAL = _pool_gauge("actual_publishers", lambda s: s.actual, "publishers that serve")
    POOL_MAX = _pool_gauge("max_publishers", lambda s: s.max, "the most that the load may ask for")
    POOL_FIXED = _pool_gauge(
        "fixed",
        lambda s: s.mode is ScaleMode.FIXED,
        "1 when a human set the number, 0 when it follows the load",
    )
    RELAY_READY = _relay_gauge(
        "ready", lambda h: not h.not_ready, "1 when every stream has delivered and NATS acknowledges, else 0"
    )
    RELAY_HEALTHY = _relay_gauge(
        "healthy", lambda h: not h.unhealthy, "0 when the relay cannot recover by itself, else 1"
    )


class Metrics(Protocol):
    """Records metrics of one process. `tags` are the values of the metric's tags."""

    def set(self, metric: Metric, tags: tuple[str, ...], value: float) -> None:
        """For a gauge."""

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None:
        """For a counter or a bucket; an `amount` of zero makes the series appear."""


class NoMetrics:
    """Records nothing: for a process outside Ray."""

    def set(self, metric: Metric, tags: tuple[str, ...], value: float) -> None: ...

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None: ...
