"""`drain` and `resume`: take one publisher or one stream out of the running relay, and start a stream
again.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from cli.connect import join_relay
from cli.display.rollout import drained_text, subscribed_text
from cli.operator_name import operator_name
from relay.errors import ClusterError
from relay.model.stats import RelayStatus, StreamStats

if TYPE_CHECKING:
    from actors.client import RelayClient

POLL_S = 0.2
# Most streams have data within a second; some are silent for days, so it is not waited for longer.
FIRST_DATA_S = 5.0


def drain(args: Namespace) -> int:
    with closing(join_relay(args.address)) as cluster:
        drain_one = drain_publisher if args.kind == "publisher" else stop_stream
        drain_one(cluster, args.name, args.deadline)
    return 0


def resume(args: Namespace) -> int:
    with closing(join_relay(args.address)) as cluster:
        resume_stream(cluster, args.stream, args.deadline)
    return 0


def drain_publisher(cluster: RelayClient, name: str, deadline_s: float) -> None:
    before = cluster.status()
    moved = [one.key for one in before.streams if one.publisher == name]
    print(f"before: {before.scale.summary}; {name} has {len(moved)} streams", flush=True)
    cluster.drain_publisher(name, operator_name())

    def stopped(status: RelayStatus) -> bool:
        scale = status.scale
        return name not in _publishers(status) and scale.actual == scale.wanted and not status.pending

    after = _await(cluster, stopped, name, deadline_s)
    homes = sorted({one.publisher or "nobody" for one in after.streams if one.key in moved})
    print(f"after:  {after.scale.summary}; the streams are with {', '.join(homes) or 'nobody'}")


def stop_stream(cluster: RelayClient, name: str, deadline_s: float) -> None:
    key = cluster.stop_stream(name, operator_name())
    after = _await(cluster, lambda status: _stream(status, key) is None, key, deadline_s)
    ended = next((one for one in after.ended if one.key == key), None)
    print(f"{key}: {drained_text(ended)}; `driver.py resume {name}` starts it again")


def resume_stream(cluster: RelayClient, name: str, deadline_s: float) -> None:
    key = cluster.resume_stream(name, operator_name())
    begun = time.monotonic()

    def back(status: RelayStatus) -> bool:
        found = _stream(status, key)
        if found is None or not found.linked or not found.subscribed_at_ns:
            return False
        return bool(found.first_data_at_ns) or time.monotonic() - begun > FIRST_DATA_S

    found = _stream(_await(cluster, back, key, deadline_s), key)
    assert found is not None
    print(f"{key}: {subscribed_text(found)}")


def _await(
    cluster: RelayClient, met: Callable[[RelayStatus], bool], what: str, deadline_s: float
) -> RelayStatus:
    """The first status for which `met` holds. Raises ClusterError if that takes too long."""
    begun = time.monotonic()
    while not met(status := cluster.status()):
        if time.monotonic() - begun > deadline_s:
            waiting = f"; pending: {', '.join(status.pending)}" if status.pending else ""
            raise ClusterError(
                f"{what} is not done after {deadline_s:g} s{waiting};"
                " the relay goes on bringing it about: see `driver.py status`"
            )
        time.sleep(POLL_S)
    return status


def _publishers(status: RelayStatus) -> set[str]:
    return {one.publisher for one in status.publishers}


def _stream(status: RelayStatus, key: str) -> StreamStats | None:
    return next((one for one in status.streams if one.key == key), None)
