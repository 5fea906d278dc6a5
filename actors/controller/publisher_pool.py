"""The number of publishers: what operators asked for, what the load needs, and how it is reported."""

from __future__ import annotations

from actors.controller.plan import Plan
from relay.control.autoscale import (
    FIRST_CAPACITY_PER_S,
    PublisherLoad,
    ScaleSettings,
    ScaleSnapshot,
    ScaleState,
    decide,
)
from relay.control.observation import ClusterView
from relay.control.reconcile import Observed
from relay.model.actors import ActorId, Role, Silence
from relay.model.stats import ScaleMode, ScaleStatus


class PublisherPool:
    def __init__(self) -> None:
        self._state: ScaleState | None = None
        self._status: ScaleStatus | None = None

    @property
    def capacity_per_s(self) -> float:
        return self._state.capacity_per_s if self._state else FIRST_CAPACITY_PER_S

    def decide(self, plan: Plan, observed: Observed, view: ClusterView, now: float) -> ScaleStatus:
        bounds = plan.running.config.publishers
        if self._state is None:
            self._state = ScaleState(wanted=len(observed.publishers) or bounds.min)
        snapshot = _snapshot(plan, observed, view)
        settings = ScaleSettings(minimum=bounds.min, maximum=bounds.max)
        decision, self._state = decide(settings, snapshot, self._state, now)
        by_hand = plan.scaling.count is not None
        self._status = ScaleStatus(
            mode=ScaleMode.FIXED if by_hand else ScaleMode.AUTO,
            wanted=decision.wanted,
            actual=sum(found.silence is not Silence.STARTING for found in observed.publishers.values()),
            min=bounds.min,
            max=bounds.max,
            reason=f"set by {plan.scaling.who}" if by_hand else decision.reason,
        )
        return self._status

    def status(self, plan: Plan) -> ScaleStatus:
        """As of the last observation, with what operators asked for since."""
        before = self._status
        bounds = plan.running.config.publishers
        count = plan.scaling.count
        return ScaleStatus(
            mode=ScaleMode.AUTO if count is None else ScaleMode.FIXED,
            wanted=count or (before.wanted if before else bounds.min),
            actual=before.actual if before else 0,
            min=bounds.min,
            max=bounds.max,
            reason=f"set by {plan.scaling.who}",
        )


def _snapshot(plan: Plan, observed: Observed, view: ClusterView) -> ScaleSnapshot:
    silent = view.silences()
    answering = [s for s in view.streams() if s.critical or ActorId(Role.STREAM, s.key) not in silent]
    staying = {name: found for name, found in observed.publishers.items() if found.retired_s is None}
    loads = tuple(
        PublisherLoad(
            rate_per_s=stats.rate_per_s,
            load=stats.load,
            ack_p99_ms=stats.ack_p99_ms,
            connected=stats.connected,
        )
        for stats in view.publishers()
        if stats.publisher in staying and ActorId(Role.PUBLISHER, stats.publisher) not in silent
    )
    starting = sum(found.silence is Silence.STARTING for found in staying.values())
    return ScaleSnapshot(
        streams=len(plan.running.config.shards),
        input_rate_per_s=sum(stats.rate_per_s for stats in answering),
        backlog=sum(stats.backlog_count for stats in answering),
        backlog_age_s=max((stats.backlog_age_s for stats in answering), default=0.0),
        publishers=loads,
        starting=starting,
        leaving=len(observed.publishers) - len(staying),
        unreachable=len(silent) - starting,
        fixed=plan.scaling.count,
    )
