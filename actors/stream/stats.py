"""The figures of a stream actor, each taken from the part that counts it."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from actors.stream.feed_keeper import FeedKeeper
from actors.stream.journal_writer import JournalWriter
from actors.stream.link_keeper import LinkKeeper
from relay.config import StreamSettings
from relay.delivery.window import SendWindow
from relay.intake.intake import Intake
from relay.model.assignment import Assignment
from relay.model.stats import StreamState, StreamStats
from relay.ports import Host
from relay.primitives.rate_meter import RateMeter

RATE_HALF_LIFE_S = 1.5


def idle_stats(
    settings: StreamSettings,
    host: Host,
    feed: FeedKeeper,
    assignment: Assignment | None,
    state: StreamState,
) -> StreamStats:
    """Of an actor of this stream that has accepted nothing: what its exchange connection has seen."""
    spec, last_data_at = settings.spec, feed.last_data_at
    return StreamStats(
        stream=spec.name,
        venue=spec.venue.value,
        symbol=spec.symbol,
        channel=spec.channel,
        state=state,
        overflow=settings.overflow,
        pid=os.getpid(),
        node=host.node,
        reconnects=feed.reconnects,
        rotations=feed.rotations,
        silences=feed.silences,
        unaligned=feed.unaligned,
        last_data_age_s=None if last_data_at is None else time.monotonic() - last_data_at,
        assignment_version=assignment.version if assignment else 0,
        subscribed_at_ns=feed.subscribed_at_ns,
        first_data_at_ns=feed.first_data_at_ns,
        last_error=feed.last_error,
    )


class StatsCollector:
    """Of a stream relay, whose parts these are; `journal` is None where the stream has none. `measure` is
    called about once a second."""

    def __init__(
        self,
        settings: StreamSettings,
        host: Host,
        *,
        epoch: int,
        window: SendWindow,
        intake: Intake,
        feed: FeedKeeper,
        links: LinkKeeper,
        journal: JournalWriter | None,
    ) -> None:
        self._settings = settings
        self._host = host
        self._epoch = epoch
        self._window = window
        self._intake = intake
        self._feed = feed
        self._links = links
        self._journal = journal
        self._rate = RateMeter(RATE_HALF_LIFE_S)
        self._bytes_rate = RateMeter(RATE_HALF_LIFE_S)

    def measure(self) -> None:
        now = time.monotonic()
        self._rate.update(self._window.counts.received - self._window.counts.recovered, now)
        self._bytes_rate.update(self._intake.received_bytes, now)

    def collect(self, state: StreamState) -> StreamStats:
        stats = idle_stats(self._settings, self._host, self._feed, self._links.assignment, state)
        return self._with_journal(self._with_links(self._with_events(stats)))

    def _with_events(self, stats: StreamStats) -> StreamStats:
        window, counts, oldest_ns = self._window, self._window.counts, self._window.oldest_recv_ns()
        return replace(
            stats,
            epoch=self._epoch,
            received=counts.received,
            recovered=counts.recovered,
            acknowledged=counts.acknowledged,
            queued=window.queued,
            in_flight=window.in_flight,
            spilled=counts.spilled,
            conflated=counts.conflated,
            dropped=counts.dropped,
            rejected=counts.rejected,
            repeated=counts.repeated,
            lost=self._intake.lost,
            healed=self._intake.healed,
            repaired=self._intake.repaired,
            gaps=self._intake.losses,
            backlog_bytes=window.memory_bytes,
            backlog_age_s=max(0.0, (time.time_ns() - oldest_ns) / 1e9) if oldest_ns else 0.0,
            rate_per_s=self._rate.rate_per_s,
            bytes_per_s=self._bytes_rate.rate_per_s,
        )

    def _with_links(self, stats: StreamStats) -> StreamStats:
        links, now = self._links, time.monotonic()
        latency, relayed = links.latency.merged(now), links.relay_latency.merged(now)
        return replace(
            stats,
            publisher=links.publisher,
            linked=links.linked,
            failovers=links.failovers,
            latency_p50_ms=_ms(latency.quantile(0.5)),
            latency_p99_ms=_ms(latency.quantile(0.99)),
            latency_max_ms=_ms(latency.max_ns or None),
            relay_latency_p50_ms=_ms(relayed.quantile(0.5)),
            relay_latency_p99_ms=_ms(relayed.quantile(0.99)),
        )

    def _with_journal(self, stats: StreamStats) -> StreamStats:
        journal = self._journal
        if journal is None:
            return stats
        return replace(
            stats,
            journal_bytes=journal.used_bytes,
            journal_max_bytes=journal.max_bytes,
            last_error=journal.error or stats.last_error,
            problem=journal.problem,
        )


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6


def status_line(stats: StreamStats) -> str:
    """For the log, such as `btcusdt@trade live backlog=0 age_s=0.00 ...`."""
    p99 = "-" if stats.latency_p99_ms is None else f"{stats.latency_p99_ms:.2f}"
    return (
        f"{stats.stream} {stats.state} backlog={stats.backlog_count} age_s={stats.backlog_age_s:.2f}"
        f" in={stats.rate_per_s:.0f}/s p99_ms={p99} acknowledged={stats.acknowledged} lost={stats.lost}"
        f" publisher={stats.publisher or '-'}"
    )
