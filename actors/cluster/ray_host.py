"""What an actor sees of the node and the relay around it, when the place where it runs is Ray."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
from ray._raylet import setproctitle  # type: ignore[attr-defined]
from ray.experimental import internal_kv
from ray.util import get_node_ip_address
from ray.util.metrics import Counter, Gauge

from relay.assign import decode_assignment
from relay.errors import ClusterError
from relay.facts import assignment_fact
from relay.metrics import Metric, MetricKind, Metrics
from relay.stats import Assignment

SECRET, SOCKETS, NICENESS = "secret", "sockets", "niceness"
TITLE_EVERY_S = 0.25
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


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
    """Metrics that Ray's own exporter serves. Ray tags them with neither actor nor job, so we do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Metric, Any] = {}

    def set(self, metric: Metric, tag: str, value: float) -> None:
        self._recorder(metric).set(float(value), _tags(metric, tag))

    def add(self, metric: Metric, tag: str, amount: float) -> None:
        self._recorder(metric).inc(float(amount), _tags(metric, tag))

    def _recorder(self, metric: Metric) -> Any:
        with self._lock:
            if metric not in self._known:
                definition = metric.value
                kind = Gauge if definition.kind is MetricKind.GAUGE else Counter
                keys = (definition.tag,) if definition.tag else ()
                self._known[metric] = kind(definition.name, definition.meaning, keys)
            return self._known[metric]


def _tags(metric: Metric, tag: str) -> dict[str, str]:
    return {metric.value.tag: tag} if metric.value.tag else {}


class RayHost:
    """Travels to each actor as an argument; unpickled, it sets up the process that it finds itself in."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._facts = KeyValues(namespace)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self._namespace,)

    @cached_property
    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    @cached_property
    def address(self) -> str:
        address: str = get_node_ip_address()  # type: ignore[no-untyped-call]
        return address

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
        self._title.text = text

    @cached_property
    def _title(self) -> _Title:
        return _Title()


class _Title:
    """Keeps the process title: Ray puts its own back after every call of a method."""

    def __init__(self) -> None:
        self.text = ""
        threading.Thread(target=self._keep, name="title", daemon=True).start()

    def _keep(self) -> None:
        while True:
            if self.text:
                setproctitle(self.text)
            time.sleep(TITLE_EVERY_S)


def _arrive(namespace: str) -> RayHost:
    """One actor has a process to itself; what it logs goes to the file that Ray's actor page shows."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    return RayHost(namespace)


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
