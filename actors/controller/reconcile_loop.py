"""One tick of the controller: observe, decide, act. Used by one thread; the decisions are pure functions."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from actors.controller.jetstream_keeper import Ensure, JetStreamKeeper
from actors.controller.plan import Plan
from actors.controller.publisher_pool import PublisherPool
from actors.controller.status import StatusKeeper, figures, relay_status
from actors.controller.target import Target
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
from relay.control.store import ControlStore
from relay.model.actors import ActorId, Role
from relay.model.assignment import Assignment
from relay.model.stats import LegState, ScaleStatus, StreamStats, TakenDown
from relay.ports import Cluster, Host, Room

_log = logging.getLogger(__name__)

TICK_S = 1.0
# While something is under way, observations are more frequent, but not without end: a pod may take minutes to
# start.
BUSY_TICK_S = 0.2
BUSY_FOR_S = 10.0
OBSERVE_DEADLINE_S = 1.0
STREAM_DRAIN_S = 10.0
# Stored instead of the revision of a publisher that is to go. It equals the revision of no configuration, so
# the publisher counts as outdated, and is replaced, also by a controller that has been restarted meanwhile.
RETIRED = "retired"
PUBLISHER_DRAIN_S = 2.0


class ReconcileLoop:
    """`ended` is set when `close_down` found no actor left. `retire` may be called from any thread."""

    def __init__(self, cluster: Cluster, host: Host, store: ControlStore, ensure: Ensure) -> None:
        self.report = StatusKeeper(host)
        self.ended = threading.Event()
        self.pool = PublisherPool()
        self._cluster = cluster
        self._store = store
        self._view = ClusterView()
        self._colocated = ColocatedPairs()
        # The node of each instance of a critical stream that was made here.
        self._chosen_nodes: dict[ActorId, str | None] = {}
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

    def bring_towards(self, plan: Plan, now: float) -> float:
        """Act once towards the plan; returns the seconds until the next observation is due."""
        target = self._target_of(plan)
        self._jetstream.tick(now)
        observed = self._observe(now)
        scale = self.pool.decide(plan, observed, self._view, now)
        self._assign_streams(target, observed, now)
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
        self._report(plan, target, scale, unsettled(desired, observed), now)
        return self._period_s(instructions, observed, now)

    def retire(self, publisher: str) -> None:
        """Make the publisher leave, after its replacement serves if one is wanted. This is stored, so it
        happens even if this process ends now."""
        self._remember_revision(ActorId(Role.PUBLISHER, publisher), RETIRED)

    def _target_of(self, plan: Plan) -> Target:
        running, stopped = plan.running, frozenset(plan.stopped)
        if self._target is None or self._target.version != running.version:
            self._jetstream.want(running.config)
            self._target = Target(running, stopped)
        elif self._target.stopped != stopped:
            self._target = Target(running, stopped)
        return self._target

    def close_down(self, drain_s: float, now: float) -> float:
        """Act once towards no actors at all. Publishers go after the streams, which need them to drain."""
        if not self._closing:
            self._closing = True
            self.report.begin_closing()
            self._final.clear()
        observed = self._observe(now)
        if observed.streams or observed.twins:
            observed = replace(observed, publishers={})
        for instruction in reconcile(Desired(streams={}, publishers=0), observed, now):
            self._act(instruction, None, drain_s)
        self.report.update_figures(figures(self._view, self._target.order if self._target else {}))
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
            self._published = self._store.assignments()
            self._placed = {
                stream: Placement(made.publisher)
                for stream, made in self._published.items()
                if made.publisher
            }
            self._revisions = self._store.revisions()
            self._recovered = True
        self._view.update(self._cluster.observe(self._cluster.actors(), OBSERVE_DEADLINE_S), now)
        drains = {actor: self._cluster.drained(actor) is not None for actor in self._draining}
        loads = {stats.publisher: stats.rate_per_s for stats in self._view.publishers()}
        return self._view.observed(self._revisions, drains, loads)

    def _assign_streams(self, target: Target, observed: Observed, now: float) -> None:
        """Assign streams to publishers, and store it for streams that start while no controller runs."""
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
        reported = max((instance.assignment_version for _, _, instance in observed.instances()), default=0)
        changed = publish(self._published, self._placed, endpoints, reported)
        for stream, assignment in changed.items():
            self._store.save_assignment(stream, assignment)
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
                self._view.on_retired(publisher)
            case Drain(actor):
                deadline_s = PUBLISHER_DRAIN_S if actor.role is Role.PUBLISHER else drain_s
                self._cluster.begin_drain(actor, deadline_s)
                self._draining.add(actor)
            case Remove(actor):
                self._remove(actor)

    def _create(self, actor: ActorId, target: Target) -> None:
        self._view.on_created(actor)
        resources = target.config.resources
        if actor.role is not Role.PUBLISHER:
            self._remember_revision(actor, target.streams[actor.key])
            self._create_instance(actor, target)
        else:
            self._remember_revision(actor, target.publisher_revision)
            room = Room(resources.publisher_cpus, resources.publisher_nodes)
            self._cluster.create_publisher(actor.key, target.config.nats, room)

    def _create_instance(self, actor: ActorId, target: Target) -> None:
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
        there = self._view.nodes_of_instances(actor.key).get(other.role) or self._chosen_nodes.get(other)
        used = [node for one, node in self._chosen_nodes.items() if node and one != actor]
        self._chosen_nodes[actor] = node = choose_node(self._cluster.nodes(label), there, used)
        return node

    def _separate_pairs(self, target: Target, observed: Observed, now: float) -> list[Instruction]:
        """Move a standby that had to share the node of its peer, once there is another node."""
        found: list[Instruction] = []
        for key in target.critical:
            instances = {Role.STREAM: observed.streams.get(key), Role.TWIN: observed.twins.get(key)}
            standbys = [role for role, one in instances.items() if one and one.is_standby and not one.silence]
            if not standbys:
                continue
            nodes = self._cluster.nodes(target.label(twin=standbys[0] is Role.TWIN))
            if self._colocated.update(key, self._view.nodes_of_instances(key), nodes, now):
                found.append(Remove(ActorId(standbys[0], key)))
        return found

    def _remember_revision(self, actor: ActorId, made_with: str) -> None:
        self._revisions[actor] = made_with
        self._store.save_revision(actor, made_with)

    def _remove(self, actor: ActorId) -> None:
        if actor.role is not Role.PUBLISHER:
            self._keep_final(actor)
        self._cluster.remove(actor)
        self._view.on_removed(actor)
        self._draining.discard(actor)
        self._chosen_nodes.pop(actor, None)
        self._revisions.pop(actor, None)
        self._store.forget_revision(actor)

    def _keep_final(self, actor: ActorId) -> None:
        """Of two instances, the figures of the one that was active."""
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
            self._store.forget_assignment(key)

    def _period_s(self, instructions: list[Instruction], observed: Observed, now: float) -> float:
        if instructions:
            self._busy_until = now + BUSY_FOR_S
        leaving = any(found.retired_s is not None for found in observed.publishers.values())
        under_way = bool(instructions or self._draining or self._view.silences()) or leaving
        return BUSY_TICK_S if under_way and now < self._busy_until else TICK_S

    def _report(
        self, plan: Plan, target: Target, scale: ScaleStatus, pending: tuple[ActorId, ...], now: float
    ) -> None:
        jetstream_problem = self._jetstream.problem
        status = relay_status(
            plan,
            target,
            scale,
            figures(self._view, target.order),
            problems=filter(None, (jetstream_problem, *self._view.problems())),
            pending=pending,
            ended=[stats for stats in self._final.values() if stats is not None],
        )
        self.report.update(status, target.silence_limits_s, jetstream_problem, now)
