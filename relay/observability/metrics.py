"""The closed set of metric names, and what turns stats into metrics.

docs/metrics.md is made of this list. Gauges expire unless they are set again, so `update` belongs on a timer
of a second, changed or not. Counters begin at zero: one that appears with its first event never grew by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from relay.model.stats import (
    ErrorCode,
    Health,
    PublisherStats,
    ScaleMode,
    ScaleStatus,
    StreamState,
    StreamStats,
)
from relay.primitives.histogram import RollingHistogram

# Upper bounds of the exported latencies. Each process fills some 500 buckets of its own, for nothing but an
# index and an increment; these few are made of them once a second.
BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS_S)
_BOUND_TAGS = (*map(str, BOUNDS_S), "+Inf")


class MetricKind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"
    BUCKETS = "buckets"
    """A counter for each bound, in the tag `le`: of the values up to it."""


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    name: str
    kind: MetricKind
    tags: tuple[str, ...]
    meaning: str

    @property
    def exported(self) -> str:
        """What Ray's exporter makes of the name."""
        return f"ray_{self.name}" if self.kind is MetricKind.GAUGE else f"ray_{self.name}_total"


def _gauge(name: str, meaning: str, *tags: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_{name}", MetricKind.GAUGE, tags, meaning)


def _counter(name: str, meaning: str, *tags: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_{name}", MetricKind.COUNTER, tags, meaning)


def _stream_gauge(name: str, meaning: str, *more: str) -> MetricDefinition:
    return _gauge(f"stream_{name}", meaning, "stream", *more)


def _stream_counter(name: str, meaning: str) -> MetricDefinition:
    return _counter(f"stream_{name}", meaning, "stream")


def _publisher_gauge(name: str, meaning: str) -> MetricDefinition:
    return _gauge(f"publisher_{name}", meaning, "publisher")


def _publisher_counter(name: str, meaning: str, *more: str) -> MetricDefinition:
    return _counter(f"publisher_{name}", meaning, "publisher", *more)


def _latency(name: str, tag: str, meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_{name}_seconds_bucket", MetricKind.BUCKETS, (tag, "le"), meaning)


class Metric(Enum):
    """Every metric there is. `stream` is the stream's key, `publisher` the publisher's name, `state` is
    of StreamState, `code` of ErrorCode, `le` one of the bounds or `+Inf`.
    """

    STREAM_BACKLOG = _stream_gauge("backlog_events", "events accepted and not yet acknowledged by NATS")
    STREAM_BACKLOG_BYTES = _stream_gauge("backlog_bytes", "memory that these events take")
    STREAM_BACKLOG_AGE = _stream_gauge("backlog_age_seconds", "age of the oldest of these events")
    STREAM_QUEUED = _stream_gauge("queued_events", "part of the backlog that waits in memory")
    STREAM_IN_FLIGHT = _stream_gauge("in_flight_events", "part of the backlog that a publisher has")
    STREAM_SPILLED = _stream_gauge("spilled_events", "part of the backlog that is in the journal alone")
    STREAM_JOURNAL_BYTES = _stream_gauge("journal_bytes", "size of the journal on disk")
    STREAM_JOURNAL_LIMIT = _stream_gauge("journal_limit_bytes", "size of a full journal; unset without one")
    STREAM_STATE = _stream_gauge("state", "1 for the state that the stream is in, 0 for the others", "state")
    STREAM_RATE = _stream_gauge("events_per_second", "events received from the exchange")
    STREAM_LIVE = _stream_gauge("live", "1 when data has come on the present connection, else 0")
    STREAM_LINKED = _stream_gauge("linked", "1 when a publisher serves the stream, else 0")
    STREAM_DATA_AGE = _stream_gauge("data_age_seconds", "time since the exchange sent anything")
    STREAM_LATENCY_P50 = _stream_gauge("latency_p50_seconds", "socket read to acknowledgement, median")
    STREAM_LATENCY_P99 = _stream_gauge("latency_p99_seconds", "socket read to acknowledgement, p99")
    STREAM_LATENCY = _latency("stream_latency", "stream", "events by socket read to acknowledgement")
    STREAM_RELAY_LATENCY_P50 = _stream_gauge("relay_latency_p50_seconds", "socket read to NATS write, median")
    STREAM_RELAY_LATENCY_P99 = _stream_gauge("relay_latency_p99_seconds", "socket read to NATS write, p99")
    STREAM_RELAY_LATENCY = _latency("stream_relay_latency", "stream", "events by socket read to NATS write")
    STREAM_RECEIVED = _stream_counter("received_events", "events taken from the exchange or the journal")
    STREAM_ACKNOWLEDGED = _stream_counter("acknowledged_events", "events that NATS confirmed")
    STREAM_CONFLATED = _stream_counter("conflated_events", "snapshots replaced by a later one, memory full")
    STREAM_DROPPED = _stream_counter("dropped_events", "events given up by the chosen overflow policy")
    STREAM_REJECTED = _stream_counter("rejected_frames", "frames that are not what the stream promises")
    STREAM_REPEATED = _stream_counter("repeated_events", "events whose id had come before")
    STREAM_LOST = _stream_counter("lost_events", "events that the exchange sent and nobody received, by id")
    STREAM_GAPS = _stream_counter("gaps", "holes announced on the loss ledger, with ids or without")
    STREAM_HEALED = _stream_counter("healed_events", "missing events that REST gave, in their place")
    STREAM_REPAIRED = _stream_counter("repaired_events", "lost events that REST gave later, elsewhere")
    STREAM_RECONNECTS = _stream_counter("reconnects", "connections to the exchange after the first")
    STREAM_ROTATIONS = _stream_counter("rotations", "connections replaced by a successor without a seam")
    STREAM_SILENCES = _stream_counter("silences", "connections left dead, as a second one was not silent")
    STREAM_UNALIGNED = _stream_counter("unaligned_replacements", "replaced connections with a possible hole")
    STREAM_TAKEOVERS = _stream_counter("takeovers", "warm legs that became hot, as the hot one was gone")
    STREAM_WARM = _stream_gauge("warm_ready", "1 when a warm leg could take over without a loss, else 0")
    STREAM_FAILOVERS = _stream_counter("failovers", "links to a publisher that ended unplanned")
    PUBLISHER_LOAD = _publisher_gauge("load_ratio", "share of one core that the process uses")
    PUBLISHER_RATE = _publisher_gauge("events_per_second", "events published")
    PUBLISHER_QUEUED = _publisher_gauge("queued_events", "events that wait for their turn")
    PUBLISHER_IN_FLIGHT = _publisher_gauge("in_flight_events", "events sent to NATS and not yet acknowledged")
    PUBLISHER_STREAMS = _publisher_gauge("streams", "streams served")
    PUBLISHER_CONNECTED = _publisher_gauge("connected", "1 when NATS is connected, else 0")
    PUBLISHER_ACK_P50 = _publisher_gauge("ack_p50_seconds", "publish to acknowledgement, median")
    PUBLISHER_ACK_P99 = _publisher_gauge("ack_p99_seconds", "publish to acknowledgement, p99")
    PUBLISHER_WAITING = _publisher_gauge("waiting_seconds", "age of the oldest message without an answer")
    PUBLISHER_ACK = _latency("publisher_ack", "publisher", "messages by publish to acknowledgement")
    PUBLISHER_BATCHES = _publisher_counter("batches", "batches taken from streams")
    PUBLISHER_ACKNOWLEDGED = _publisher_counter("acknowledged_events", "events that NATS confirmed")
    PUBLISHER_DUPLICATES = _publisher_counter("duplicates", "events that NATS had stored before")
    PUBLISHER_ERRORS = _publisher_counter("errors", "what went wrong, by kind", "code")
    PUBLISHER_RECONNECTS = _publisher_counter("reconnects", "connections to NATS after the first")
    POOL_WANTED = _gauge("pool_wanted_publishers", "publishers that there should be")
    POOL_ACTUAL = _gauge("pool_actual_publishers", "publishers that serve")
    POOL_MAX = _gauge("pool_max_publishers", "the most that the load may ask for")
    POOL_FIXED = _gauge("pool_fixed", "1 when a human set the number, 0 when it follows the load")
    RELAY_READY = _gauge("relay_ready", "1 when every stream has delivered and NATS acknowledges, else 0")
    RELAY_HEALTHY = _gauge("relay_healthy", "0 when the relay cannot recover by itself, else 1")


class Metrics(Protocol):
    """Records metrics of one process. `tags` are the values of the metric's tags."""

    def set(self, metric: Metric, tags: tuple[str, ...], value: float) -> None:
        """For a gauge."""

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None:
        """For a counter or a bucket; an `amount` of zero lets it be seen."""


class NoMetrics:
    """Records nothing: for a process outside Ray."""

    def set(self, metric: Metric, tags: tuple[str, ...], value: float) -> None: ...

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None: ...


class _Recorder:
    """Turns totals into increments. `own` are the values of the tags that all its metrics begin with."""

    def __init__(self, metrics: Metrics, *own: str) -> None:
        self._metrics = metrics
        self._own = own
        self._counted: dict[tuple[Metric, str], float] = {}

    def gauges(self, values: Mapping[Metric, float | None]) -> None:
        """None sets nothing, so that the gauge expires instead of showing an old value."""
        for metric, value in values.items():
            if value is not None:
                self._metrics.set(metric, self._own, value)

    def one_of(self, metric: Metric, choices: Sequence[str], chosen: str) -> None:
        for choice in choices:
            self._metrics.set(metric, (*self._own, choice), choice == chosen)

    def totals(self, values: Mapping[Metric, float]) -> None:
        for metric, total in values.items():
            self._total(metric, "", total)

    def totals_by(self, metric: Metric, values: Mapping[str, float]) -> None:
        for tag, total in values.items():
            self._total(metric, tag, total)

    def latencies(self, histograms: Mapping[Metric, RollingHistogram]) -> None:
        for metric, histogram in histograms.items():
            for bound, total in zip(_BOUND_TAGS, histogram.cumulative_counts(_BOUNDS_NS), strict=True):
                self._total(metric, bound, total)

    def _total(self, metric: Metric, tag: str, total: float) -> None:
        counted = self._counted.get((metric, tag))
        if counted is None or total > counted:
            tags = (*self._own, tag) if tag else self._own
            self._metrics.add(metric, tags, total - (counted or 0))
            self._counted[metric, tag] = total


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1_000


class StreamMetrics:
    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._recorder = _Recorder(metrics, stream)

    def update(self, stats: StreamStats, histograms: Mapping[Metric, RollingHistogram]) -> None:
        self._recorder.gauges(
            {
                Metric.STREAM_BACKLOG: stats.backlog_count,
                Metric.STREAM_BACKLOG_BYTES: stats.backlog_bytes,
                Metric.STREAM_BACKLOG_AGE: stats.backlog_age_s,
                Metric.STREAM_QUEUED: stats.queued,
                Metric.STREAM_IN_FLIGHT: stats.in_flight,
                Metric.STREAM_SPILLED: stats.spilled,
                Metric.STREAM_JOURNAL_BYTES: stats.journal_bytes,
                Metric.STREAM_JOURNAL_LIMIT: stats.journal_max_bytes or None,
                Metric.STREAM_RATE: stats.rate_per_s,
                Metric.STREAM_LIVE: stats.state is StreamState.LIVE,
                Metric.STREAM_LINKED: stats.linked,
                Metric.STREAM_DATA_AGE: stats.last_data_age_s,
                Metric.STREAM_LATENCY_P50: _seconds(stats.latency_p50_ms),
                Metric.STREAM_LATENCY_P99: _seconds(stats.latency_p99_ms),
                Metric.STREAM_RELAY_LATENCY_P50: _seconds(stats.relay_latency_p50_ms),
                Metric.STREAM_RELAY_LATENCY_P99: _seconds(stats.relay_latency_p99_ms),
            }
        )
        self._recorder.one_of(Metric.STREAM_STATE, tuple(StreamState), stats.state)
        self._recorder.latencies(histograms)
        self._recorder.totals(
            {
                Metric.STREAM_RECEIVED: stats.received,
                Metric.STREAM_ACKNOWLEDGED: stats.acknowledged,
                Metric.STREAM_CONFLATED: stats.conflated,
                Metric.STREAM_DROPPED: stats.dropped,
                Metric.STREAM_REJECTED: stats.rejected,
                Metric.STREAM_REPEATED: stats.repeated,
                Metric.STREAM_LOST: stats.lost,
                Metric.STREAM_GAPS: stats.gaps,
                Metric.STREAM_HEALED: stats.healed,
                Metric.STREAM_REPAIRED: stats.repaired,
                Metric.STREAM_RECONNECTS: stats.reconnects,
                Metric.STREAM_ROTATIONS: stats.rotations,
                Metric.STREAM_SILENCES: stats.silences,
                Metric.STREAM_UNALIGNED: stats.unaligned,
                Metric.STREAM_FAILOVERS: stats.failovers,
            }
        )


class LegMetrics:
    """Of the hot leg of a critical stream, beside its StreamMetrics."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._tags = (stream,)

    def update(self, *, warm_ready: bool) -> None:
        self._metrics.set(Metric.STREAM_WARM, self._tags, warm_ready)

    def took_over(self) -> None:
        self._metrics.add(Metric.STREAM_TAKEOVERS, self._tags, 1)


class PublisherMetrics:
    def __init__(self, metrics: Metrics, publisher: str) -> None:
        self._recorder = _Recorder(metrics, publisher)

    def update(self, stats: PublisherStats, histograms: Mapping[Metric, RollingHistogram]) -> None:
        self._recorder.gauges(
            {
                Metric.PUBLISHER_LOAD: stats.load,
                Metric.PUBLISHER_RATE: stats.rate_per_s,
                Metric.PUBLISHER_QUEUED: stats.queued,
                Metric.PUBLISHER_IN_FLIGHT: stats.in_flight,
                Metric.PUBLISHER_STREAMS: len(stats.streams),
                Metric.PUBLISHER_CONNECTED: stats.connected,
                Metric.PUBLISHER_ACK_P50: _seconds(stats.ack_p50_ms),
                Metric.PUBLISHER_ACK_P99: _seconds(stats.ack_p99_ms),
                Metric.PUBLISHER_WAITING: _seconds(stats.waiting_ms),
            }
        )
        self._recorder.latencies(histograms)
        self._recorder.totals_by(Metric.PUBLISHER_ERRORS, _errors(stats.errors_by_code))
        self._recorder.totals(
            {
                Metric.PUBLISHER_BATCHES: stats.batches,
                Metric.PUBLISHER_ACKNOWLEDGED: stats.acknowledged,
                Metric.PUBLISHER_DUPLICATES: stats.duplicates,
                Metric.PUBLISHER_RECONNECTS: stats.reconnects,
            }
        )


def _errors(by_code: Mapping[str, int]) -> dict[str, int]:
    """By kind, each of them named: NATS has hundreds of numbers, and each tag is a series."""
    counts = dict.fromkeys(map(str, ErrorCode), 0)
    for code, count in by_code.items():
        counts[ErrorCode.of(code)] += count
    return counts


class RelayMetrics:
    """What the controller knows of the whole relay."""

    def __init__(self, metrics: Metrics) -> None:
        self._recorder = _Recorder(metrics)

    def update(self, scale: ScaleStatus, health: Health) -> None:
        self._recorder.gauges(
            {
                Metric.POOL_WANTED: scale.wanted,
                Metric.POOL_ACTUAL: scale.actual,
                Metric.POOL_MAX: scale.max,
                Metric.POOL_FIXED: scale.mode is ScaleMode.FIXED,
                Metric.RELAY_READY: not health.not_ready,
                Metric.RELAY_HEALTHY: not health.unhealthy,
            }
        )
