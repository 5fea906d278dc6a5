"""The four plots of a benchmark, as SVG text by file name. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10

from bench.measurement import Measurement, middle, middle_quantiles
from bench.report import RampResult, Results
from bench.svg import Axis, Series, bar_chart, line_chart, linear_axis, log_axis
from bench.tally import QUANTILES

# Okabe and Ito's colour-blind-safe palette, with dashes for print; a system has the same style in every run.
_STYLES = {
    "Sluice, JetStream": ("#0072b2", ""),
    "Sluice, core": ("#009e73", "14 6"),
    "forwarder": ("#e69f00", "4 6"),
    "old design": ("#d55e00", "20 6 4 6"),
}
_PLAIN = ("#555555", "")
_MOST_QUANTILE = 0.999
_QUANTILE_TICKS = ((0.0, "fastest"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"))


def pictures(results: Results) -> dict[str, str]:
    made = {
        "latency": _latency(results),
        "ramp": _ramp(results),
        "flood": _flood(results),
        "cpu": _cpu(results),
    }
    return {name: text for name, text in made.items() if text}


def _series(results: Results, points: dict[str, list[tuple[float, float]]]) -> list[Series]:
    chosen = [system for system in results.systems if points.get(system)]
    styles = {system: _STYLES.get(system, _PLAIN) for system in chosen}
    return [Series(system, styles[system][0], tuple(points[system]), styles[system][1]) for system in chosen]


def _value_axis(title: str, series: Sequence[Series], floor: float) -> Axis:
    values = [y for line in series for _, y in line.points if isfinite(y) and y > 0]
    return log_axis(title, max(min(values, default=1.0), floor), max(values, default=10.0))


def _latency(results: Results) -> str:
    """The calm load: the cumulative distribution of latency."""
    load = results.plan.loads[0]
    points = {}
    for system in results.systems:
        values = middle_quantiles(results.of(system, load.name), "all")
        chosen = [(q, value) for q, value in zip(QUANTILES, values, strict=False) if q <= _MOST_QUANTILE]
        points[system] = [(-log10(1 - q), value) for q, value in chosen]
    series = _series(results, points)
    if not series:
        return ""
    ticks = tuple((-log10(1 - q), label) for q, label in _QUANTILE_TICKS)
    x = Axis("share of the messages that were at least so fast", 0.0, ticks[-1][0], ticks)
    y = _value_axis("exchange to consumer, ms", series, 0.01)
    title = f"Latency at {load.rate_per_s:,.0f} messages a second over ten streams"
    return line_chart(title, str(results.machine), x, y, series)


def _ramp(results: Results) -> str:
    points = {ramp.system: _shares(ramp) for ramp in results.ramps}
    series = _series(results, points)
    if not series:
        return ""
    x = linear_axis("messages a second offered, evenly over ten streams", max(results.plan.ramp_rates))
    y = linear_axis("lost or late", 100.0, unit=" %")
    return line_chart("Loss and backlog against rate", str(results.machine), x, y, series)


def _shares(ramp: RampResult) -> list[tuple[float, float]]:
    return sorted((step.offered_per_s, 100 * step.late_share) for step in ramp.steps)


def _flood(results: Results) -> str:
    """p99 of the calm streams in each time span, medians over the rounds."""
    load = results.plan.flood
    group = next(iter(load.groups))
    points = {
        system: [point for point in _course(results.of(system, load.name), group) if point[0] < load.seconds]
        for system in results.systems
    }
    series = _series(results, points)
    if not series:
        return ""
    x = linear_axis("seconds of flood", load.seconds)
    y = _value_axis("p99 of the nine calm streams, ms", series, 0.05)
    title = "Calm streams while one stream floods"
    return line_chart(title, str(results.machine), x, y, series)


def _course(measured: Sequence[Measurement], group: str) -> list[tuple[float, float]]:
    values: dict[float, list[float]] = {}
    for each in measured:
        for spell in each.spells.get(group, []):
            values.setdefault(spell["start_s"], []).append(spell["p99_ms"])
    return [(start_s, middle(values[start_s])) for start_s in sorted(values)]


def _cpu(results: Results) -> str:
    loads = (*results.plan.loads, results.plan.flood)
    points = {
        system: [
            (float(number), middle([each.cpu_us_per_message for each in results.of(system, load.name)]))
            for number, load in enumerate(loads)
            if results.of(system, load.name)
        ]
        for system in results.systems
    }
    series = _series(results, points)
    if not series:
        return ""
    most = max(value for line in series for _, value in line.points)
    names = [f"{load.name}, {load.rate_per_s:,.0f}/s offered" for load in loads]
    y = linear_axis("CPU of the relay, us a message", most * 1.1)
    return bar_chart("CPU a message delivered", str(results.machine), y, names, series)
