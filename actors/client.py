"""A driver's connection to the relay: bring it up, ask it, change it, take it down."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from actors.cluster.connection import worker_niceness
from actors.cluster.errors import HEAD_IS_SILENT, ray_errors
from actors.cluster.options import CONTROLLER_CPUS, NICENESS, ActorClasses
from actors.cluster.ray_cluster import ControllerHandle, RayCluster
from actors.runtime import local_ray
from actors.runtime.host import SECRET, SOCKETS, ActorHost, private_directory
from relay.adapters.nats.login import login_proofs
from relay.config import Config
from relay.config.diff import differences
from relay.control.store import PAGE_KEY, ControlStore
from relay.errors import ClusterError, ConfigError
from relay.model.stats import TAKE_DOWN_GRACE_S, RelayStatus, ScaleStatus, TakenDown

_log = logging.getLogger(__name__)

NAMESPACE = "sluice"
# A controller that was killed answers again after 2 to 3 s.
ANSWER_S = 10.0
# What the end of a relay may take beyond its drain where the Ray below it is ours, and to be ended as well.
OWN_GRACE_S = 5.0
# Without its head Ray goes on for a minute, then ends the driver in the middle of whatever it does.
HEADLESS_S = 52.0
LOOK_EVERY_S = 0.2
# One that runs answers a call within milliseconds.
CALL_S = 3.0
RETRY_S = 0.1
RAY_ENDED = (
    "{} of Ray has ended, and the relay with it; what was accepted and not published waits in the journals,"
    " so start the relay again"
)
NO_RELAY = "no relay runs there; start it with `driver.py run`"

# What RAY_ADDRESS may say besides an address.
_NO_ADDRESS = ("", "auto", "local")


class StartMode(StrEnum):
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
    start: StartMode,
    *,
    address: str | None = None,
    namespace: str = NAMESPACE,
    needed_cpus: float = 0.0,
    include_dashboard: bool = True,
    shared: bool = True,
    classes: ActorClasses | None = None,
) -> RelayClient:
    """Raises ClusterError when there is nothing to join, or Ray does not start.

    A cluster is looked for at `address`, at RAY_ADDRESS, among those that this user's drivers started, and
    where `ray start` left one on this machine, in this order. AUTO does not join what was started without
    `shared`.
    """
    joined = None if start is StartMode.LOCAL else _joined(start, address, namespace)
    session = joined or local_ray.start(
        namespace,
        needed_cpus=needed_cpus + CONTROLLER_CPUS,
        include_dashboard=include_dashboard,
        shared=shared,
    )
    return RelayClient(session, namespace, classes or ActorClasses())


def _joined(start: StartMode, address: str | None, namespace: str) -> local_ray.Session | None:
    own = local_ray.find_own(shared=start is StartMode.AUTO)
    named_address = address or os.environ.get("RAY_ADDRESS")
    if named_address in _NO_ADDRESS:
        named_address = None
    if own is not None and named_address in (None, own.address):
        return local_ray.join_own(own, namespace)
    found = named_address or local_ray.find_started_by_hand()
    if found is not None:
        return local_ray.join(found, namespace)
    if start is StartMode.AUTO:
        return None
    raise ClusterError("no Ray cluster runs here; start the relay with `driver.py run`, or give --address")


class RelayClient:
    """Use from one thread. `token_path` is None on a cluster that this process did not start."""

    def __init__(self, session: local_ray.Session, namespace: str, classes: ActorClasses) -> None:
        self.started_here = session.started is not None
        self.address = session.address
        self.dashboard_url = session.dashboard_url
        self.token_path: Path | None = session.started.token_path if session.started else None
        self._session = session
        self._whole_at = time.monotonic()
        self._host = ActorHost(namespace)
        self._cluster = RayCluster(namespace, classes, self._host)
        self._facts = ControlStore(self._cluster)

    def bring_up(self, config: Config, who: str = "") -> BringUp:
        """Raises ConfigError or ClusterError; afterwards the relay goes on without this process."""
        created = not self.running()
        if created:
            self._prepare()
            self._cluster.create_controller(config.resources.stream_nodes)
        proofs = login_proofs(config.nats, self._cluster.load(SECRET) or b"")
        try:
            changed: tuple[str, ...] = self._ask("apply", config, proofs, who)
        except ConfigError:
            if created:
                self._forget_idle_controller()
            raise
        return BringUp(created, changed)

    def status(self) -> RelayStatus:
        status: RelayStatus = self._ask("status")
        return status

    def scale(self, count: int | None, who: str) -> ScaleStatus:
        """Returns at once; `status` shows how far it is. Raises UsageError."""
        status: ScaleStatus = self._ask("scale", count, who)
        return status

    def drain_publisher(self, name: str, who: str) -> None:
        """Returns at once, as all three do; `status` shows how far it is. Raises UsageError."""
        self._ask("drain_publisher", name, who)

    def stop_stream(self, stream: str, who: str) -> str:
        """Its key."""
        key: str = self._ask("stop_stream", stream, who)
        return key

    def resume_stream(self, stream: str, who: str) -> str:
        key: str = self._ask("resume_stream", stream, who)
        return key

    def differences(self, config: Config) -> tuple[str, ...]:
        """What `bring_up` would change on the running relay."""
        running = self._facts.running()
        if running is None:
            raise ClusterError(NO_RELAY)
        return differences(running.config, config)

    @property
    def lost(self) -> frozenset[str]:
        """The programs of a Ray that was started here which have ended."""
        return local_ray.lost(self._session)

    def check(self) -> None:
        """Call about once a second. Raises ClusterError if a Ray that was started here has lost its node, and
        every actor with it, or its head so long ago that it is about to end."""
        lost, now = self.lost, time.monotonic()
        if not lost:
            self._whole_at = now
        if local_ray.RAYLET in lost or now - self._whole_at > HEADLESS_S:
            raise ClusterError(RAY_ENDED.format(", ".join(sorted(lost))))

    def running(self) -> bool:
        with ray_errors(HEAD_IS_SILENT):
            return self._cluster.controller() is not None

    def take_down(self, deadline_s: float) -> TakenDown:
        """Drain and remove every actor, with or without a controller that answers, and forget the relay.

        Raises ClusterError if there is nothing to drain, or nothing more to drain it with.
        """
        if not self.started_here:
            return self._take_down(deadline_s)
        # A Ray that is ending, too, may leave a call of ours without an answer for ever.
        work: Future[TakenDown] = Future()
        threading.Thread(target=_do, args=(work, self._take_down, deadline_s), daemon=True).start()
        until = time.monotonic() + deadline_s + OWN_GRACE_S
        while not wait((work,), LOOK_EVERY_S).done:
            if lost := self.lost:
                raise ClusterError(RAY_ENDED.format(", ".join(sorted(lost))))
            if time.monotonic() > until:
                raise ClusterError(f"Ray did not end the relay within {deadline_s + OWN_GRACE_S:g} s")
        return work.result()

    def _take_down(self, deadline_s: float) -> TakenDown:
        controller = self._cluster.controller()
        if controller is None and not self._cluster.actors():
            raise ClusterError(NO_RELAY)
        ended = self._drained_by(controller, deadline_s) if controller is not None else None
        if controller is not None:
            controller.kill()
        if ended is None:
            ended = self._drain_from_here(deadline_s)
        for actor in self._cluster.actors():
            self._cluster.remove(actor)
        self._cluster.forget_all()
        return ended

    def close(self) -> None:
        """Leave the cluster. One that was started here ends, with every process and file of it."""
        local_ray.end(self._session)

    def _drained_by(self, controller: ControllerHandle, deadline_s: float) -> TakenDown | None:
        timeout_s = deadline_s + TAKE_DOWN_GRACE_S + CALL_S
        try:
            controller.call("status", timeout_s=CALL_S)
            ended: TakenDown = controller.call("drain", deadline_s, timeout_s=timeout_s)
        except ClusterError as error:
            _log.warning("draining without the controller: %s", error)
            return None
        return ended

    def _drain_from_here(self, deadline_s: float) -> TakenDown:
        # Seldom needed, and a quarter of a second to import for every command.
        from actors.controller.actor import Controller

        # Without a configuration the stand-in makes nothing anew.
        self._facts.forget_running()
        stand_in = Controller(self._cluster, self._host)
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
            self._cluster.save(PAGE_KEY, str(self._session.started.state_file.page_token_path).encode())
        elif worker_niceness(ANSWER_S) > 0:
            self._cluster.save(NICENESS, b"lift")

    def _forget_idle_controller(self) -> None:
        """It was made for a configuration that it refused."""
        controller = self._cluster.controller()
        if controller is not None:
            controller.kill()
        self._cluster.forget_all()

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Repeated while the controller restarts: each of its methods may be called twice without harm."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            controller = self._cluster.controller()
            if controller is None:
                raise ClusterError(NO_RELAY)
            try:
                return controller.call(method, *arguments, timeout_s=ANSWER_S)
            except ClusterError as error:
                if time.monotonic() > deadline:
                    raise ClusterError(f"the controller does not answer: {error}") from error
                time.sleep(RETRY_S)


def _do(work: Future[TakenDown], function: Callable[[float], TakenDown], argument: float) -> None:
    try:
        work.set_result(function(argument))
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
        work.set_exception(error)
