"""What the Grafana dashboard shows: rows of panels and their queries, built from the list of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.model.stats import StreamState
from relay.observability.metrics import Metric

# Ray's own dashboards have these variables, and its Metrics tab sets the first.
_EVERYWHERE = 'SessionName=~"$SessionName",ray_io_cluster=~"$Cluster"'
_RATE = "[$__rate_interval]"
_RANGE = "[$__range]"
# Grafana's state timeline shows one number for each stream.
STATE_NUMBERS = {state: number for number, state in enumerate(StreamState)}


@dataclass(frozen=True, slots=True)
class Query:
    """`legend` is a template over the tags of a series. With `now` only the last value counts."""

    expression: str
    legend: str
    now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """`kind` and `unit` are names that Grafana knows; `width` counts columns, of which there are 24."""

    title: str
    meaning: str
    queries: Sequence[Query]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 12
    stacked: bool = False
    bad: bool = False
    """Anything above zero is shown in red."""


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: Sequence[Panel] = field(default=())


def _series(metric: Metric, **wanted: str) -> str:
    tags = [_EVERYWHERE]
    if "stream" in metric.value.tags:
        tags.append('stream=~"$stream"')
    tags += [f'{tag}="{value}"' for tag, value in wanted.items()]
    return f"{metric.value.exported_name}{{{','.join(tags)}}}"


def _by(tag: str) -> str:
    return f" by ({tag})" if tag else ""


def _gauge(metric: Metric, tag: str = "") -> str:
    """The maximum over incarnations: the gauge of an older one may not have expired yet."""
    return f"max{_by(tag)} ({_series(metric)})"


def _summed(metric: Metric) -> str:
    return f"sum (max by (stream) ({_series(metric)}))"


def _rate(metric: Metric, tag: str) -> str:
    return f"sum{_by(tag)} (rate({_series(metric)}{_RATE}))"


def _grown(metric: Metric, tag: str = "", within: str = _RATE) -> str:
    return f"sum{_by(tag)} (increase({_series(metric)}{within}))"


def _quantile(q: float, metric: Metric, tag: str = "") -> str:
    tags = f"le, {tag}" if tag else "le"
    return f"histogram_quantile({q:g}, {_rate(metric, tags)})"


def _state() -> str:
    terms = [
        f"{_series(Metric.STREAM_STATE, state=state)} * {number}" for state, number in STATE_NUMBERS.items()
    ]
    return f"max by (stream) ({' or '.join(terms)})"


def _filling() -> str:
    """Each incarnation's bytes by its own limit."""
    return (
        f"max by (stream) ({_series(Metric.STREAM_JOURNAL_BYTES)} / {_series(Metric.STREAM_JOURNAL_LIMIT)})"
    )


def _per_batch() -> str:
    events, batches = Metric.PUBLISHER_ACKNOWLEDGED, Metric.PUBLISHER_BATCHES
    return f"{_rate(events, 'publisher')} / {_rate(batches, 'publisher')}"


def _meaning(metric: Metric) -> str:
    text = metric.value.meaning
    return f"{text[0].upper()}{text[1:]}."


def _of_streams(title: str, metric: Metric, **more: object) -> Panel:
    return _one(title, metric, _gauge(metric, "stream"), "{{stream}}", **more)


def _of_publishers(title: str, metric: Metric, **more: object) -> Panel:
    return _one(title, metric, _gauge(metric, "publisher"), "{{publisher}}", **more)


def _one(title: str, metric: Metric, expression: str, legend: str, **more: object) -> Panel:
    return Panel(title=title, meaning=_meaning(metric), queries=(Query(expression, legend),), **more)  # type: ignore[arg-type]


def _count(title: str, metric: Metric, *, bad: bool = True) -> Panel:
    """How many in the time that is shown."""
    query = Query(f"round({_grown(metric, within=_RANGE)})", title, now=True)
    return Panel(title=title, meaning=_meaning(metric), queries=(query,), kind="stat", width=4, bad=bad)


BACKLOG = Row(
    "Sluice: backlog of each stream",
    (
        Panel(
            title="Backlog now",
            meaning=_meaning(Metric.STREAM_BACKLOG),
            queries=(Query(_gauge(Metric.STREAM_BACKLOG, "stream"), "{{stream}}", now=True),),
            kind="bargauge",
        ),
        _of_streams("Backlog", Metric.STREAM_BACKLOG),
        _of_streams("Age of the oldest waiting event", Metric.STREAM_BACKLOG_AGE, unit="s"),
        Panel(
            title="Where it waits",
            meaning="In memory, at a publisher, or in the journal alone. All streams together.",
            queries=(
                Query(_summed(Metric.STREAM_QUEUED), "memory"),
                Query(_summed(Metric.STREAM_IN_FLIGHT), "in flight"),
                Query(_summed(Metric.STREAM_SPILLED), "journal alone"),
            ),
            width=6,
            stacked=True,
        ),
        _one(
            "How full the journals are",
            Metric.STREAM_JOURNAL_BYTES,
            _filling(),
            "{{stream}}",
            unit="percentunit",
            width=6,
        ),
    ),
)
RATES = Row(
    "Sluice: rates",
    (
        _one(
            "Events in", Metric.STREAM_RECEIVED, _rate(Metric.STREAM_RECEIVED, "stream"), "{{stream}}",
            unit="cps", stacked=True,
        ),
        _one(
            "Events acknowledged by NATS", Metric.STREAM_ACKNOWLEDGED,
            _rate(Metric.STREAM_ACKNOWLEDGED, "stream"), "{{stream}}", unit="cps", stacked=True,
        ),
        Panel(
            title="State of each stream",
            meaning=_meaning(Metric.STREAM_STATE),
            queries=(Query(_state(), "{{stream}}"),),
            kind="state-timeline",
        ),
        _of_streams("Time since the exchange sent anything", Metric.STREAM_DATA_AGE, unit="s"),
    ),
)  # fmt: skip
LATENCY = Row(
    "Sluice: latency",
    (
        Panel(
            title="Socket read to acknowledgement",
            meaning="How many events took how long. All streams together.",
            queries=(Query(_grown(Metric.STREAM_LATENCY, "le"), "{{le}}"),),
            kind="heatmap",
            unit="s",
        ),
        Panel(
            title="Socket read to acknowledgement, quantiles",
            meaning="All streams together.",
            queries=tuple(
                Query(_quantile(q, Metric.STREAM_LATENCY), f"p{q * 100:g}") for q in (0.5, 0.99, 0.999)
            ),
            unit="s",
        ),
        _one(
            "Socket read to acknowledgement, p99", Metric.STREAM_LATENCY,
            _quantile(0.99, Metric.STREAM_LATENCY, "stream"), "{{stream}}", unit="s", width=8,
        ),
        _one(
            "Socket read to NATS write, p99", Metric.STREAM_RELAY_LATENCY,
            _quantile(0.99, Metric.STREAM_RELAY_LATENCY, "stream"), "{{stream}}", unit="s", width=8,
        ),
        _one(
            "Publish to acknowledgement, p99", Metric.PUBLISHER_ACK,
            _quantile(0.99, Metric.PUBLISHER_ACK, "publisher"), "{{publisher}}", unit="s", width=8,
        ),
    ),
)  # fmt: skip
LOSSES = Row(
    "Sluice: losses",
    (
        _count("Lost", Metric.STREAM_LOST),
        _count("Gaps", Metric.STREAM_GAPS),
        _count("Dropped", Metric.STREAM_DROPPED),
        _count("Rejected", Metric.STREAM_REJECTED),
        _count("Conflated", Metric.STREAM_CONFLATED),
        _count("Healed", Metric.STREAM_HEALED, bad=False),
        _one("Lost, by stream", Metric.STREAM_LOST, _grown(Metric.STREAM_LOST, "stream"), "{{stream}}"),
        Panel(
            title="Connections",
            meaning="How often connections were opened again, replaced or left, or links to publishers lost.",
            queries=tuple(
                Query(_grown(metric), legend)
                for metric, legend in (
                    (Metric.STREAM_RECONNECTS, "reconnects"),
                    (Metric.STREAM_ROTATIONS, "rotations"),
                    (Metric.STREAM_SILENCES, "silences"),
                    (Metric.STREAM_UNALIGNED, "possible gaps"),
                    (Metric.STREAM_FAILOVERS, "failovers"),
                )
            ),
        ),
    ),
)
PUBLISHERS = Row(
    "Sluice: publishers",
    (
        _of_publishers("Load of a core", Metric.PUBLISHER_LOAD, unit="percentunit", width=8),
        _of_publishers("Events published", Metric.PUBLISHER_RATE, unit="cps", width=8),
        _of_publishers("In flight", Metric.PUBLISHER_IN_FLIGHT, width=8),
        _of_publishers("Streams served", Metric.PUBLISHER_STREAMS, width=8),
        _one(
            "Events in a batch", Metric.PUBLISHER_BATCHES,
            _per_batch(),
            "{{publisher}}", width=8,
        ),
        _one(
            "Errors", Metric.PUBLISHER_ERRORS, _grown(Metric.PUBLISHER_ERRORS, "code"), "{{code}}", width=8
        ),
    ),
)  # fmt: skip
POOL = Row(
    "Sluice: pool",
    (
        Panel(
            title="Publishers",
            meaning="How many there should be, how many serve, and the most that the load may ask for.",
            queries=(
                Query(_gauge(Metric.POOL_WANTED), "wanted"),
                Query(_gauge(Metric.POOL_ACTUAL), "actual"),
                Query(_gauge(Metric.POOL_MAX), "most"),
            ),
        ),
        _one("Set by hand", Metric.POOL_FIXED, _gauge(Metric.POOL_FIXED), "fixed", width=4),
        _one("Ready", Metric.RELAY_READY, _gauge(Metric.RELAY_READY), "ready", width=4),
        _one("Healthy", Metric.RELAY_HEALTHY, _gauge(Metric.RELAY_HEALTHY), "healthy", width=4),
    ),
)
ROWS = (BACKLOG, RATES, LATENCY, LOSSES, PUBLISHERS, POOL)
