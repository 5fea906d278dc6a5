"""Is the relay ready, and can it recover by itself? Pure; `now` is monotonic seconds.

Ready: every wanted stream has delivered, and NATS acknowledges. While the relay waits for something that will
end by itself (NATS or the exchange is unreachable, an actor is being replaced), it is not ready, and healthy.
It is unhealthy when its own remedies should have worked long ago: each finding has a limit well beyond the
slowest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from relay.model.stats import Health, RelayStatus, StreamStats
from relay.primitives.text import age

# A reconnect takes one to two seconds, a publisher's watchdog two, a replacement three.
SILENT_S = 30.0
UNACKNOWLEDGED_S = 10.0
UNRESPONSIVE_S = 5.0
# A restarted Ray head answers again within a minute.
STUCK_S = 120.0
# An actor that does not answer is replaced after three seconds, and a failed start is retried without end; a
# new node may take some minutes to join.
ABSENT_S = 300.0
# NATS may be unreachable for any length of time, but a connected publisher must get acknowledgements.
STALLED_S = 300.0
# Stats are taken between two events, so counts that do not balance are a defect, not a snapshot in mid-event.
UNBALANCED_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong since `since`. The relay is not ready, and unhealthy, once it has lasted so long.

    `unhealthy_after_s` is None for what the relay waits for however long it takes.
    """

    text: str
    since: float
    not_ready_after_s: float = 0.0
    unhealthy_after_s: float | None = None


def health_of(findings: tuple[Finding, ...], observed_at: float, now: float) -> Health:
    """`observed_at` is when the controller last observed the relay."""
    blind_s = now - observed_at
    not_ready = [_sentence(one, now) for one in findings if now - one.since >= one.not_ready_after_s]
    unhealthy = [
        _sentence(one, now)
        for one in findings
        if one.unhealthy_after_s is not None and now - one.since >= one.unhealthy_after_s
    ]
    if blind_s >= SILENT_S:
        not_ready.insert(0, f"the controller has not seen the relay for {age(blind_s)}")
    if blind_s >= STUCK_S:
        unhealthy.insert(0, f"the controller has not seen the relay for {age(blind_s)}")
    return Health(not_ready=tuple(not_ready), unhealthy=tuple(unhealthy))


def _sentence(finding: Finding, now: float) -> str:
    return f"{finding.text} ({age(now - finding.since)})"


@dataclass(frozen=True, slots=True)
class _AckProgress:
    """Where a stream was when its acknowledgements last advanced, or when its backlog was last empty."""

    epoch: int
    acknowledged: int
    at: float


@dataclass(slots=True)
class HealthTracker:
    """Remembers since when each thing is wrong."""

    _since: dict[str, float] = field(default_factory=dict)
    _progress: dict[str, _AckProgress] = field(default_factory=dict)

    def update(
        self, status: RelayStatus, wanted: Mapping[str, float | None], jetstream_problem: str, now: float
    ) -> tuple[Finding, ...]:
        """`wanted` gives for each stream's key how long it may be silent; None is without limit."""
        found = [*_stream_findings(status, wanted, now), *_actor_findings(status, now)]
        if jetstream_problem:
            found.append(Finding(f"JetStream's streams are not there: {jetstream_problem}", now))
        timed = [replace(one, since=self._since.get(one.text, now)) for one in found]
        self._since = {one.text: one.since for one in timed}
        return (*timed, *self._stalls(status, now))

    def _stalls(self, status: RelayStatus, now: float) -> Iterator[Finding]:
        """Streams that have a backlog and whose acknowledgements do not advance."""
        connected = {one.publisher for one in status.publishers if one.connected}
        before, self._progress = self._progress, {}
        for stats in status.streams:
            key = stats.key
            progress = self._progress[key] = _progress(stats, before.get(key), now)
            if not stats.backlog_count:
                continue
            unhealthy_after_s = STALLED_S if stats.linked and stats.publisher in connected else None
            yield Finding(
                f"NATS acknowledges nothing of {key}", progress.at, UNACKNOWLEDGED_S, unhealthy_after_s
            )


def _progress(stats: StreamStats, before: _AckProgress | None, now: float) -> _AckProgress:
    same = before is not None and (before.epoch, before.acknowledged) == (stats.epoch, stats.acknowledged)
    if before is not None and same and stats.backlog_count:
        return before
    return _AckProgress(stats.epoch, stats.acknowledged, now)


def _stream_findings(
    status: RelayStatus, wanted: Mapping[str, float | None], now: float
) -> Iterator[Finding]:
    streams = {stats.key: stats for stats in status.streams}
    for key, limit_s in wanted.items():
        stats = streams.get(key)
        if stats is None:
            yield Finding(f"{key} has not started", now, unhealthy_after_s=ABSENT_S)
            continue
        if not stats.balanced:
            yield Finding(f"the event counts of {key} do not balance", now, unhealthy_after_s=UNBALANCED_S)
        if not stats.subscribed_at_ns:
            yield Finding(f"{key} has not reached the exchange", now)
        elif limit_s is not None:
            yield from _delivery_findings(key, stats, limit_s, now)


def _delivery_findings(key: str, stats: StreamStats, limit_s: float, now: float) -> Iterator[Finding]:
    if not stats.first_data_at_ns:
        yield Finding(f"{key} has had no data", now)
    elif not stats.acknowledged:
        yield Finding(f"NATS has acknowledged nothing of {key} yet", now)
    elif (stats.last_data_age_s or 0.0) >= limit_s + SILENT_S:
        yield Finding(f"{key} gets no data", now)


def _actor_findings(status: RelayStatus, now: float) -> Iterator[Finding]:
    streams = {stats.key for stats in status.streams}
    for name in status.unreachable:
        # While one publisher starts or is replaced, the streams deliver through the others.
        grace_s = UNRESPONSIVE_S if name in streams else ABSENT_S
        yield Finding(f"{name} does not answer", now, grace_s, ABSENT_S)
    if not status.publishers:
        yield Finding("no publisher runs", now, unhealthy_after_s=ABSENT_S)
    elif not any(one.connected for one in status.publishers):
        yield Finding("no publisher has a connection to NATS", now)
