"""This process's connection to Ray, and what it can learn there about its node."""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

import ray
from ray.util import get_node_ip_address

from actors.cluster import private_api
from actors.cluster.errors import first_line, ray_errors
from relay.errors import ClusterError

_log = logging.getLogger(__name__)


class Attached(NamedTuple):
    """What this process is connected to; the URL is empty without a dashboard."""

    address: str
    dashboard_url: str


def is_connected() -> bool:
    return bool(ray.is_initialized())


def init(**arguments: Any) -> Attached:
    """Calls `ray.init` without its output. Raises ClusterError with the first line of Ray's message."""
    private_api.redirect_error_messages(_log_error_message)
    try:
        context: Any = ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)
    except (ray.exceptions.RayError, ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ClusterError(first_line(error)) from error
    url = context.dashboard_url
    return Attached(context.address_info["gcs_address"], f"http://{url}" if url else "")


def _log_error_message(line: str) -> None:
    _log.info("ray: %s", line)


def shutdown() -> None:
    ray.shutdown(wait_for_processes=True)


def node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


def node_address() -> str:
    address: str = get_node_ip_address()  # type: ignore[no-untyped-call]
    return address


def worker_niceness(timeout_s: float) -> int:
    """The niceness at which the cluster starts its workers, measured by a task."""
    task = ray.remote(_own_niceness).options(num_cpus=0)
    with ray_errors("the cluster runs no tasks"):
        niceness: int = ray.get(task.remote(), timeout=timeout_s)
    return niceness


def _own_niceness() -> int:
    return os.nice(0)
