"""What stats become as metrics."""

from __future__ import annotations

from collections import Counter

import pytest

from relay.metrics import LegMetrics, Metric, MetricKind, PoolMetrics, PublisherMetrics, StreamMetrics
from relay.stats import ScaleStatus
from tests.fakes import publisher_stats, stream_stats


class Recorded:
    """Keeps the last value of each gauge and the sum of each counter."""

    def __init__(self) -> None:
        self.gauges: dict[tuple[Metric, str], float] = {}
        self.counters: Counter[tuple[Metric, str]] = Counter()

    def set(self, metric: Metric, tag: str, value: float) -> None:
        assert metric.value.kind is MetricKind.GAUGE
        self.gauges[metric, tag] = value

    def add(self, metric: Metric, tag: str, amount: float) -> None:
        assert metric.value.kind is MetricKind.COUNTER
        assert amount > 0
        self.counters[metric, tag] += amount


def update_everything(recorded: Recorded, *, received: int = 10) -> None:
    StreamMetrics(recorded, "btcusdt@trade").update(
        stream_stats(
            "usdm:btcusdt@trade", received=received, conflated=1, dropped=1, rejected=1, repeated=1,
            lost=1, healed=1, repaired=1, reconnects=1, rotations=1, silences=1, unaligned=1, failovers=1,
        )
    )  # fmt: skip
    legs = LegMetrics(recorded, "btcusdt@trade")
    legs.update(warm_ready=True)
    legs.took_over()
    PublisherMetrics(recorded, "p0").update(publisher_stats("p0", duplicates=1, errors=1, reconnects=1))
    PoolMetrics(recorded).update(ScaleStatus(mode="auto", wanted=1, actual=1, min=1, max=6, reason=""))


def test_every_metric_there_is_gets_recorded():
    recorded = Recorded()
    update_everything(recorded)
    assert {metric for metric, _ in [*recorded.gauges, *recorded.counters]} == set(Metric)


def test_names_are_unique_and_every_metric_has_a_meaning():
    names = [metric.value.name for metric in Metric]
    assert len(set(names)) == len(names)
    assert all(metric.value.meaning for metric in Metric)


def test_counters_grow_by_what_came_since():
    recorded = Recorded()
    metrics = StreamMetrics(recorded, "btcusdt@trade")
    for received in (10, 10, 35):
        metrics.update(stream_stats("usdm:btcusdt@trade", received=received))
    assert recorded.counters[Metric.STREAM_RECEIVED, "btcusdt@trade"] == 35


def test_what_is_not_known_is_not_set():
    recorded = Recorded()
    StreamMetrics(recorded, "a").update(stream_stats("usdm:a", latency_p99_ms=None, last_data_age_s=None))
    assert not {Metric.STREAM_LATENCY_P99, Metric.STREAM_DATA_AGE} & {metric for metric, _ in recorded.gauges}


@pytest.mark.parametrize(("mode", "fixed"), [("auto", 0), ("fixed", 1)])
def test_the_pool_says_whether_a_human_set_it(mode, fixed):
    recorded = Recorded()
    PoolMetrics(recorded).update(ScaleStatus(mode=mode, wanted=2, actual=1, min=1, max=6, reason=""))
    assert recorded.gauges[Metric.POOL_FIXED, ""] == fixed
