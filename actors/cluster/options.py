"""Which classes the actors are made from, and with which options of Ray."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol

from actors.cluster.private_api import NORMAL_PRIORITY
from relay.ports import Room

CONTROLLER_NAME = "sluice/controller"
CONTROLLER_CPUS = 0.1
# The label of Ray nodes whose values `resources.*_nodes` of the configuration name.
NODE_LABEL = "sluice"
# The label that Ray gives each node itself.
NODE_ID_LABEL = "ray.io/node-id"
# The stored key that says that actors have to be raised to normal priority.
NICENESS = "niceness"


class StateReader(Protocol):
    def load(self, key: str) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class ActorClasses:
    """Where the classes are, as `module:name`; imported only where an actor is made."""

    stream: str = "actors.stream.actor:StreamActor"
    standby: str = "actors.standby.actor:StandbyActor"
    publisher: str = "actors.publisher.actor:PublisherActor"
    publisher_settings: str = "actors.publisher.actor:PublisherSettings"
    controller: str = "actors.controller.actor:Controller"


def class_at(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def actor_options(namespace: str, name: str, room: Room, state: StateReader) -> dict[str, Any]:
    """The options of every actor of the relay.

    - `lifetime`: a detached actor outlives the driver and jobs that the head started.
    - `max_restarts`, `max_task_retries`: restarted for ever, but no call is repeated: one that publishes
      could do so twice.
    - `num_cpus`: an actor without an explicit number holds no CPU, and a cluster would never grow for it.
    - `max_concurrency`: four threads, so that a drain, which lasts seconds, delays no observation.
    - `enable_task_events`: off, or one observation a second would fill the head's memory (ray#45338).
    """
    options: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": 4,
        "num_cpus": room.cpus,
        "enable_task_events": False,
    } | _placement(room)
    if state.load(NICENESS):
        # Ray starts workers at nice 15 unless told otherwise. This costs each start half a second, so a Ray
        # of our own gets the same variable once, for all its workers.
        options["runtime_env"] = {"env_vars": dict(NORMAL_PRIORITY)}
    return options


def _placement(room: Room) -> dict[str, Any]:
    """On `room.node`, where the actor's journal is. When that node is gone: on any other node with the label
    of `room.nodes`, or on any other at all."""
    selector = {NODE_LABEL: room.nodes} if room.nodes else {}
    if room.node:
        elsewhere = selector or {NODE_ID_LABEL: f"!{room.node}"}
        return {
            "label_selector": {**selector, NODE_ID_LABEL: room.node},
            "fallback_strategy": [{"label_selector": elsewhere}],
        }
    return {"label_selector": selector} if selector else {}
