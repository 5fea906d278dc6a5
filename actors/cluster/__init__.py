"""Every call to Ray: the table of the actors' classes and options, their calls, facts and metrics."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.state import state as cluster_state
from ray._raylet import AuthenticationTokenLoader, Config, setproctitle  # type: ignore[attr-defined]
from ray.experimental import internal_kv
from ray.util import get_node_ip_address
from ray.util.metrics import Counter, Gauge

from relay.config import NatsConfig, StreamSettings
from relay.errors import ClusterError
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment
from relay.model.stats import PublisherStats, StreamStats
from relay.observability.metrics import Metric, MetricKind
from relay.ports import Host, Observation, Room

_log = logging.getLogger(__name__)

CONTROLLER_NAME = "sluice/controller"
CONTROLLER_CPUS = 0.1
# The label of Ray nodes that `resources.*_nodes` of the configuration speak of.
NODE_LABEL = "sluice"
# The one that Ray itself gives each node.
NODE_ID_LABEL = "ray.io/node-id"
# The fact that tells to make actors at normal priority.
NICENESS = "niceness"
# Beyond the deadline that the actor got itself, for the call there and back.
DRAIN_GRACE_S = 1.5
# ray/_private/ray_constants.py: off, a node's address is 127.0.0.1, and on that its servers bind alone.
MULTI_NODE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class Attached(NamedTuple):
    """What this process is connected to; the URL is empty without a dashboard."""

    address: str
    dashboard_url: str


def is_connected() -> bool:
    return bool(ray.is_initialized())


def init(**arguments: Any) -> Attached:
    """Raises ClusterError, in Ray's words."""
    ray_worker.print_to_stdstream = _log_instead
    try:
        context: Any = ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
    except (ray.exceptions.RayError, ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ClusterError(str(error).strip().partition("\n")[0]) from error
    url = context.dashboard_url
    return Attached(context.address_info["gcs_address"], f"http://{url}" if url else "")


def _log_instead(data: Any, ignore_prefix: bool) -> None:
    """Ray prints a killed worker's epitaph over whatever is on the terminal; at INFO it can be had."""
    for line in data["lines"]:
        _log.info("ray: %s", line)


def shutdown() -> None:
    ray.shutdown(wait_for_processes=True)


def read_environment() -> None:
    """Once more: Ray read these variables when it was imported."""
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(MULTI_NODE) != "0"
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def read_ray_address() -> str | None:
    """Where `ray start` said that its cluster is."""
    address: str | None = ray_utils.read_ray_address()
    return address


def node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


def node_address() -> str:
    address: str = get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def set_process_title(text: str) -> None:
    setproctitle(text)


def own_process_title() -> None:
    """Ray sets the title anew around each call of a method; from now on it leaves it alone."""
    ray_worker._changeproctitle = _left_alone


@contextmanager
def _left_alone(title: Any, next_title: Any) -> Iterator[None]:
    yield


def worker_niceness(timeout_s: float) -> int:
    """The priority at which the cluster starts its workers."""
    look = ray.remote(_own_niceness).options(num_cpus=0)
    with ray_errors("the cluster runs no tasks"):
        niceness: int = ray.get(look.remote(), timeout=timeout_s)
    return niceness


def _own_niceness() -> int:
    return os.nice(0)


@contextmanager
def ray_errors(what: str) -> Iterator[None]:
    """Ray's own exceptions as ours; those that an actor raised for its caller pass."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise getattr(error, "cause", None) or ClusterError(f"{what}: {error}") from None
    except (ray.exceptions.RayError, ConnectionError, TimeoutError, RuntimeError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ClusterError(f"{what}: {first_line or type(error).__name__}") from error


class KeyValues:
    """Ray's internal key-value store, which lives as long as the cluster's head does."""

    def __init__(self, namespace: str) -> None:
        self._namespace = f"sluice/{namespace}".encode()

    def load(self, fact: str) -> bytes | None:
        with ray_errors("the cluster's head does not answer"):
            found: bytes | None = internal_kv._internal_kv_get(fact, namespace=self._namespace)
        return found

    def load_all(self, prefix: str) -> Mapping[str, bytes]:
        with ray_errors("the cluster's head does not answer"):
            names = [
                name.decode() for name in internal_kv._internal_kv_list(prefix, namespace=self._namespace)
            ]
        found = {name.removeprefix(prefix): self.load(name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def save(self, fact: str, value: bytes, *, overwrite: bool = True) -> None:
        with ray_errors("the cluster's head does not answer"):
            internal_kv._internal_kv_put(fact, value, overwrite, namespace=self._namespace)

    def forget(self, fact: str) -> None:
        with ray_errors("the cluster's head does not answer"):
            internal_kv._internal_kv_del(fact, namespace=self._namespace)

    def forget_all(self) -> None:
        with ray_errors("the cluster's head does not answer"):
            internal_kv._internal_kv_del("", del_by_prefix=True, namespace=self._namespace)


class RayMetrics:
    """Metrics that Ray's own exporter serves. Ray tags them with neither actor nor job, so we do; its own tag
    `WorkerId` gives each incarnation of an actor series of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Metric, Any] = {}

    def set(self, metric: Metric, tags: tuple[str, ...], value: float) -> None:
        self._recorder(metric).set(float(value), _named(metric, tags))

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None:
        # What `inc` does, which refuses zero: a counter that begins with its first loss never grows by it.
        self._recorder(metric)._record(float(amount), _named(metric, tags))

    def _recorder(self, metric: Metric) -> Any:
        with self._lock:
            if metric not in self._known:
                definition = metric.value
                kind = Gauge if definition.kind is MetricKind.GAUGE else Counter
                self._known[metric] = kind(definition.name, definition.meaning, definition.tags)
            return self._known[metric]


def _named(metric: Metric, tags: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.value.tags, tags, strict=True))


@dataclass(frozen=True, slots=True)
class ActorClasses:
    """Where the classes are, `module:name`; loaded only where an actor is made."""

    stream: str = "actors.stream.relay:StreamActor"
    leg: str = "actors.standby.leg:LegActor"
    publisher: str = "actors.publisher.actor:PublisherActor"
    publisher_settings: str = "actors.publisher.actor:PublisherSettings"
    controller: str = "actors.controller.actor:Controller"


def named(class_path: str) -> Any:
    module, _, name = class_path.partition(":")
    return getattr(importlib.import_module(module), name)


def actor_options(namespace: str, name: str, room: Room, facts: KeyValues) -> dict[str, Any]:
    """Every actor of the relay is made with these.

    Detached: actors outlive the driver, and head-started jobs. Restarted for ever, but a call is never
    repeated. Explicit CPUs: without them an actor holds none, and a cluster would never grow for it. Four
    threads, so that a drain holds up no look. No task events: one look a second would fill the head's memory.
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
    }
    selector = {NODE_LABEL: room.nodes} if room.nodes else {}
    if room.node:
        # Where its journal is. Without that node it goes to any other one that its label allows.
        options["label_selector"] = {**selector, NODE_ID_LABEL: room.node}
        options["fallback_strategy"] = [{"label_selector": selector or {NODE_ID_LABEL: f"!{room.node}"}}]
    elif selector:
        options["label_selector"] = selector
    if facts.load(NICENESS):
        # Ray starts workers at nice 15 unless told otherwise; this costs half a second at each start.
        options["runtime_env"] = {"env_vars": {"RAY_worker_niceness": "0"}}
    return options


def _remote(class_path: str, options: Mapping[str, Any]) -> Any:
    return ray.remote(named(class_path)).options(**options)


class ControllerHandle:
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        with ray_errors("the controller does not answer"):
            return ray.get(getattr(self._handle, method).remote(*arguments), timeout=timeout_s)

    def kill(self) -> None:
        ray.kill(self._handle, no_restart=True)


class RayCluster(KeyValues):
    """Implements relay.ports.Cluster. Use from one thread. Each actor is made with a copy of `host`."""

    def __init__(self, namespace: str, classes: ActorClasses, host: Host) -> None:
        super().__init__(namespace)
        self._ray_namespace = namespace
        self._classes = classes
        self._host = host
        self._handles: dict[ActorId, Any] = {}
        self._asked: dict[ActorId, Any] = {}
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
        with ray_errors("the cluster's head does not answer"):
            found = ray.util.list_named_actors(all_namespaces=True)
        ours = (one["name"] for one in found if one["namespace"] == self._ray_namespace)
        return frozenset(actor for actor in map(ActorId.from_name, ours) if actor is not None)

    def nodes(self, label: str | None) -> frozenset[str]:
        with ray_errors("the cluster's head does not answer"):
            every: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
            found = [one for one in every if one["Alive"] and one["Resources"].get("CPU", 0) > 0]
        fitting = (one for one in found if not label or one["Labels"].get(NODE_LABEL) == label)
        return frozenset(one["NodeID"] for one in fitting)

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
        self._create(actor, self._classes.leg, room, (settings, self._host, actor.role is Role.TWIN))

    def create_publisher(self, publisher: str, nats: NatsConfig, room: Room) -> None:
        actor = ActorId(Role.PUBLISHER, publisher)
        settings = named(self._classes.publisher_settings)(nats=nats)
        self._create(actor, self._classes.publisher, room, (publisher, settings, self._host))

    def _create(
        self, actor: ActorId, class_path: str, room: Room, arguments: tuple[Any, ...], **more: Any
    ) -> None:
        options = actor_options(self._ray_namespace, actor.name, room, self) | more
        with ray_errors(f"{actor} cannot be created"):
            self._forget_calls(actor)
            self._handles[actor] = _remote(class_path, options).remote(*arguments)

    def observe(self, actors: Iterable[ActorId], deadline_s: float) -> Mapping[ActorId, Observation]:
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
