"""The relay's actors in Ray: the table of their classes and options, and every call to them."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import state as cluster_state

from actors.cluster.ray_host import NICENESS, KeyValues, RayHost, ray_errors
from relay.config import NatsConfig, StreamSettings
from relay.ports import ActorId, Look, Role, Silence
from relay.stats import Assignment, PublisherStats, StreamStats

_log = logging.getLogger(__name__)

CONTROLLER_NAME = "sluice/controller"
CONTROLLER_CPUS = 0.1
# Beyond the deadline that the actor got itself, for the call there and back.
DRAIN_GRACE_S = 1.5


@dataclass(frozen=True, slots=True)
class ActorClasses:
    """Where the classes are, `module:name`; loaded only where an actor is made."""

    stream: str = "actors.stream:StreamActor"
    publisher: str = "actors.publisher:PublisherActor"
    publisher_settings: str = "actors.publisher:PublisherSettings"
    controller: str = "actors.controller:Controller"


def named(class_path: str) -> Any:
    module, _, name = class_path.partition(":")
    return getattr(importlib.import_module(module), name)


def actor_options(namespace: str, name: str, cpus: float, facts: KeyValues) -> dict[str, Any]:
    """Every actor of the relay is made with these.

    Detached: actors outlive the driver, and head-started jobs. Restarted for ever, but a call is never
    repeated. Explicit CPUs: without them an actor holds none, and a cluster would never grow for it. Four
    threads, so that a drain holds up no look. No task events: one look a second would fill the head's memory.
    """
    options = {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": 4,
        "num_cpus": cpus,
        "enable_task_events": False,
    }
    if facts.load(NICENESS):
        # Ray starts workers at nice 15 unless told otherwise; this costs half a second at each start.
        options["runtime_env"] = {"env_vars": {"RAY_worker_niceness": "0"}}
    return options


class RayCluster(KeyValues):
    """Implements relay.ports.Cluster. Use from one thread."""

    def __init__(self, namespace: str, classes: ActorClasses) -> None:
        super().__init__(namespace)
        self._ray_namespace = namespace
        self._classes = classes
        self._handles: dict[ActorId, Any] = {}
        self._asked: dict[ActorId, Any] = {}
        self._drains: dict[ActorId, tuple[Any, float]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RayCluster, (self._ray_namespace, self._classes)

    def actors(self) -> frozenset[ActorId]:
        with ray_errors("the cluster's head does not answer"):
            found = ray.util.list_named_actors(all_namespaces=True)
        ours = (one["name"] for one in found if one["namespace"] == self._ray_namespace)
        return frozenset(actor for actor in map(_actor_id, ours) if actor is not None)

    def create_stream(self, settings: StreamSettings, cpus: float) -> None:
        actor = ActorId(Role.STREAM, settings.spec.key)
        host = RayHost(self._ray_namespace)
        self._create(actor, self._classes.stream, cpus, (settings, host), scheduling_strategy="SPREAD")

    def create_publisher(self, publisher: str, nats: NatsConfig, cpus: float) -> None:
        actor = ActorId(Role.PUBLISHER, publisher)
        settings = named(self._classes.publisher_settings)(nats=nats)
        arguments = (publisher, settings, RayHost(self._ray_namespace))
        self._create(actor, self._classes.publisher, cpus, arguments)

    def _create(
        self, actor: ActorId, class_path: str, cpus: float, arguments: tuple[Any, ...], **more: Any
    ) -> None:
        options = actor_options(self._ray_namespace, _name(actor), cpus, self)
        with ray_errors(f"{actor} cannot be created"):
            self._forget_calls(actor)
            self._handles[actor] = ray.remote(named(class_path)).options(**options, **more).remote(*arguments)

    def look(self, actors: Iterable[ActorId], deadline_s: float) -> Mapping[ActorId, Look]:
        """One call at a time: a mute actor does not collect calls to answer all at once."""
        asked = {}
        for actor in actors:
            handle = self._handle(actor)
            if handle is not None:
                asked[actor] = self._asked.get(actor) or handle.stats.remote()
        answered, waiting = _wait(asked, deadline_s)
        self._asked = {actor: asked[actor] for actor in waiting}
        looks = {actor: self._answer(actor, asked[actor]) for actor in answered}
        return looks | {actor: self._silence(actor) for actor in waiting}

    def _handle(self, actor: ActorId) -> Any:
        if actor not in self._handles:
            try:
                self._handles[actor] = ray.get_actor(_name(actor), namespace=self._ray_namespace)
            except ValueError:
                return None
        return self._handles[actor]

    def _answer(self, actor: ActorId, call: Any) -> Look:
        try:
            answer: StreamStats | PublisherStats = ray.get(call)
        except ray.exceptions.ActorDiedError as error:
            _log.warning("%s died for good: %s", actor, error)
            self._forget(actor)
            return Silence.GONE
        except ray.exceptions.ActorUnavailableError:
            return Silence.STARTING
        except ray.exceptions.RayError as error:
            _log.warning("%s failed to give stats: %s", actor, error)
            return Silence.MUTE
        return answer

    def _silence(self, actor: ActorId) -> Silence:
        """Ray knows whether the actor's process runs; whether it does anything shows in its answers alone."""
        with ray_errors("the cluster's head does not answer"):
            state = cluster_state.actor_table(self._handles[actor]._actor_id.hex()).get("State")
        if state == "DEAD":
            self._forget(actor)
            return Silence.GONE
        return Silence.MUTE if state == "ALIVE" else Silence.STARTING

    def assign(self, stream: str, assignment: Assignment) -> None:
        handle = self._handle(ActorId(Role.STREAM, stream))
        if handle is not None:
            handle.assign.remote(assignment)

    def begin_drain(self, actor: ActorId, deadline_s: float) -> None:
        handle = self._handle(actor)
        if handle is not None and actor not in self._drains:
            until = time.monotonic() + deadline_s + DRAIN_GRACE_S
            self._drains[actor] = handle.drain.remote(deadline_s), until

    def drained(self, actor: ActorId) -> Look | None:
        if actor not in self._drains:
            return None if actor in self._handles else Silence.GONE
        call, until = self._drains[actor]
        answered, _ = _wait({actor: call}, 0.0)
        if answered:
            return self._answer(actor, call)
        return None if time.monotonic() < until else Silence.MUTE

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
        self._asked.pop(actor, None)
        self._drains.pop(actor, None)


def _wait(calls: Mapping[ActorId, Any], timeout_s: float) -> tuple[list[ActorId], list[ActorId]]:
    """Those that are answered, with whatever, and those that are not."""
    if not calls:
        return [], []
    with ray_errors("calls cannot be waited for"):
        ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    done = set(ready)
    return [actor for actor in calls if calls[actor] in done], [
        actor for actor in calls if calls[actor] not in done
    ]


def _name(actor: ActorId) -> str:
    return f"sluice/{actor.role}/{actor.key}"


def _actor_id(name: str) -> ActorId | None:
    """None for what is not ours, and for the controller."""
    prefix, _, rest = name.partition("/")
    role, _, key = rest.partition("/")
    if prefix != "sluice" or role not in tuple(Role):
        return None
    return ActorId(Role(role), key)
