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
# On a Ray of our own, which ends as well: what ending the relay may take beyond the drain's deadline.
OWN_GRACE_S = 5.0
# Ray ends a driver, whatever that is doing, once its head has been gone for 60 s
# (gcs_rpc_server_reconnect_timeout_s); we end it in order before that.
HEADLESS_S = 52.0
POLL_S = 0.2
# A controller that runs answers a call within milliseconds.
CALL_S = 3.0
RETRY_S = 0.1
RAY_ENDED = (
    "{} of Ray has ended, and the relay with it; what was accepted and not published waits in the journals,"
    " so start the relay again"
)
NO_RELAY = "no relay runs there; start it with `driver.py run`"

# Values of RAY_ADDRESS that name no address.
_NO_ADDRESS = ("", "auto", "local")


class StartMode(StrEnum):
    """AUTO joins a running cluster or, if there is none, starts one; LOCAL always starts one; JOIN never."""

    AUTO = "auto"
    LOCAL = "local"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class BringUp:
    """`created`: there was no relay before. Otherwise `differences` says what changed, a sentence each."""

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

    A cluster is looked for at `address`, then at RAY_ADDRESS, then among those that drivers of this user
    started, then where `ray start` left an address on this machine. AUTO joins none that a driver started
    without `shared`.
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
    """Brings a relay up, asks it, changes it and takes it down. Use from one thread.

    `token_path` is None on a cluster that this process did not start. Methods raise ClusterError when the
    relay, its controller or the cluster's head does not answer.
    """

    def __init__(self, session: local_ray.Session, namespace: str, classes: ActorClasses) -> None:
        self.started_here = session.started is not None
        self.address = session.address
        self.dashboard_url = session.dashboard_url
        self.token_path: Path | None = session.started.token_path if session.started else None
        self._session = session
        self._complete_at = time.monotonic()
        self._host = ActorHost(namespace)
        self._cluster = RayCluster(namespace, classes, self._host)
        self._store = ControlStore(self._cluster)

    def bring_up(self, config: Config, who: str = "") -> BringUp:
        """Afterwards the relay runs without this process. Raises ConfigError too."""
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
        """None lets the load decide. Returns at once; `status` shows the progress. Raises UsageError too."""
        status: ScaleStatus = self._ask("scale", count, who)
        return status

    def drain_publisher(self, name: str, who: str) -> None:
        """Returns at once, as the next two do; `status` shows the progress. All raise UsageError too."""
        self._ask("drain_publisher", name, who)

    def stop_stream(self, stream: str, who: str) -> str:
        """Returns the stream's key."""
        key: str = self._ask("stop_stream", stream, who)
        return key

    def resume_stream(self, stream: str, who: str) -> str:
        """Returns the stream's key."""
        key: str = self._ask("resume_stream", stream, who)
        return key

    def differences(self, config: Config) -> tuple[str, ...]:
        """What `bring_up` would change on the running relay."""
        running = self._store.running()
        if running is None:
            raise ClusterError(NO_RELAY)
        return differences(running.config, config)

    @property
    def ended_daemons(self) -> frozenset[str]:
        """Names of the essential daemons of a Ray that was started here which have ended."""
        return local_ray.ended_daemons(self._session)

    def check(self) -> None:
        """Call about once a second. Raises ClusterError if a Ray that was started here has lost its node, and
        with it every actor, or has been without its head for HEADLESS_S."""
        ended, now = self.ended_daemons, time.monotonic()
        if not ended:
            self._complete_at = now
        if local_ray.RAYLET in ended or now - self._complete_at > HEADLESS_S:
            raise _ray_ended(ended)

    def running(self) -> bool:
        with ray_errors(HEAD_IS_SILENT):
            return self._cluster.controller() is not None

    def take_down(self, deadline_s: float) -> TakenDown:
        """Drain and remove every actor, whether or not the controller answers, and forget the relay.

        Raises ClusterError if there is no relay, or if a Ray of our own ends meanwhile.
        """
        if not self.started_here:
            return self._take_down(deadline_s)
        # A Ray that is ending at the same time may never answer a call, and no timeout of ours ends such a
        # call: so it is made in a thread that is given up.
        work: Future[TakenDown] = Future()
        threading.Thread(target=_complete, args=(work, self._take_down, deadline_s), daemon=True).start()
        until = time.monotonic() + deadline_s + OWN_GRACE_S
        while not wait((work,), POLL_S).done:
            if ended := self.ended_daemons:
                raise _ray_ended(ended)
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
        """Leave the cluster. One that was started here ends, with all its processes and files."""
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
        # Imported here because it is seldom needed and takes every command a quarter of a second.
        from actors.controller.actor import Controller

        # With a configuration the stand-in would create again what it finds missing.
        self._store.forget_running()
        stand_in = Controller(self._cluster, self._host)
        try:
            return stand_in.drain(deadline_s)
        finally:
            stand_in.stop()

    def _prepare(self) -> None:
        """Save what every actor needs to start, before any actor is created."""
        self._cluster.save(SECRET, secrets.token_bytes(32), overwrite=False)
        if self._session.started is not None:
            sockets = private_directory(self._session.started.run_directory / "s")
            self._cluster.save(SOCKETS, str(sockets).encode())
            self._cluster.save(PAGE_KEY, str(self._session.started.state_file.page_token_path).encode())
        elif worker_niceness(ANSWER_S) > 0:
            self._cluster.save(NICENESS, b"lift")

    def _forget_idle_controller(self) -> None:
        """The controller was created for a configuration that it refused."""
        controller = self._cluster.controller()
        if controller is not None:
            controller.kill()
        self._cluster.forget_all()

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Repeats the call while the controller restarts; calling any of its methods twice does no harm."""
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


def _ray_ended(daemons: frozenset[str]) -> ClusterError:
    return ClusterError(RAY_ENDED.format(", ".join(sorted(daemons))))


def _complete(work: Future[TakenDown], function: Callable[[float], TakenDown], argument: float) -> None:
    try:
        work.set_result(function(argument))
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
        work.set_exception(error)
