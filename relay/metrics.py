"""The closed set of metric names, and what turns stats into metrics.

Ray puts `ray_` before each name and `_total` after each counter. Gauges expire unless they are set again, so
`update` belongs on a timer of a second, changed or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from relay.stats import PublisherStats, ScaleStatus, StreamState, StreamStats


class MetricKind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    name: str
    kind: MetricKind
    tag: str
    meaning: str


def _stream_gauge(name: str, meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_stream_{name}", MetricKind.GAUGE, "stream", meaning)


def _stream_counter(name: str, meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_stream_{name}", MetricKind.COUNTER, "stream", meaning)


def _publisher_gauge(name: str, meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_publisher_{name}", MetricKind.GAUGE, "publisher", meaning)


def _publisher_counter(name: str, meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_publisher_{name}", MetricKind.COUNTER, "publisher", meaning)


def _pool_gauge(name: str, meaning: str) -> MetricDefinition:
    return MetricDefinition(f"sluice_pool_{name}", MetricKind.GAUGE, "", meaning)


class Metric(Enum):
    """Every metric there is; the tag `stream` is the stream's name, `publisher` the publisher's."""

    STREAM_BACKLOG = _stream_gauge("backlog_events", "events accepted and not yet acknowledged by NATS")
    STREAM_BACKLOG_BYTES = _stream_gauge("backlog_bytes", "memory that these events take")
    STREAM_BACKLOG_AGE = _stream_gauge("backlog_age_seconds", "age of the oldest of these events")
    STREAM_QUEUED = _stream_gauge("queued_events", "part of the backlog that waits in memory")
    STREAM_IN_FLIGHT = _stream_gauge("in_flight_events", "part of the backlog that a publisher has")
    STREAM_SPILLED = _stream_gauge("spilled_events", "part of the backlog that is in the journal alone")
    STREAM_JOURNAL_BYTES = _stream_gauge("journal_bytes", "size of the journal on disk")
    STREAM_RATE = _stream_gauge("events_per_second", "events received from the exchange")
    STREAM_LIVE = _stream_gauge("live", "1 when data has come on the present connection, else 0")
    STREAM_LINKED = _stream_gauge("linked", "1 when a publisher serves the stream, else 0")
    STREAM_DATA_AGE = _stream_gauge("data_age_seconds", "time since the exchange sent anything")
    STREAM_LATENCY_P50 = _stream_gauge("latency_p50_seconds", "socket read to acknowledgement, median")
    STREAM_LATENCY_P99 = _stream_gauge("latency_p99_seconds", "socket read to acknowledgement, p99")
    STREAM_RECEIVED = _stream_counter("received_events", "events taken from the exchange or the journal")
    STREAM_ACKNOWLEDGED = _stream_counter("acknowledged_events", "events that NATS confirmed")
    STREAM_CONFLATED = _stream_counter("conflated_events", "snapshots replaced by a later one, memory full")
    STREAM_DROPPED = _stream_counter("dropped_events", "events given up by the chosen overflow policy")
    STREAM_REJECTED = _stream_counter("rejected_frames", "frames that are not what the stream promises")
    STREAM_REPEATED = _stream_counter("repeated_events", "events whose id had come before")
    STREAM_LOST = _stream_counter("lost_events", "events that the exchange sent and nobody received, by id")
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
    PUBLISHER_BATCHES = _publisher_counter("batches", "batches taken from streams")
    PUBLISHER_ACKNOWLEDGED = _publisher_counter("acknowledged_events", "events that NATS confirmed")
    PUBLISHER_DUPLICATES = _publisher_counter("duplicates", "events that NATS had stored before")
    PUBLISHER_ERRORS = _publisher_counter("errors", "refusals by NATS and time-outs")
    PUBLISHER_RECONNECTS = _publisher_counter("reconnects", "connections to NATS after the first")
    POOL_WANTED = _pool_gauge("wanted_publishers", "publishers that there should be")
    POOL_ACTUAL = _pool_gauge("actual_publishers", "publishers that serve")
    POOL_FIXED = _pool_gauge("fixed", "1 when a human set the number, 0 when it follows the load")


class Metrics(Protocol):
    """Records metrics of one process. `tag` is the value of the metric's tag, empty where it has none."""

    def set(self, metric: Metric, tag: str, value: float) -> None:
        """For a gauge."""

    def add(self, metric: Metric, tag: str, amount: float) -> None:
        """For a counter; `amount` is above zero."""


class NoMetrics:
    """Records nothing: for a process outside Ray."""

    def set(self, metric: Metric, tag: str, value: float) -> None: ...

    def add(self, metric: Metric, tag: str, amount: float) -> None: ...


class _Recorder:
    """Turns totals into counter increments, for one tag value."""

    def __init__(self, metrics: Metrics, tag: str) -> None:
        self._metrics = metrics
        self._tag = tag
        self._counted: dict[Metric, float] = {}

    def gauges(self, values: Mapping[Metric, float | None]) -> None:
        """None sets nothing, so that the gauge expires instead of showing an old value."""
        for metric, value in values.items():
            if value is not None:
                self._metrics.set(metric, self._tag, value)

    def totals(self, values: Mapping[Metric, float]) -> None:
        for metric, total in values.items():
            grown = total - self._counted.get(metric, 0)
            if grown > 0:
                self._metrics.add(metric, self._tag, grown)
                self._counted[metric] = total


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1_000


class StreamMetrics:
    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._recorder = _Recorder(metrics, stream)

    def update(self, stats: StreamStats) -> None:
        self._recorder.gauges(
            {
                Metric.STREAM_BACKLOG: stats.backlog_count,
                Metric.STREAM_BACKLOG_BYTES: stats.backlog_bytes,
                Metric.STREAM_BACKLOG_AGE: stats.backlog_age_s,
                Metric.STREAM_QUEUED: stats.queued,
                Metric.STREAM_IN_FLIGHT: stats.in_flight,
                Metric.STREAM_SPILLED: stats.spilled,
                Metric.STREAM_JOURNAL_BYTES: stats.journal_bytes,
                Metric.STREAM_RATE: stats.rate_per_s,
                Metric.STREAM_LIVE: stats.state is StreamState.LIVE,
                Metric.STREAM_LINKED: stats.linked,
                Metric.STREAM_DATA_AGE: stats.last_data_age_s,
                Metric.STREAM_LATENCY_P50: _seconds(stats.latency_p50_ms),
                Metric.STREAM_LATENCY_P99: _seconds(stats.latency_p99_ms),
            }
        )
        self._recorder.totals(
            {
                Metric.STREAM_RECEIVED: stats.received,
                Metric.STREAM_ACKNOWLEDGED: stats.acknowledged,
                Metric.STREAM_CONFLATED: stats.conflated,
                Metric.STREAM_DROPPED: stats.dropped,
                Metric.STREAM_REJECTED: stats.rejected,
                Metric.STREAM_REPEATED: stats.repeated,
                Metric.STREAM_LOST: stats.lost,
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
        self._stream = stream

    def update(self, *, warm_ready: bool) -> None:
        self._metrics.set(Metric.STREAM_WARM, self._stream, warm_ready)

    def took_over(self) -> None:
        self._metrics.add(Metric.STREAM_TAKEOVERS, self._stream, 1)


class PublisherMetrics:
    def __init__(self, metrics: Metrics, publisher: str) -> None:
        self._recorder = _Recorder(metrics, publisher)

    def update(self, stats: PublisherStats) -> None:
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
            }
        )
        self._recorder.totals(
            {
                Metric.PUBLISHER_BATCHES: stats.batches,
                Metric.PUBLISHER_ACKNOWLEDGED: stats.acknowledged,
                Metric.PUBLISHER_DUPLICATES: stats.duplicates,
                Metric.PUBLISHER_ERRORS: stats.errors,
                Metric.PUBLISHER_RECONNECTS: stats.reconnects,
            }
        )


class PoolMetrics:
    def __init__(self, metrics: Metrics) -> None:
        self._recorder = _Recorder(metrics, "")

    def update(self, status: ScaleStatus) -> None:
        self._recorder.gauges(
            {
                Metric.POOL_WANTED: status.wanted,
                Metric.POOL_ACTUAL: status.actual,
                Metric.POOL_FIXED: status.mode == "fixed",
            }
        )
