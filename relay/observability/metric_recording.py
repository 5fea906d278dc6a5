"""Records the metrics of streams, publishers and the relay by looping over the table of metrics.

Ray's gauges expire unless they are set again, so each `update` belongs on a timer of a second, even when
nothing has changed. Counters are recorded from zero on: Prometheus cannot see the growth of a counter whose
first sample is already its first event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from relay.model.stats import Health, PublisherStats, ScaleStatus, StreamStats
from relay.observability.metrics import BOUNDS_S, Metric, MetricKind, Metrics, Reading
from relay.primitives.histogram import RollingHistogram

_BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS_S)
_BOUND_TAGS = (*map(str, BOUNDS_S), "+Inf")
_Record = TypeVar("_Record", StreamStats, PublisherStats, ScaleStatus, Health)


class _Reader(NamedTuple):
    metric: Metric
    is_gauge: bool
    read: Callable[[Any], Reading]


def _readers(source: type) -> tuple[_Reader, ...]:
    """Of the metrics that are read from records of this type."""
    return tuple(
        _Reader(metric, metric.value.kind is MetricKind.GAUGE, metric.value.read)
        for metric in Metric
        if metric.value.source is source and metric.value.read is not None
    )


class _Recorder(Generic[_Record]):
    """Sets gauges and turns totals into increments. `own` are the first tag values of all its metrics."""

    def __init__(self, metrics: Metrics, source: type[_Record], *own: str) -> None:
        self._metrics = metrics
        self._readers = _readers(source)
        self._own = own
        self._counted: dict[tuple[Metric, str], float] = {}

    def update(self, record: _Record) -> None:
        for metric, is_gauge, read in self._readers:
            value = read(record)
            record_one = self._gauge if is_gauge else self._total
            if isinstance(value, dict):
                for tag, part in value.items():
                    record_one(metric, tag, part)
            elif value is not None:
                record_one(metric, "", value)

    def latencies(self, histograms: Mapping[Metric, RollingHistogram]) -> None:
        for metric, histogram in histograms.items():
            for bound, total in zip(_BOUND_TAGS, histogram.cumulative_counts(_BOUNDS_NS), strict=True):
                self._total(metric, bound, total)

    def _gauge(self, metric: Metric, tag: str, value: float) -> None:
        self._metrics.set(metric, (*self._own, tag) if tag else self._own, value)

    def _total(self, metric: Metric, tag: str, total: float) -> None:
        counted = self._counted.get((metric, tag))
        if counted is None or total > counted:
            tags = (*self._own, tag) if tag else self._own
            self._metrics.add(metric, tags, total - (counted or 0))
            self._counted[metric, tag] = total


class StreamMetrics:
    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._recorder = _Recorder(metrics, StreamStats, stream)

    def update(self, stats: StreamStats, histograms: Mapping[Metric, RollingHistogram]) -> None:
        self._recorder.update(stats)
        self._recorder.latencies(histograms)


class LegMetrics:
    """Of the active instance of a critical stream, in addition to its StreamMetrics."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._tags = (stream,)

    def update(self, *, warm_ready: bool) -> None:
        self._metrics.set(Metric.STREAM_WARM, self._tags, warm_ready)

    def took_over(self) -> None:
        self._metrics.add(Metric.STREAM_TAKEOVERS, self._tags, 1)


class PublisherMetrics:
    def __init__(self, metrics: Metrics, publisher: str) -> None:
        self._recorder = _Recorder(metrics, PublisherStats, publisher)

    def update(self, stats: PublisherStats, histograms: Mapping[Metric, RollingHistogram]) -> None:
        self._recorder.update(stats)
        self._recorder.latencies(histograms)


class RelayMetrics:
    """What the controller knows of the whole relay."""

    def __init__(self, metrics: Metrics) -> None:
        self._pool = _Recorder(metrics, ScaleStatus)
        self._relay = _Recorder(metrics, Health)

    def update(self, scale: ScaleStatus, health: Health) -> None:
        self._pool.update(scale)
        self._relay.update(health)
