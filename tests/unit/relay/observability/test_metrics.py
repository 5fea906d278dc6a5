"""What stats become as metrics."""

from __future__ import annotations

from collections import Counter

import pytest

from actors.publisher.gauges import PublisherGauges
from relay.model.stats import ErrorCode, Health, ScaleMode, ScaleStatus, StreamState
from relay.observability.metric_recording import LegMetrics, PublisherMetrics, RelayMetrics, StreamMetrics
from relay.observability.metrics import BOUNDS_S, Metric, MetricKind
from relay.primitives.histogram import RollingHistogram
from tests.support.fakes import publisher_stats, stream_stats


class Recorded:
    """Keeps the last value of each gauge and the sum of each counter."""

    def __init__(self) -> None:
        self.gauges: dict[tuple[Metric, *tuple[str, ...]], float] = {}
        self.counters: Counter[tuple[Metric, *tuple[str, ...]]] = Counter()

    def set(self, metric: Metric, tags: tuple[str, ...], value: float) -> None:
        assert metric.value.kind is MetricKind.GAUGE
        assert len(tags) == len(metric.value.tags)
        self.gauges[metric, *tags] = value

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None:
        assert metric.value.kind is not MetricKind.GAUGE
        assert len(tags) == len(metric.value.tags)
        assert amount > 0 or (metric, *tags) not in self.counters
        self.counters[metric, *tags] += amount


def update_everything(recorded: Recorded, *, received: int = 10) -> None:
    StreamMetrics(recorded, "btcusdt@trade").update(
        stream_stats(
            "usdm:btcusdt@trade", received=received, conflated=1, dropped=1, rejected=1, repeated=1,
            lost=1, healed=1, repaired=1, reconnects=1, rotations=1, silences=1, unaligned=1, failovers=1,
            gaps=1, journal_max_bytes=1,
        ),
        {
            Metric.STREAM_LATENCY: RollingHistogram(10.0),
            Metric.STREAM_RELAY_LATENCY: RollingHistogram(10.0),
        },
    )  # fmt: skip
    legs = LegMetrics(recorded, "btcusdt@trade")
    legs.update(warm_ready=True)
    legs.took_over()
    PublisherMetrics(recorded, "p0").update(publisher_stats("p0"), PublisherGauges().histograms)
    RelayMetrics(recorded).update(scale(), Health())


def scale(mode: ScaleMode = ScaleMode.AUTO) -> ScaleStatus:
    return ScaleStatus(mode=mode, wanted=2, actual=1, min=1, max=6, reason="")


def test_every_metric_there_is_gets_recorded():
    recorded = Recorded()
    update_everything(recorded)
    assert {metric for metric, *_ in [*recorded.gauges, *recorded.counters]} == set(Metric)


def test_every_metric_but_buckets_and_those_of_legs_names_what_it_reads():
    without = {m for m in Metric if m.value.read is None and m.value.kind is not MetricKind.BUCKETS}
    assert without == {Metric.STREAM_WARM, Metric.STREAM_TAKEOVERS}


def test_names_are_unique_and_every_metric_has_a_meaning():
    names = [metric.value.name for metric in Metric]
    assert len(set(names)) == len(names)
    assert all(metric.value.meaning for metric in Metric)


def test_counters_grow_by_what_came_since():
    recorded = Recorded()
    metrics = StreamMetrics(recorded, "btcusdt@trade")
    for received in (10, 10, 35):
        metrics.update(stream_stats("usdm:btcusdt@trade", received=received), {})
    assert recorded.counters[Metric.STREAM_RECEIVED, "btcusdt@trade"] == 35


def test_what_is_not_known_is_not_set():
    recorded = Recorded()
    stats = stream_stats("usdm:a", latency_p99_ms=None, last_data_age_s=None, journal_max_bytes=0)
    StreamMetrics(recorded, "a").update(stats, {})
    unknown = {Metric.STREAM_LATENCY_P99, Metric.STREAM_DATA_AGE, Metric.STREAM_JOURNAL_LIMIT}
    assert not unknown & {metric for metric, *_ in recorded.gauges}


def test_what_has_not_happened_counts_zero():
    """Nobody sees a counter grow that is not there before."""
    recorded = Recorded()
    StreamMetrics(recorded, "a").update(stream_stats("usdm:a"), {})
    counted = {"timeout": 2, "10071": 1, "503": 4}
    PublisherMetrics(recorded, "p0").update(publisher_stats("p0", errors_by_code=counted), {})
    assert recorded.counters[Metric.STREAM_LOST, "a"] == 0
    assert (Metric.STREAM_LOST, "a") in recorded.counters
    errors = {code: recorded.counters[Metric.PUBLISHER_ERRORS, "p0", code] for code in ErrorCode}
    assert errors == {**dict.fromkeys(ErrorCode, 0), ErrorCode.TIMEOUT: 2, ErrorCode.REFUSED: 5}


def test_a_stream_is_in_one_state():
    recorded = Recorded()
    metrics = StreamMetrics(recorded, "a")
    for state in (StreamState.LIVE, StreamState.BLOCKED):
        metrics.update(stream_stats("usdm:a", state=state), {})
    shown = {state: recorded.gauges[Metric.STREAM_STATE, "a", state] for state in StreamState}
    assert shown == {state: state is StreamState.BLOCKED for state in StreamState}


def test_latencies_are_counted_up_to_each_bound():
    recorded, latency = Recorded(), RollingHistogram(10.0)
    metrics = StreamMetrics(recorded, "a")
    for ms in (0.3, 0.3, 30.0, 99_000.0):
        latency.add(int(ms * 1e6))
        metrics.update(stream_stats("usdm:a"), {Metric.STREAM_LATENCY: latency})
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    counts = [recorded.counters[Metric.STREAM_LATENCY, "a", bound] for bound in bounds]
    assert counts == [0, 0, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4]


def test_bounds_are_few_and_rise_from_a_tenth_of_a_millisecond_to_ten_seconds():
    assert (len(BOUNDS_S), BOUNDS_S[0], BOUNDS_S[-1]) == (12, 0.0001, 10.0)
    assert sorted(set(BOUNDS_S)) == list(BOUNDS_S)


@pytest.mark.parametrize(
    ("code", "counted"),
    [("10071", ErrorCode.REFUSED), ("503", ErrorCode.REFUSED), *((code, code) for code in ErrorCode)],
)
def test_errors_are_of_few_kinds(code, counted):
    assert ErrorCode.of(code) is ErrorCode(counted)


def test_names_are_those_that_rays_exporter_gives():
    assert Metric.STREAM_BACKLOG.value.exported_name == "ray_sluice_stream_backlog_events"
    assert Metric.STREAM_LOST.value.exported_name == "ray_sluice_stream_lost_events_total"
    assert Metric.PUBLISHER_ACK.value.exported_name == "ray_sluice_publisher_ack_seconds_bucket_total"


@pytest.mark.parametrize(("mode", "fixed"), [(ScaleMode.AUTO, 0), (ScaleMode.FIXED, 1)])
def test_the_pool_says_whether_a_human_set_it(mode, fixed):
    recorded = Recorded()
    RelayMetrics(recorded).update(scale(mode), Health())
    assert recorded.gauges[Metric.POOL_FIXED,] == fixed


@pytest.mark.parametrize(
    ("health", "ready", "healthy"),
    [
        (Health(), 1, 1),
        (Health(not_ready=("no data",)), 0, 1),
        (Health(not_ready=("no data",), unhealthy=("no data",)), 0, 0),
    ],
)
def test_health_is_told(health, ready, healthy):
    recorded = Recorded()
    RelayMetrics(recorded).update(scale(), health)
    assert recorded.gauges[Metric.RELAY_READY,] == ready
    assert recorded.gauges[Metric.RELAY_HEALTHY,] == healthy
