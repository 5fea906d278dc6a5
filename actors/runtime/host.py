"""What an actor sees of the node and the relay around it, when the place where it runs is Ray."""

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
from relay.control.store import assignment_fact
from relay.errors import ClusterError
from relay.model.assignment import Assignment, decode_assignment
from relay.observability.metrics import Metrics

_log = logging.getLogger(__name__)

SECRET, SOCKETS = "secret", "sockets"
RAYLET_EVERY_S = 1.0


class ActorHost:
    """Travels to each actor as an argument; unpickled, it sets up the process that it finds itself in."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._facts = KeyValues(namespace)

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
        secret = self._facts.load(SECRET)
        if not secret:
            raise ClusterError("the relay's secret is not there; was the relay taken down?")
        return secret

    @cached_property
    def socket_directory(self) -> Path:
        chosen = self._facts.load(SOCKETS)
        if chosen:
            return private_directory(Path(chosen.decode()))
        relay = hashlib.sha256(self.secret).hexdigest()[:8]
        return private_directory(short_temporary_directory() / f"sluice-{os.getuid()}-{relay}")

    @cached_property
    def metrics(self) -> Metrics:
        return RayMetrics()

    def assignment(self, stream: str) -> Assignment | None:
        encoded = self._facts.load(assignment_fact(stream))
        return decode_assignment(encoded) if encoded else None

    def set_title(self, text: str) -> None:
        private_api.set_process_title(text)


def _set_up_process(namespace: str) -> ActorHost:
    """One actor has a process to itself; what it logs goes to the file that Ray's actor page shows."""
    logging.basicConfig(level=logging.INFO, handlers=[LimitedHandler(sys.stderr)])
    _exit_with_raylet()
    private_api.keep_process_title()
    throttle_signal_polling()
    return ActorHost(namespace)


@cache
def _exit_with_raylet() -> None:
    """Ray takes the actors of a raylet that died for dead, and starts others, but lets the old ones live."""
    threading.Thread(target=_watch_over, args=(os.getppid(),), name="raylet", daemon=True).start()


def _watch_over(raylet: int) -> None:
    while os.getppid() == raylet:
        time.sleep(RAYLET_EVERY_S)
    _log.warning("the raylet of this node has ended, and so does this actor")
    os._exit(1)


def short_temporary_directory() -> Path:
    """Unix sockets take 107 bytes of path, and Ray's own use up about 70 of them below its directory."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= 16 else Path("/tmp")  # noqa: S108 - what we make there is private


def private_directory(path: Path) -> Path:
    """Made if it is missing. Raises ClusterError if it is anybody else's, or open to them."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ClusterError(f"{path} is not private to this user; remove it")
    return path
