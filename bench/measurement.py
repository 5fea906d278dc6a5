"""The result of one run of one load on one system, and medians over rounds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.tally import QUANTILES

# If the exchange sent less than this share of what was offered, it was the limit and not the system.
SENT_SHARE = 0.97
_NO_TALLY = {"unique": 0, "duplicates": 0, "out_of_order": 0}


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """`on_time` had arrived when the load's grace was over, `unique` when waiting ended."""

    sent: int
    on_time: int
    unique: int
    duplicates: int
    out_of_order: int


@dataclass(frozen=True, slots=True)
class Usage:
    """One process, or several, over one run."""

    cpu_s: float
    rss_bytes: int
    pss_bytes: int


def total(usages: Iterable[Usage]) -> Usage:
    """Of several processes; shared pages count once in its PSS, not in its RSS."""
    found = list(usages)
    return Usage(
        round(sum(usage.cpu_s for usage in found), 3),
        sum(usage.rss_bytes for usage in found),
        sum(usage.pss_bytes for usage in found),
    )


@dataclass(frozen=True, slots=True)
class Measurement:
    """`relay` are the system's own processes, `daemons` Ray's beneath it, `apparatus` the bench's around it.

    `latency_ms` has the values at QUANTILES per group of streams, `spells` their course for pictures.
    `stored` is what JetStream holds of the run, None where nothing is stored.
    """

    system: str
    load: str
    round: int
    seconds: float
    offered_per_s: float
    streams: dict[str, StreamCounts]
    strange: int
    latency_ms: dict[str, list[float]]
    relay: dict[str, Usage]
    daemons: Usage
    apparatus: dict[str, Usage]
    stored: int | None = None
    notes: dict[str, int] = field(default_factory=dict)
    spells: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        return sum(counts.sent for counts in self.streams.values())

    @property
    def unique(self) -> int:
        return sum(counts.unique for counts in self.streams.values())

    @property
    def sent_per_s(self) -> float:
        return self.sent / self.seconds

    @property
    def exchange_kept_up(self) -> bool:
        return self.sent_per_s >= SENT_SHARE * self.offered_per_s

    @property
    def held(self) -> bool:
        """Nothing lost, and the backlog gone when the grace was over."""
        return not (self.late(self.streams) or self.duplicates or self.out_of_order)

    @property
    def late_share(self) -> float:
        """Share of what was sent that had not arrived when the grace was over."""
        return self.late(self.streams) / self.sent if self.sent else 0.0

    @property
    def duplicates(self) -> int:
        return sum(counts.duplicates for counts in self.streams.values())

    @property
    def out_of_order(self) -> int:
        return sum(counts.out_of_order for counts in self.streams.values())

    @property
    def cpu_us_per_message(self) -> float:
        return sum(usage.cpu_s for usage in self.relay.values()) * 1e6 / max(self.unique, 1)

    @property
    def rss_bytes(self) -> int:
        return sum(usage.rss_bytes for usage in self.relay.values())

    @property
    def pss_bytes(self) -> int:
        return sum(usage.pss_bytes for usage in self.relay.values())

    def lost(self, streams: Iterable[str]) -> int:
        """Messages that had not arrived when waiting ended."""
        return sum(self.streams[name].sent - self.streams[name].unique for name in streams)

    def late(self, streams: Iterable[str]) -> int:
        """Messages that had not arrived when the load's grace was over, lost or not."""
        return sum(self.streams[name].sent - self.streams[name].on_time for name in streams)

    def quantile_ms(self, group: str, q: float) -> float:
        """NaN where nothing arrived."""
        values = self.latency_ms.get(group) or [float("nan")] * len(QUANTILES)
        return values[min(range(len(QUANTILES)), key=lambda at: abs(QUANTILES[at] - q))]


def counts_of(
    sent: Mapping[str, int], on_time: Mapping[str, int], tallies: Mapping[str, Mapping[str, int]]
) -> dict[str, StreamCounts]:
    """Join what the exchange sent with what the consumer saw, per stream."""
    return {
        name: StreamCounts(count, on_time.get(name, 0), **{**_NO_TALLY, **tallies.get(name, {})})
        for name, count in sent.items()
    }


def middle(values: Sequence[float]) -> float:
    """The median; NaN if there is none at all."""
    numbers = [value for value in values if value == value]
    return median(numbers) if numbers else float("nan")


def middle_quantiles(measurements: Sequence[Measurement], group: str) -> list[float]:
    """The median over rounds at each of QUANTILES; empty if nothing was timed."""
    rows = [of.latency_ms[group] for of in measurements if of.latency_ms.get(group)]
    return [middle(column) for column in zip(*rows, strict=True)]
