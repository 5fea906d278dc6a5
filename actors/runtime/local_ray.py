"""Starting a Ray of our own, joining one that runs, and leaving no trace of either.

A Ray of our own listens on loopback alone and asks for a token that it makes for itself. Ray takes the two
from environment variables, some read when it is imported, so this process's environment is changed for as
long as the connection lasts.
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
# The dashboard's own helpers notice its end after about two seconds.
LINGER_S = 4.0
KNOCK_S = 1.0
# The programs of Ray's head and of its node.
HEAD, RAYLET = "gcs_server", "raylet"
JOIN_REMEDY = "does it run, has this machine a node of it, and do RAY_AUTH_MODE and RAY_AUTH_TOKEN fit it?"


@dataclass(frozen=True, slots=True)
class Session:
    """A connection of this process to Ray. `started` is None on a cluster that was joined."""

    address: str
    dashboard_url: str
    started: Started | None
    environment: Environment


@dataclass(frozen=True, slots=True)
class Started:
    """A cluster of our own. `daemons` are the processes that Ray started from this one, and `vital` by their
    names those without which it is none; empty where processes cannot be seen."""

    run_directory: Path
    state_file: ClusterFile
    token_path: Path
    daemons: frozenset[Process]
    vital: Mapping[str, Process]


class Environment:
    """Environment variables for Ray, put back by `restore`; None unsets one."""

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


def _on_loopback(token_path: Path) -> dict[str, str | None]:
    return {
        MULTI_NODE: "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_AUTH_TOKEN": None,
    }


def start(namespace: str, *, needed_cpus: float, include_dashboard: bool, shared: bool) -> Session:
    run_directory = Path(tempfile.mkdtemp(prefix=RUN_PREFIX, dir=short_temporary_directory()))
    token_path = run_directory / "token"
    token_path.touch(mode=0o600)
    token_path.write_text(secrets.token_hex(32))
    environment = Environment({**_on_loopback(token_path), **DAEMON_FLAGS, "RAY_ADDRESS": None})
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
    cluster = LocalCluster(
        address=attached.address,
        token_path=str(token_path),
        dashboard_url=attached.dashboard_url,
        run_directory=str(run_directory),
        pid=os.getpid(),
        shared=shared,
    )
    state_file = ClusterFile(state_directory(os.environ), cluster)
    daemons = children(os.getpid()) - before
    vital = {name: daemon for daemon in daemons if (name := name_of(daemon)) in (HEAD, RAYLET)}
    started = Started(run_directory, state_file, token_path, daemons, vital)
    return Session(cluster.address, cluster.dashboard_url, started, environment)


def find_own(*, shared: bool) -> LocalCluster | None:
    """The latest that this user started and that still runs; with `shared`, only one that `run` may join."""
    return running_cluster(state_directory(os.environ), shared=shared)


def find_started_by_hand() -> str | None:
    """Where `ray start` left an address on this machine and somebody still listens."""
    address = private_api.read_ray_address()
    return address if address and _somebody_listens(address) else None


def _somebody_listens(address: str) -> bool:
    """Ray itself would go on trying for 20 s."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), KNOCK_S):
            return True
    except (OSError, ValueError):
        return False


def join_own(cluster: LocalCluster, namespace: str) -> Session:
    environment = Environment(_on_loopback(Path(cluster.token_path)))
    try:
        _init(address=cluster.address, namespace=namespace)
    except ClusterError:
        environment.restore()
        raise
    return Session(cluster.address, cluster.dashboard_url, None, environment)


def join(address: str, namespace: str) -> Session:
    """With the user's own RAY_AUTH_ variables."""
    if not _somebody_listens(address):
        raise _cannot_join(address)
    environment = Environment({})
    attached = _init(address=address, namespace=namespace)
    return Session(attached.address, attached.dashboard_url, None, environment)


def lost(session: Session) -> frozenset[str]:
    """Which of its vital daemons a cluster of our own has lost."""
    vital = session.started.vital if session.started else {}
    return frozenset(name for name, process in vital.items() if not is_running(process))


def end(session: Session) -> None:
    """Leave the cluster; one that we started ends with all its processes and files."""
    started = session.started
    # Once the daemons are gone, nothing tells any more whose children the rest were.
    processes = descendants(started.daemons) if started else frozenset()
    if lost(session):
        # Ray would wait for what is not there any more.
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
    """Ray takes SIGTERM for itself; ours drains."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
