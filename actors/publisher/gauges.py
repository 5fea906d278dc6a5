"""What a publisher counts and measures about itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from relay.observability.metrics import Metric
from relay.primitives.histogram import RollingHistogram
from relay.primitives.rate_meter import RateMeter

HALF_LIFE_S = 2.0
LATENCY_WINDOW_S = 10.0
# Below these values, rate divided by load is no estimate of the capacity.
MIN_LOAD, MIN_RATE_PER_S = 0.05, 50.0


class PublisherGauges:
    """Totals since the start of the process; `measure` once a second turns them into rates."""

    def __init__(self) -> None:
        self.batches = 0
        self.acknowledged = 0
        self.duplicates = 0
        self.written_bytes = 0
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.capacity_per_s = 0.0
        self.latency = RollingHistogram(LATENCY_WINDOW_S)
        self._rate = RateMeter(HALF_LIFE_S)
        self._bytes_rate = RateMeter(HALF_LIFE_S)
        self._load = RateMeter(HALF_LIFE_S)

    def error(self, code: str, text: str) -> None:
        """`code` is one of ErrorCode, or the number that NATS gave for a refusal."""
        self.errors[code] += 1
        self.last_error = text

    def measure(self, now: float) -> None:
        self._rate.update(self.acknowledged, now)
        self._bytes_rate.update(self.written_bytes, now)
        self._load.update(time.process_time(), now)
        if self.load > MIN_LOAD and self.rate_per_s > MIN_RATE_PER_S:
            self.capacity_per_s = self.rate_per_s / self.load

    @property
    def rate_per_s(self) -> float:
        return self._rate.rate_per_s

    @property
    def bytes_per_s(self) -> float:
        return self._bytes_rate.rate_per_s

    @property
    def load(self) -> float:
        """CPU seconds per second of this process, over all its threads."""
        return self._load.rate_per_s

    @property
    def histograms(self) -> Mapping[Metric, RollingHistogram]:
        """The exported histograms, by metric."""
        return {Metric.PUBLISHER_ACK: self.latency}

    def ack_ms(self, quantile: float, now: float) -> float | None:
        ns = self.latency.merged(now).quantile(quantile)
        return None if ns is None else ns / 1e6
