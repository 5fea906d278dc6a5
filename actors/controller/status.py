"""What the controller reports about the relay: its status, its health, and the metrics made of both."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from actors.controller.plan import Plan
from actors.controller.target import Target
from relay.control.observation import ClusterView
from relay.errors import SluiceError
from relay.model.actors import ActorId
from relay.model.stats import Health, PublisherStats, RelayStatus, ScaleStatus, StreamStats
from relay.observability.health import Finding, HealthTracker, health_of
from relay.observability.metric_recording import RelayMetrics
from relay.ports import Host


@dataclass(frozen=True, slots=True)
class Figures:
    """The last stats of all actors, in the order in which they are shown."""

    streams: tuple[StreamStats, ...]
    publishers: tuple[PublisherStats, ...]
    unreachable: tuple[str, ...]


def figures(view: ClusterView, order: Mapping[str, int]) -> Figures:
    """Streams as in the configuration, then those that it no longer names; publishers by number."""
    streams = sorted(view.streams(), key=lambda s: (order.get(s.key, len(order)), s.stream))
    publishers = sorted(view.publishers(), key=lambda p: (len(p.publisher), p.publisher))
    return Figures(tuple(streams), tuple(publishers), view.unreachable())


def relay_status(
    plan: Plan,
    target: Target,
    scale: ScaleStatus,
    found: Figures,
    *,
    problems: Iterable[str],
    pending: Iterable[ActorId],
    ended: Iterable[StreamStats],
) -> RelayStatus:
    """`ended` are the final figures of removed streams; those that are wanted again are left out."""
    return RelayStatus(
        config_version=target.version,
        controller_pid=os.getpid(),
        uptime_s=0.0,
        delivery=target.config.nats.delivery.value,
        scale=scale,
        streams=found.streams,
        publishers=found.publishers,
        unreachable=found.unreachable,
        problems=tuple(problems),
        pending=tuple(map(str, pending)),
        ended=tuple(stats for stats in ended if stats.key not in target.streams),
        stopped=tuple(plan.stopped.values()),
        changes=plan.changes,
    )


class StatusKeeper:
    """`status` is None before the first observation. `health` and `blind_s` may be called from any thread."""

    def __init__(self, host: Host) -> None:
        self.status: RelayStatus | None = None
        self._host = host
        self._tracker = HealthTracker()
        self._metrics = RelayMetrics(host.metrics)
        # What was found, and when the relay was observed; replaced as one, for readers in other threads.
        self._last: tuple[tuple[Finding, ...], float] | None = None
        self._closing = False

    def update(
        self,
        status: RelayStatus,
        silence_limits_s: Mapping[str, float | None],
        jetstream_problem: str,
        now: float,
    ) -> None:
        self.status = status
        findings = self._tracker.update(status, silence_limits_s, jetstream_problem, now)
        self._last = findings, now
        self._metrics.update(status.scale, health_of(findings, now, now))
        scale, backlog = status.scale, sum(stats.backlog_count for stats in status.streams)
        self._host.set_title(f"ray::Controller publishers={scale.actual}/{scale.wanted} backlog={backlog}")

    def begin_closing(self) -> None:
        """The relay is being taken down: nothing counts as wrong any more."""
        self._closing = True

    def update_figures(self, found: Figures) -> None:
        """All that still changes while the relay is taken down."""
        if self.status is not None:
            self.status = replace(
                self.status,
                streams=found.streams,
                publishers=found.publishers,
                unreachable=found.unreachable,
            )

    def failed(self, error: SluiceError) -> None:
        """Say that `status` is old, and why."""
        if self.status is not None:
            self.status = replace(self.status, problems=(f"the controller is stuck: {error}",))

    def health(self, now: float) -> Health:
        """As of `now`: while the controller observes nothing, health gets worse by itself."""
        if self._closing:
            return Health(not_ready=("the relay is being taken down",))
        if self._last is None:
            return Health(not_ready=("the controller has not observed the relay yet",))
        return health_of(*self._last, now)

    def blind_s(self, now: float) -> float:
        """How long ago the relay was last observed; 0 before the first time."""
        return 0.0 if self._last is None or self._closing else max(0.0, now - self._last[1])
