"""The relay's metrics, served by the exporter that Ray runs on each node."""

from __future__ import annotations

import threading
from typing import Any

from ray.util.metrics import Counter, Gauge

from actors.cluster import private_api
from relay.observability.metrics import Metric, MetricKind


class RayMetrics:
    """Implements relay.observability.metrics.Metrics; may be used from any thread.

    Ray tags metrics with neither actor nor job, so each of ours has such tags of its own. Ray's own tag
    `WorkerId` gives each incarnation of an actor its own series.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recorders: dict[Metric, Any] = {}

    def set(self, metric: Metric, tags: tuple[str, ...], value: float) -> None:
        self._recorder(metric).set(float(value), _tags_by_name(metric, tags))

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None:
        """An amount of 0 exports the counter as well, so that its first increase can be seen."""
        private_api.add_to_counter(self._recorder(metric), float(amount), _tags_by_name(metric, tags))

    def _recorder(self, metric: Metric) -> Any:
        with self._lock:
            if metric not in self._recorders:
                definition = metric.value
                kind = Gauge if definition.kind is MetricKind.GAUGE else Counter
                self._recorders[metric] = kind(definition.name, definition.meaning, definition.tags)
            return self._recorders[metric]


def _tags_by_name(metric: Metric, tags: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.value.tags, tags, strict=True))
