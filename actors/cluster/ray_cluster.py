"""The relay's actors as the rest of the code sees them: by identity, each call with a deadline."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import ray

from actors.cluster import private_api
from actors.cluster.errors import HEAD_IS_SILENT, ray_errors
from actors.cluster.key_values import KeyValues
from actors.cluster.options import (
    CONTROLLER_CPUS,
    CONTROLLER_NAME,
    NODE_LABEL,
    ActorClasses,
    actor_options,
    class_at,
)
from relay.config import NatsConfig, StreamSettings
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment
from relay.model.stats import PublisherStats, StreamStats
from relay.ports import Host, Observation, Room

_log = logging.getLogger(__name__)

# Added to the deadline that an actor is given for its drain: the call's way there and back.
DRAIN_GRACE_S = 1.5


class ControllerHandle:
    """Exceptions that the controller raises reach the caller; without its answer there is a ClusterError."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        with ray_errors("the controller does not answer"):
            return ray.get(getattr(self._handle, method).remote(*arguments), timeout=timeout_s)

    def kill(self) -> None:
        ray.kill(self._handle, no_restart=True)


class RayCluster(KeyValues):
    """Implements relay.ports.Cluster. Use from one thread. Each actor is made with a copy of `host`.

    Pickled, which the controller's first argument is, it keeps none of its handles and calls.
    """

    def __init__(self, namespace: str, classes: ActorClasses, host: Host) -> None:
        super().__init__(namespace)
        self._ray_namespace = namespace
        self._classes = classes
        self._host = host
        self._handles: dict[ActorId, Any] = {}
        self._pending_stats: dict[ActorId, Any] = {}
        self._drains: dict[ActorId, tuple[Any, float]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RayCluster, (self._ray_namespace, self._classes, self._host)

    def create_controller(self, nodes: str | None) -> None:
        room = Room(CONTROLLER_CPUS, nodes)
        options = actor_options(self._ray_namespace, CONTROLLER_NAME, room, self)
        with ray_errors("the controller cannot be created"):
            _remote(self._classes.controller, options).remote(self, self._host)

    def controller(self) -> ControllerHandle | None:
        try:
            return ControllerHandle(ray.get_actor(CONTROLLER_NAME, namespace=self._ray_namespace))
        except ValueError:
            return None

    def actors(self) -> frozenset[ActorId]:
        with ray_errors(HEAD_IS_SILENT):
            found = ray.util.list_named_actors(all_namespaces=True)
        names = (entry["name"] for entry in found if entry["namespace"] == self._ray_namespace)
        return frozenset(actor for actor in map(ActorId.from_name, names) if actor is not None)

    def nodes(self, label: str | None) -> frozenset[str]:
        with ray_errors(HEAD_IS_SILENT):
            nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        # A head node that is kept free of actors has no CPU.
        usable = (node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0)
        return frozenset(
            node["NodeID"] for node in usable if not label or node["Labels"].get(NODE_LABEL) == label
        )

    def create_stream(self, settings: StreamSettings, room: Room) -> None:
        actor = ActorId(Role.STREAM, settings.spec.key)
        if settings.critical:
            self._create_leg(actor, settings, room)
            return
        arguments = (settings, self._host)
        self._create(actor, self._classes.stream, room, arguments, scheduling_strategy="SPREAD")

    def create_twin(self, settings: StreamSettings, room: Room) -> None:
        self._create_leg(ActorId(Role.TWIN, settings.spec.key), settings, room)

    def _create_leg(self, actor: ActorId, settings: StreamSettings, room: Room) -> None:
        self._create(actor, self._classes.standby, room, (settings, self._host, actor.role is Role.TWIN))

    def create_publisher(self, publisher: str, nats: NatsConfig, room: Room) -> None:
        actor = ActorId(Role.PUBLISHER, publisher)
        settings = class_at(self._classes.publisher_settings)(nats=nats)
        self._create(actor, self._classes.publisher, room, (publisher, settings, self._host))

    def _create(
        self, actor: ActorId, class_path: str, room: Room, arguments: tuple[Any, ...], **options: Any
    ) -> None:
        every_option = actor_options(self._ray_namespace, actor.name, room, self) | options
        with ray_errors(f"{actor} cannot be created"):
            self._forget_calls(actor)
            self._handles[actor] = _remote(class_path, every_option).remote(*arguments)

    def observe(self, actors: Iterable[ActorId], deadline_s: float) -> Mapping[ActorId, Observation]:
        """A call that an actor has not answered yet is waited for again instead of repeated. Otherwise calls
        would pile up at an unresponsive actor, which would answer them all at once later."""
        calls = {}
        for actor in actors:
            handle = self._handle(actor)
            if handle is not None:
                calls[actor] = self._pending_stats.get(actor) or handle.stats.remote()
        answered, waiting = _wait(calls, deadline_s)
        self._pending_stats = {actor: calls[actor] for actor in waiting}
        observations = {actor: self._answer(actor, calls[actor]) for actor in answered}
        return observations | {actor: self._silence(actor) for actor in waiting}

    def _handle(self, actor: ActorId) -> Any:
        if actor not in self._handles:
            try:
                self._handles[actor] = ray.get_actor(actor.name, namespace=self._ray_namespace)
            except ValueError:
                return None
        return self._handles[actor]

    def _answer(self, actor: ActorId, call: Any) -> Observation:
        try:
            answer: StreamStats | PublisherStats = ray.get(call)
        except ray.exceptions.ActorDiedError as error:
            _log.warning("%s died for good: %s", actor, error)
            self._forget(actor)
            return Silence.DEAD
        except ray.exceptions.ActorUnavailableError:
            return Silence.STARTING
        except ray.exceptions.RayError as error:
            _log.warning("%s failed to give stats: %s", actor, error)
            return Silence.UNRESPONSIVE
        return answer

    def _silence(self, actor: ActorId) -> Silence:
        """Ray knows whether the actor's process runs; only its answers show whether it does anything."""
        with ray_errors(HEAD_IS_SILENT):
            state = private_api.actor_state(self._handles[actor])
        if state == "DEAD":
            self._forget(actor)
            return Silence.DEAD
        return Silence.UNRESPONSIVE if state == "ALIVE" else Silence.STARTING

    def assign(self, actor: ActorId, assignment: Assignment) -> None:
        handle = self._handle(actor)
        if handle is not None:
            handle.assign.remote(assignment)

    def begin_drain(self, actor: ActorId, deadline_s: float) -> None:
        handle = self._handle(actor)
        if handle is not None and actor not in self._drains:
            until = time.monotonic() + deadline_s + DRAIN_GRACE_S
            self._drains[actor] = handle.drain.remote(deadline_s), until

    def drained(self, actor: ActorId) -> Observation | None:
        if actor not in self._drains:
            return None if actor in self._handles else Silence.DEAD
        call, until = self._drains[actor]
        answered, _ = _wait({actor: call}, 0.0)
        if answered:
            return self._answer(actor, call)
        return None if time.monotonic() < until else Silence.UNRESPONSIVE

    def remove(self, actor: ActorId) -> None:
        handle = self._handle(actor)
        self._forget(actor)
        if handle is not None:
            with ray_errors(f"{actor} cannot be removed"):
                ray.kill(handle, no_restart=True)

    def _forget(self, actor: ActorId) -> None:
        self._handles.pop(actor, None)
        self._forget_calls(actor)

    def _forget_calls(self, actor: ActorId) -> None:
        self._pending_stats.pop(actor, None)
        self._drains.pop(actor, None)


def _wait(calls: Mapping[ActorId, Any], timeout_s: float) -> tuple[list[ActorId], list[ActorId]]:
    """The actors whose calls have ended, with an answer or an error, and those whose calls have not."""
    if not calls:
        return [], []
    with ray_errors("calls cannot be waited for"):
        ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    done = set(ready)
    answered = [actor for actor in calls if calls[actor] in done]
    return answered, [actor for actor in calls if calls[actor] not in done]


def _remote(class_path: str, options: Mapping[str, Any]) -> Any:
    return ray.remote(class_at(class_path)).options(**options)
