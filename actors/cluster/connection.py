"""A driver's connection to the relay: bring it up, ask it, change it, take it down."""

from __future__ import annotations

import logging
import os
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import ray

from actors.cluster import ray_start
from actors.cluster.ray_cluster import (
    CONTROLLER_CPUS,
    CONTROLLER_NAME,
    ActorClasses,
    RayCluster,
    actor_options,
    named,
)
from actors.cluster.ray_host import NICENESS, SECRET, SOCKETS, RayHost, private_directory, ray_errors
from actors.controller import TAKE_DOWN_GRACE_S, Controller
from actors.tick import TakenDown
from relay.changes import differences
from relay.config import Config
from relay.errors import ClusterError
from relay.facts import Facts
from relay.stats import RelayStatus, ScaleStatus

_log = logging.getLogger(__name__)

NAMESPACE = "sluice"
# A controller that was killed answers again after 2 to 3 s.
ANSWER_S = 10.0
# One that runs answers a call within milliseconds.
CALL_S = 3.0
RETRY_S = 0.1
NO_RELAY = "no relay runs there; start it with `driver.py run`"

# What RAY_ADDRESS may say besides an address.
_NO_ADDRESS = ("", "auto", "local")


class Start(StrEnum):
    """AUTO joins a running cluster, else starts one; LOCAL always starts one; JOIN never does."""

    AUTO = "auto"
    LOCAL = "local"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class BringUp:
    """`created`: there was no relay before. Else `differences` are what changed, empty if nothing did."""

    created: bool
    differences: tuple[str, ...]


def connect(
    start: Start,
    *,
    address: str | None = None,
    namespace: str = NAMESPACE,
    needed_cpus: float = 0.0,
    include_dashboard: bool = True,
    classes: ActorClasses | None = None,
) -> Connection:
    """Raises ClusterError when there is nothing to join, or Ray does not start.

    A cluster is looked for at `address`, at RAY_ADDRESS, among those that this user's drivers started, and
    where `ray start` left one on this machine, in this order.
    """
    session = _session(start, address, namespace, needed_cpus, include_dashboard)
    return Connection(session, namespace, classes or ActorClasses())


def _session(
    start: Start, address: str | None, namespace: str, needed_cpus: float, include_dashboard: bool
) -> ray_start.Session:
    joined = None if start is Start.LOCAL else _joined(start, address, namespace)
    if joined is not None:
        return joined
    return ray_start.start(
        namespace, needed_cpus=needed_cpus + CONTROLLER_CPUS, include_dashboard=include_dashboard
    )


def _joined(start: Start, address: str | None, namespace: str) -> ray_start.Session | None:
    own = ray_start.find_own()
    named_address = address or os.environ.get("RAY_ADDRESS")
    if named_address in _NO_ADDRESS:
        named_address = None
    if own is not None and named_address in (None, own.address):
        return ray_start.join_own(own, namespace)
    found = named_address or ray_start.find_started_by_hand()
    if found is not None:
        return ray_start.join(found, namespace)
    if start is Start.AUTO:
        return None
    raise ClusterError("no Ray cluster runs here; start the relay with `driver.py run`, or give --address")


class Connection:
    """Use from one thread. `token_path` is None on a cluster that this process did not start."""

    def __init__(self, session: ray_start.Session, namespace: str, classes: ActorClasses) -> None:
        self.started_here = session.started is not None
        self.address = session.address
        self.dashboard_url = session.dashboard_url
        self.token_path: Path | None = session.started.token_path if session.started else None
        self._session = session
        self._namespace = namespace
        self._classes = classes
        self._cluster = RayCluster(namespace, classes)
        self._facts = Facts(self._cluster)

    def bring_up(self, config: Config) -> BringUp:
        """Raises ConfigError or ClusterError; afterwards the relay goes on without this process."""
        created = not self.running()
        if created:
            self._prepare()
            self._create_controller()
        changed: tuple[str, ...] = self._ask("apply", config)
        return BringUp(created, changed)

    def status(self) -> RelayStatus:
        status: RelayStatus = self._ask("status")
        return status

    def scale(self, count: int | None, who: str) -> ScaleStatus:
        """Returns at once; `status` shows how far it is. Raises UsageError."""
        status: ScaleStatus = self._ask("scale", count, who)
        return status

    def differences(self, config: Config) -> tuple[str, ...]:
        """What `bring_up` would change on the running relay."""
        running = self._facts.running()
        if running is None:
            raise ClusterError(NO_RELAY)
        return differences(running.config, config)

    def running(self) -> bool:
        with ray_errors("the cluster's head does not answer"):
            return self._controller() is not None

    def take_down(self, deadline_s: float) -> TakenDown:
        """Drain and remove every actor, with or without a controller that answers, and forget the relay."""
        controller = self._controller()
        if controller is None and not self._cluster.actors():
            raise ClusterError(NO_RELAY)
        ended = self._drained_by(controller, deadline_s) if controller is not None else None
        if controller is not None:
            ray.kill(controller, no_restart=True)
        if ended is None:
            ended = self._drain_from_here(deadline_s)
        for actor in self._cluster.actors():
            self._cluster.remove(actor)
        self._cluster.forget_all()
        return ended

    def close(self) -> None:
        """Leave the cluster. One that was started here ends, with every process and file of it."""
        ray_start.end(self._session)

    def _drained_by(self, controller: Any, deadline_s: float) -> TakenDown | None:
        timeout_s = deadline_s + TAKE_DOWN_GRACE_S + CALL_S
        try:
            self._call(controller, "status", timeout_s=CALL_S)
            ended: TakenDown = self._call(controller, "drain", deadline_s, timeout_s=timeout_s)
        except ClusterError as error:
            _log.warning("draining without the controller: %s", error)
            return None
        return ended

    def _drain_from_here(self, deadline_s: float) -> TakenDown:
        # Without a configuration the stand-in makes nothing anew.
        self._facts.forget_running()
        stand_in = Controller(self._cluster, RayHost(self._namespace))
        try:
            return stand_in.drain(deadline_s)
        finally:
            stand_in.stop()

    def _prepare(self) -> None:
        """What every actor needs to find, before there is one."""
        self._cluster.save(SECRET, secrets.token_bytes(32), overwrite=False)
        if self._session.started is not None:
            sockets = private_directory(self._session.started.run_directory / "s")
            self._cluster.save(SOCKETS, str(sockets).encode())
        elif self._workers_are_nice():
            self._cluster.save(NICENESS, b"lift")

    def _workers_are_nice(self) -> bool:
        look = ray.remote(_own_niceness).options(num_cpus=0)
        with ray_errors("the cluster runs no tasks"):
            niceness: int = ray.get(look.remote(), timeout=ANSWER_S)
        return niceness > 0

    def _create_controller(self) -> None:
        options = actor_options(self._namespace, CONTROLLER_NAME, CONTROLLER_CPUS, self._cluster)
        kind = ray.remote(named(self._classes.controller)).options(**options)
        with ray_errors("the controller cannot be created"):
            kind.remote(self._cluster, RayHost(self._namespace))

    def _controller(self) -> Any:
        try:
            return ray.get_actor(CONTROLLER_NAME, namespace=self._namespace)
        except ValueError:
            return None

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Repeated while the controller restarts: each of its methods may be called twice without harm."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            controller = self._controller()
            if controller is None:
                raise ClusterError(NO_RELAY)
            try:
                return self._call(controller, method, *arguments, timeout_s=ANSWER_S)
            except ClusterError as error:
                if time.monotonic() > deadline:
                    raise ClusterError(f"the controller does not answer: {error}") from error
                time.sleep(RETRY_S)

    def _call(self, controller: Any, method: str, *arguments: Any, timeout_s: float) -> Any:
        with ray_errors("the controller does not answer"):
            return ray.get(getattr(controller, method).remote(*arguments), timeout=timeout_s)


def _own_niceness() -> int:
    return os.nice(0)
