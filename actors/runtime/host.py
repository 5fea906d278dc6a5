"""What an actor running on Ray sees of its node and of the relay around it."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import threading
import time
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from actors.cluster import private_api
from actors.cluster.connection import node_address, node_id
from actors.cluster.key_values import KeyValues
from actors.cluster.metrics import RayMetrics
from actors.runtime.log import LimitedHandler
from actors.runtime.main_thread import throttle_signal_polling
from relay.control.store import assignment_key
from relay.errors import ClusterError
from relay.model.assignment import Assignment, decode_assignment
from relay.observability.metrics import Metrics

_log = logging.getLogger(__name__)

SECRET, SOCKETS = "secret", "sockets"
RAYLET_POLL_S = 1.0


class ActorHost:
    """Implements relay.ports.Host. Passed to each actor as an argument: unpickling it sets up the actor's
    process, before the actor's own constructor runs."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._store = KeyValues(namespace)

    def __reduce__(self) -> tuple[Any, ...]:
        return _set_up_process, (self._namespace,)

    @cached_property
    def node(self) -> str:
        return node_id()

    @cached_property
    def address(self) -> str:
        return node_address()

    @cached_property
    def secret(self) -> bytes:
        secret = self._store.load(SECRET)
        if not secret:
            raise ClusterError("the relay's secret is not there; was the relay taken down?")
        return secret

    @cached_property
    def socket_directory(self) -> Path:
        chosen = self._store.load(SOCKETS)
        if chosen:
            return private_directory(Path(chosen.decode()))
        relay = hashlib.sha256(self.secret).hexdigest()[:8]
        return private_directory(short_temporary_directory() / f"sluice-{os.getuid()}-{relay}")

    @cached_property
    def metrics(self) -> Metrics:
        return RayMetrics()

    def assignment(self, stream: str) -> Assignment | None:
        encoded = self._store.load(assignment_key(stream))
        return decode_assignment(encoded) if encoded else None

    def set_title(self, text: str) -> None:
        private_api.set_process_title(text)


def _set_up_process(namespace: str) -> ActorHost:
    """Every actor has a process of its own. Ray's actor page shows what it writes to stderr."""
    logging.basicConfig(level=logging.INFO, handlers=[LimitedHandler(sys.stderr)])
    _exit_with_raylet()
    private_api.keep_process_title()
    throttle_signal_polling()
    return ActorHost(namespace)


@cache
def _exit_with_raylet() -> None:
    """When a raylet dies, Ray declares its actors dead and starts others, but does not end the processes of
    the old ones, which would continue to publish."""
    threading.Thread(target=_exit_without, args=(os.getppid(),), name="raylet", daemon=True).start()


def _exit_without(raylet_pid: int) -> None:
    while os.getppid() == raylet_pid:
        time.sleep(RAYLET_POLL_S)
    _log.warning("the raylet of this node has ended, and so does this actor")
    os._exit(1)


def short_temporary_directory() -> Path:
    """A unix socket's path has 107 bytes at most, and Ray's sockets use about 70 of them below this."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= 16 else Path("/tmp")  # noqa: S108 - what we create there is private


def private_directory(path: Path) -> Path:
    """Creates the directory if it is missing. Raises ClusterError if another user owns it or may use it."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ClusterError(f"{path} is not private to this user; remove it")
    return path
