"""Starts a Ray of our own or joins one that runs, and leaves no trace of either.

A Ray of our own listens on loopback alone and asks for a token that we generate for it. Ray takes both
settings from environment variables, so this process's environment differs for as long as the connection
lasts. Why it is started in this process: ADR 14.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.cluster import connection, private_api
from actors.cluster.connection import Attached
from actors.cluster.private_api import DAEMON_FLAGS, MULTI_NODE, TEMP_DIRECTORY
from actors.runtime.host import short_temporary_directory
from relay.adapters.local.cluster_files import (
    RUN_PREFIX,
    ClusterFile,
    LocalCluster,
    running_cluster,
    state_directory,
)
from relay.adapters.local.process_tree import (
    Process,
    children,
    descendants,
    end_processes,
    is_running,
    name_of,
)
from relay.errors import ClusterError

OBJECT_STORE_BYTES = 100 * 1024 * 1024
LOOPBACK = "127.0.0.1"
# The dashboard's helpers notice its end after about two seconds; what still runs after this is killed.
LINGER_S = 4.0
PROBE_TIMEOUT_S = 1.0
# The programs of Ray's head and of its node, without which there is no cluster.
HEAD, RAYLET = "gcs_server", "raylet"
JOIN_REMEDY = "does it run, has this machine a node of it, and do RAY_AUTH_MODE and RAY_AUTH_TOKEN fit it?"


@dataclass(frozen=True, slots=True)
class Session:
    """This process's only connection to Ray. `started` is None on a cluster that was joined."""

    address: str
    dashboard_url: str
    started: Started | None
    environment: Environment


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster of our own.

    `daemons` are the processes that Ray started from this one, `essential` those of HEAD and RAYLET, by name.
    Both are empty where the system shows no processes (there is no /proc).
    """

    run_directory: Path
    state_file: ClusterFile
    token_path: Path
    daemons: frozenset[Process]
    essential: Mapping[str, Process]


class Environment:
    """Changes this process's environment variables for Ray until `restore`; None unsets a variable."""

    def __init__(self, changes: Mapping[str, str | None]) -> None:
        self._before = {name: os.environ.get(name) for name in changes}
        self._change(changes)

    def restore(self) -> None:
        self._change(self._before)

    def _change(self, changes: Mapping[str, str | None]) -> None:
        for name, value in changes.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        private_api.read_environment()


def _own_cluster(token_path: Path) -> dict[str, str | None]:
    """What drivers of a Ray of our own set: it listens on loopback and asks for a token."""
    return {
        MULTI_NODE: "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_AUTH_TOKEN": None,
    }


def start(namespace: str, *, needed_cpus: float, include_dashboard: bool, shared: bool) -> Session:
    """Start a Ray of our own, with at least `needed_cpus` CPUs, and announce it for other terminals.

    Raises ClusterError. Whenever this process ends, by SIGKILL too, the kernel ends Ray's daemons.
    """
    run_directory = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=short_temporary_directory()))
    token_path = _generate_token(run_directory)
    environment = Environment({**_own_cluster(token_path), **DAEMON_FLAGS, "RAY_ADDRESS": None})
    before = children(os.getpid())
    try:
        attached = _init(
            address="local",
            namespace=namespace,
            num_cpus=max(os.cpu_count() or 1, math.ceil(needed_cpus)),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=include_dashboard,
            dashboard_host=LOOPBACK,
            **{TEMP_DIRECTORY: str(run_directory / "ray")},
        )
    except ClusterError:
        environment.restore()
        shutil.rmtree(run_directory, ignore_errors=True)
        raise
    daemons = children(os.getpid()) - before
    essential = {name: daemon for daemon in daemons if (name := name_of(daemon)) in (HEAD, RAYLET)}
    state_file = _announce(attached, run_directory, token_path, shared=shared)
    started = Started(run_directory, state_file, token_path, daemons, essential)
    return Session(attached.address, attached.dashboard_url, started, environment)


def _generate_token(run_directory: Path) -> Path:
    token_path = run_directory / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(secrets.token_hex(32))
    return token_path


def _announce(attached: Attached, run_directory: Path, token_path: Path, *, shared: bool) -> ClusterFile:
    cluster = LocalCluster(
        address=attached.address,
        token_path=str(token_path),
        dashboard_url=attached.dashboard_url,
        run_directory=str(run_directory),
        pid=os.getpid(),
        shared=shared,
    )
    return ClusterFile(state_directory(os.environ), cluster)


def find_own(*, shared: bool) -> LocalCluster | None:
    """The cluster that a driver of this user started last and that still runs; with `shared`, only one that
    `run` may join."""
    return running_cluster(state_directory(os.environ), shared=shared)


def find_started_by_hand() -> str | None:
    """The address that `ray start` left on this machine, if a server still listens there."""
    address = private_api.read_ray_address()
    return address if address and _is_listening(address) else None


def _is_listening(address: str) -> bool:
    """Checked before Ray connects, because Ray would keep trying for 20 s."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False


def join_own(cluster: LocalCluster, namespace: str) -> Session:
    environment = Environment(_own_cluster(Path(cluster.token_path)))
    try:
        _init(address=cluster.address, namespace=namespace)
    except ClusterError:
        environment.restore()
        raise
    return Session(cluster.address, cluster.dashboard_url, None, environment)


def join(address: str, namespace: str) -> Session:
    """Uses the RAY_AUTH_ variables of the user's environment."""
    if not _is_listening(address):
        raise _cannot_join(address)
    environment = Environment({})
    attached = _init(address=address, namespace=namespace)
    return Session(attached.address, attached.dashboard_url, None, environment)


def ended_daemons(session: Session) -> frozenset[str]:
    """Names of the essential daemons of a cluster of our own that have ended."""
    essential = session.started.essential if session.started else {}
    return frozenset(name for name, process in essential.items() if not is_running(process))


def end(session: Session) -> None:
    """Leave the cluster; one that we started ends, with all its processes and files."""
    started = session.started
    # Collected before the daemons end: afterwards their children belong to init, and cannot be recognised.
    processes = descendants(started.daemons) if started else frozenset()
    if ended_daemons(session):
        # Ray's own shutdown would wait for answers of a daemon that has ended.
        end_processes(processes, 0.0)
    connection.shutdown()
    if started:
        end_processes(processes, LINGER_S)
        started.state_file.remove()
        shutil.rmtree(started.run_directory, ignore_errors=True)
    session.environment.restore()


def _init(**arguments: Any) -> Attached:
    if connection.is_connected():
        raise ClusterError("this process is connected to a Ray cluster already")
    with _kept_signal_handlers():
        try:
            return connection.init(**arguments)
        except ClusterError as error:
            if arguments["address"] == "local":
                raise ClusterError(f"Ray cannot be started: {error}") from error
            raise _cannot_join(arguments["address"]) from error


def _cannot_join(address: str) -> ClusterError:
    return ClusterError(f"cannot join the Ray cluster at {address}; {JOIN_REMEDY}")


@contextmanager
def _kept_signal_handlers() -> Iterator[None]:
    """`ray.init` installs a handler of SIGTERM that exits; ours drains the relay first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
