"""One tick of the controller: look, decide, act. Used by one thread; the decisions are pure functions."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from typing import TypedDict

from actors.controller.jetstream_keeper import Ensure, JetStreamKeeper
from actors.controller.publisher_pool import Plan, Pool
from relay.config.diff import publisher_revision, revision
from relay.control.assign import Placement, assign, keep_failed_over, publish
from relay.control.autoscale import DRAIN_S
from relay.control.observation import ClusterView
from relay.control.reconcile import (
    Assign,
    Create,
    Desired,
    Drain,
    Instruction,
    Observed,
    Remove,
    Retire,
    reconcile,
    unsettled,
)
from relay.control.standby_pairs import ColocatedPairs, choose_node
from relay.control.store import ControlStore, Running
from relay.errors import SluiceError
from relay.model.actors import ActorId, Role
from relay.model.assignment import Assignment
from relay.model.stats import (
    Health,
    LegState,
    PublisherStats,
    RelayStatus,
    ScaleStatus,
    StreamStats,
    TakenDown,
)
from relay.observability.health import Finding, HealthTracker, health_of
from relay.observability.metric_recording import RelayMetrics
from relay.ports import Cluster, Host, Room

_log = logging.getLogger(__name__)

TICK_S = 1.0
# While something is under way the next look comes sooner, but not for ever: a pod may take minutes to come.
BUSY_TICK_S = 0.2
BUSY_FOR_S = 10.0
LOOK_DEADLINE_S = 1.0
STREAM_DRAIN_S = 10.0
# In place of the settings that a publisher was made with: those of no configuration, so it has to go.
RETIRED = "retired"
PUBLISHER_DRAIN_S = 2.0


class Figures(TypedDict):
    streams: tuple[StreamStats, ...]
    publishers: tuple[PublisherStats, ...]
    unreachable: tuple[str, ...]


class Target:
    """What the configuration comes to without the stopped streams, worked out once for each change of it."""

    def __init__(self, running: Running, stopped: frozenset[str]) -> None:
        self.version = running.version
        self.stopped = stopped
        self.config = running.config
        every = {settings.spec.key: settings for settings in running.config.streams}
        self.settings = {key: settings for key, settings in every.items() if key not in stopped}
        self.silence_limits_s = {key: one.spec.silence_limit_s for key, one in self.settings.items()}
        self.streams = {key: revision(settings) for key, settings in self.settings.items()}
        self.critical = frozenset(key for key, one in self.settings.items() if one.critical)
        self.publisher_revision = publisher_revision(running.config.nats)
        self.order = {key: at for at, key in enumerate(every)}

    def label(self, *, twin: bool) -> str | None:
        """Of the nodes where a stream's actor goes, or its twin."""
        resources = self.config.resources
        return (resources.twin_nodes if twin else None) or resources.stream_nodes


class ReconcileLoop:
    """`status` is None before the first look; `ended` is set when `close_down` found nothing left.

    `health`, `blind_s` and `retire` may be called from any thread.
    """

    def __init__(self, cluster: Cluster, host: Host, facts: ControlStore, ensure: Ensure) -> None:
        self.status: RelayStatus | None = None
        self.ended = threading.Event()
        self.pool = Pool()
        self._cluster = cluster
        self._host = host
        self._facts = facts
        self._view = ClusterView()
        self._health = HealthTracker()
        self._colocated = ColocatedPairs()
        # Of the legs that were made here.
        self._homes: dict[ActorId, str | None] = {}
        self._metrics = RelayMetrics(host.metrics)
        self._judged: tuple[tuple[Finding, ...], float] | None = None
        self._jetstream = JetStreamKeeper(ensure)
        self._target: Target | None = None
        self._recovered = False
        self._revisions: dict[ActorId, str] = {}
        self._published: dict[str, Assignment] = {}
        self._placed: dict[str, Placement] = {}
        self._draining: set[ActorId] = set()
        self._final: dict[str, StreamStats | None] = {}
        self._busy_until = 0.0
        self._closing = False

    def bring_to(self, plan: Plan, now: float) -> float:
        """Act once towards the plan; returns the seconds until the next look should come."""
        target = self._aim(plan)
        self._jetstream.tick(now)
        observed = self._observe(now)
        scale = self.pool.decide(plan, observed, self._view, now)
        self._place(target, observed, now)
        desired = Desired(
            streams=target.streams,
            publishers=scale.wanted,
            critical=target.critical,
            publisher_revision=target.publisher_revision,
            assignments={key: made for key, made in self._published.items() if key in target.streams},
        )
        instructions = [*reconcile(desired, observed, now), *self._separate_pairs(target, observed, now)]
        for instruction in instructions:
            self._act(instruction, target, STREAM_DRAIN_S)
        self._forget_removed(target, observed)
        self._show(plan, target, scale, unsettled(desired, observed), now)
        return self._period_s(instructions, observed, now)

    def failed(self, error: SluiceError) -> None:
        """Tell people that `status` is old, and why."""
        if self.status is not None:
            self.status = replace(self.status, problems=(f"the controller is stuck: {error}",))

    def health(self, now: float) -> Health:
        """As of `now`: what nobody looks at any more gets worse by itself."""
        if self._closing:
            return Health(not_ready=("the relay is being taken down",))
        if self._judged is None:
            return Health(not_ready=("the controller has not looked at the relay yet",))
        return health_of(*self._judged, now)

    def blind_s(self, now: float) -> float:
        """How long ago the relay was seen last; 0 before the first look."""
        return 0.0 if self._judged is None or self._closing else max(0.0, now - self._judged[1])

    def retire(self, publisher: str) -> None:
        """Replace it by another one where one is wanted, once that serves; also if this process ends now."""
        self._remember_revision(ActorId(Role.PUBLISHER, publisher), RETIRED)

    def _aim(self, plan: Plan) -> Target:
        running, stopped = plan.running, frozenset(plan.stopped)
        if self._target is None or self._target.version != running.version:
            self._jetstream.want(running.config)
            self._target = Target(running, stopped)
        elif self._target.stopped != stopped:
            self._target = Target(running, stopped)
        return self._target

    def close_down(self, drain_s: float, now: float) -> float:
        """Act once towards nothing at all. Publishers go after the streams, which need them to drain."""
        if not self._closing:
            self._closing = True
            self._final.clear()
        observed = self._observe(now)
        if observed.streams or observed.twins:
            observed = replace(observed, publishers={})
        for instruction in reconcile(Desired(streams={}, publishers=0), observed, now):
            self._act(instruction, None, drain_s)
        if self.status is not None:
            self.status = replace(self.status, **self._figures())
        if not self._cluster.actors():
            self.ended.set()
        return BUSY_TICK_S

    def taken_down(self) -> TakenDown:
        ended = {key: stats for key, stats in self._final.items() if stats is not None}
        return TakenDown(
            streams=tuple(ended.values()), silent=tuple(sorted(self._final.keys() - ended.keys()))
        )

    def close(self) -> None:
        self._jetstream.close()

    def _observe(self, now: float) -> Observed:
        if not self._recovered:
            self._published = self._facts.assignments()
            self._placed = {
                stream: Placement(made.publisher)
                for stream, made in self._published.items()
                if made.publisher
            }
            self._revisions = self._facts.revisions()
            self._recovered = True
        self._view.update(self._cluster.observe(self._cluster.actors(), LOOK_DEADLINE_S), now)
        drains = {actor: self._cluster.drained(actor) is not None for actor in self._draining}
        loads = {stats.publisher: stats.rate_per_s for stats in self._view.publishers()}
        return self._view.observed(self._revisions, drains, loads)

    def _place(self, target: Target, observed: Observed, now: float) -> None:
        """Decide who serves whom and write it down, for streams that start while no controller runs."""
        endpoints = self._view.endpoints()
        if not endpoints:
            return
        demand = dict.fromkeys(target.streams, 0.0)
        used = {}
        for stats in self._view.streams():
            key = stats.key
            if key in demand:
                demand[key] = stats.rate_per_s + stats.backlog_count / DRAIN_S
            if stats.publisher is not None and stats.linked:
                used[key] = (stats.publisher, stats.assignment_version)
        placed = keep_failed_over(self._placed, self._published, used, endpoints, now)
        self._placed = assign(demand, endpoints, self.pool.capacity_per_s, placed, now)
        reported = max((leg.assignment_version for _, _, leg in observed.legs()), default=0)
        changed = publish(self._published, self._placed, endpoints, reported)
        for stream, assignment in changed.items():
            self._facts.save_assignment(stream, assignment)
        self._published.update(changed)

    def _act(self, instruction: Instruction, target: Target | None, drain_s: float) -> None:
        if not isinstance(instruction, Assign):
            _log.info("%s", instruction)
        match instruction:
            case Create(actor):
                assert target is not None
                self._create(actor, target)
            case Assign(actor, assignment):
                self._cluster.assign(actor, assignment)
            case Retire(publisher):
                self._view.retired(publisher)
            case Drain(actor):
                deadline_s = PUBLISHER_DRAIN_S if actor.role is Role.PUBLISHER else drain_s
                self._cluster.begin_drain(actor, deadline_s)
                self._draining.add(actor)
            case Remove(actor):
                self._remove(actor)

    def _create(self, actor: ActorId, target: Target) -> None:
        self._view.created(actor)
        resources = target.config.resources
        if actor.role is not Role.PUBLISHER:
            self._remember_revision(actor, target.streams[actor.key])
            self._create_leg(actor, target)
        else:
            self._remember_revision(actor, target.publisher_revision)
            room = Room(resources.publisher_cpus, resources.publisher_nodes)
            self._cluster.create_publisher(actor.key, target.config.nats, room)

    def _create_leg(self, actor: ActorId, target: Target) -> None:
        settings, twin = target.settings[actor.key], actor.role is Role.TWIN
        room = Room(target.config.resources.stream_cpus, target.label(twin=twin))
        if settings.critical:
            room = replace(room, node=self._choose_node(actor, room.nodes))
        if twin:
            self._cluster.create_twin(settings, room)
        else:
            self._cluster.create_stream(settings, room)

    def _choose_node(self, actor: ActorId, label: str | None) -> str | None:
        other = ActorId(Role.STREAM if actor.role is Role.TWIN else Role.TWIN, actor.key)
        there = self._view.nodes_of_legs(actor.key).get(other.role) or self._homes.get(other)
        homes = [home for one, home in self._homes.items() if home and one != actor]
        self._homes[actor] = home = choose_node(self._cluster.nodes(label), there, homes)
        return home

    def _separate_pairs(self, target: Target, observed: Observed, now: float) -> list[Instruction]:
        """Two legs that share a node for want of another one part once there is one."""
        found: list[Instruction] = []
        for key in target.critical:
            legs = {Role.STREAM: observed.streams.get(key), Role.TWIN: observed.twins.get(key)}
            warm = [role for role, leg in legs.items() if leg and leg.warm and leg.silence is None]
            if not warm:
                continue
            nodes = self._cluster.nodes(target.label(twin=warm[0] is Role.TWIN))
            if self._colocated.update(key, self._view.nodes_of_legs(key), nodes, now):
                found.append(Remove(ActorId(warm[0], key)))
        return found

    def _remember_revision(self, actor: ActorId, made_with: str) -> None:
        self._revisions[actor] = made_with
        self._facts.save_revision(actor, made_with)

    def _remove(self, actor: ActorId) -> None:
        if actor.role is not Role.PUBLISHER:
            self._keep_final(actor)
        self._cluster.remove(actor)
        self._view.removed(actor)
        self._draining.discard(actor)
        self._homes.pop(actor, None)
        self._revisions.pop(actor, None)
        self._facts.forget_revision(actor)

    def _keep_final(self, actor: ActorId) -> None:
        """Of two legs, the figures of the one that was hot."""
        ended = self._cluster.drained(actor)
        stats = ended if isinstance(ended, StreamStats) else None
        paired = actor.role is Role.TWIN or ActorId(Role.TWIN, actor.key) in self._revisions
        if paired and (stats is None or stats.leg is LegState.WARM):
            self._final.setdefault(actor.key, None)
        else:
            self._final[actor.key] = stats

    def _forget_removed(self, target: Target, observed: Observed) -> None:
        left = target.streams.keys() | observed.streams.keys() | observed.twins.keys()
        for key in self._published.keys() - left:
            del self._published[key]
            self._facts.forget_assignment(key)

    def _period_s(self, instructions: list[Instruction], observed: Observed, now: float) -> float:
        if instructions:
            self._busy_until = now + BUSY_FOR_S
        leaving = any(found.retired_s is not None for found in observed.publishers.values())
        under_way = bool(instructions or self._draining or self._view.silences()) or leaving
        return BUSY_TICK_S if under_way and now < self._busy_until else TICK_S

    def _show(
        self, plan: Plan, target: Target, scale: ScaleStatus, pending: tuple[ActorId, ...], now: float
    ) -> None:
        problems = self._view.problems()
        if self._jetstream.problem:
            problems.insert(0, self._jetstream.problem)
        self.status = RelayStatus(
            config_version=target.version,
            controller_pid=os.getpid(),
            uptime_s=0.0,
            delivery=target.config.nats.delivery.value,
            scale=scale,
            problems=tuple(problems),
            pending=tuple(map(str, pending)),
            ended=tuple(
                stats for key, stats in self._final.items() if stats is not None and key not in target.streams
            ),
            stopped=tuple(plan.stopped.values()),
            changes=plan.changes,
            **self._figures(),
        )
        limits = target.silence_limits_s
        self._judged = self._health.update(self.status, limits, self._jetstream.problem, now), now
        self._metrics.update(scale, health_of(*self._judged, now))
        backlog = sum(stats.backlog_count for stats in self.status.streams)
        self._host.set_title(f"ray::Controller publishers={scale.actual}/{scale.wanted} backlog={backlog}")

    def _figures(self) -> Figures:
        order = self._target.order if self._target else {}
        streams = sorted(self._view.streams(), key=lambda s: (order.get(s.key, len(order)), s.stream))
        publishers = sorted(self._view.publishers(), key=lambda p: (len(p.publisher), p.publisher))
        unreachable = self._view.unreachable()
        return {"streams": tuple(streams), "publishers": tuple(publishers), "unreachable": unreachable}
