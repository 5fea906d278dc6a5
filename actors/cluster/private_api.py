"""Every name of Ray that Ray does not promise to keep, one function each.

Written for Ray 2.60.0. tests/integration/actors/cluster/test_private_api.py shows on a real Ray that each of
them does what is expected here: an incompatible Ray fails there, with a message that says what to read.

| name | why no public API suffices |
|---|---|
| `worker.print_to_stdstream` | `log_to_driver=False` silences workers, but not messages about them |
| `worker._changeproctitle` | nothing else keeps Ray from setting a worker's title |
| `_raylet.setproctitle` | the package setproctitle does the same, and is a dependency more |
| `_raylet.Config`, `AuthenticationTokenLoader`, `ray_constants.ENABLE_RAY_CLUSTER` | see ADR 14 |
| `utils.read_ray_address` | `ray.init(address="auto")` tries for 20 s if no server listens any more |
| `internal_kv` | an actor that holds this state would lose it with its process |
| `Counter._record` | `Counter.inc` refuses 0 |
| `state.actor_table`, `ActorHandle._actor_id` | `ray.util.state.get_actor` needs a dashboard |
| `ray.init(_temp_dir=)` | RAY_TMPDIR also moves the file in which `ray start` leaves its address |
| variables of ray_config_def.h | none |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray._private import worker as ray_worker
from ray._private.state import state as cluster_state
from ray._raylet import AuthenticationTokenLoader, Config, setproctitle  # type: ignore[attr-defined]
from ray.experimental import internal_kv

# Set to 0, a node's address is 127.0.0.1, and its servers listen there alone. Meant for Windows and macOS,
# it works on Linux as well (ray/_private/services.py, get_node_ip_address).
MULTI_NODE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# For workers, which Ray otherwise starts at nice 15 (ray#24928): on busy cores NATS would starve them.
NORMAL_PRIORITY: Mapping[str, str] = MappingProxyType({"RAY_worker_niceness": "0"})
# For the daemons of a Ray of our own (ray_config_def.h): fresh metrics, a frozen worker killed after one
# second instead of five, and no usage reports. Ray ignores a name that it does not know.
DAEMON_FLAGS: Mapping[str, str] = MappingProxyType(
    {
        **NORMAL_PRIORITY,
        "RAY_metrics_report_interval_ms": "1000",
        "RAY_kill_worker_timeout_milliseconds": "1000",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)
# The argument of `ray.init` that says where a new Ray keeps its sockets, logs and session.
TEMP_DIRECTORY = "_temp_dir"
# How often the main thread of a worker looks for signals (core_worker.cc, RunTaskExecutionLoop), which
# actors/runtime/main_thread.py counts on.
SIGNAL_POLL_HZ = 100


def redirect_error_messages(receive: Callable[[str], object]) -> None:
    """Ray prints messages such as that of a killed worker to the terminal of every driver of its job,
    into the middle of other output; after this call `receive` gets each line instead."""

    def pass_on(data: Mapping[str, Any], ignore_prefix: bool) -> None:
        for line in data["lines"]:
            receive(line)

    ray_worker.print_to_stdstream = pass_on


def read_environment() -> None:
    """Read again the RAY_ variables that Ray read when it was imported, or when it first needed them."""
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get(MULTI_NODE) != "0"
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def read_ray_address() -> str | None:
    """The address that `ray start` left on this machine, whether or not anybody still listens there."""
    address: str | None = ray_utils.read_ray_address()
    return address


def set_process_title(text: str) -> None:
    setproctitle(text)


def keep_process_title() -> None:
    """Ray sets a worker's title again around each call of a method; after this call it no longer does."""
    ray_worker._changeproctitle = _leave_title_alone


@contextmanager
def _leave_title_alone(title: Any, next_title: Any) -> Iterator[None]:
    yield


def kv_get(key: str, namespace: bytes) -> bytes | None:
    value: bytes | None = internal_kv._internal_kv_get(key, namespace=namespace)
    return value


def kv_list(prefix: str, namespace: bytes) -> Sequence[str]:
    return [key.decode() for key in internal_kv._internal_kv_list(prefix, namespace=namespace)]


def kv_put(key: str, value: bytes, namespace: bytes, *, overwrite: bool) -> None:
    """Without `overwrite` a value that is there already stays."""
    internal_kv._internal_kv_put(key, value, overwrite, namespace=namespace)


def kv_delete(key: str, namespace: bytes) -> None:
    internal_kv._internal_kv_del(key, namespace=namespace)


def kv_delete_all(namespace: bytes) -> None:
    internal_kv._internal_kv_del("", del_by_prefix=True, namespace=namespace)


def add_to_counter(counter: Any, amount: float, tags: Mapping[str, str]) -> None:
    """What `Counter.inc` does, but for amounts of 0 too, which it refuses: a series that begins with its
    first loss, instead of at 0, never shows that loss as an increase."""
    counter._record(amount, tags)


def actor_state(handle: Any) -> str | None:
    """`ALIVE`, `DEAD`, or one of Ray's states in between; None when Ray does not know the actor."""
    state: str | None = cluster_state.actor_table(handle._actor_id.hex()).get("State")
    return state
