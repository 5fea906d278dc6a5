"""`scale` and `down`: change the number of publishers, and end the running relay."""

from __future__ import annotations

import time
from argparse import Namespace
from contextlib import closing
from typing import TYPE_CHECKING

from cli.connect import join_relay
from cli.operator_name import operator_name
from relay.errors import ClusterError
from relay.model.stats import ScaleMode, ScaleStatus, TakenDown
from relay.primitives.text import count

if TYPE_CHECKING:
    from actors.client import RelayClient

# Pods may have to be added for publishers that do not fit; on one machine it takes under 5 s.
SCALE_DEADLINE_S = 120.0
POLL_S = 0.1
REPORT_EVERY_S = 5.0


def scale(args: Namespace) -> int:
    with closing(join_relay(args.address)) as cluster:
        print(f"before: {cluster.status().scale.summary}", flush=True)
        wanted = cluster.scale(args.count, operator_name())
        after = _await_scale(cluster, wanted)
        print(f"after:  {after.summary}: {after.reason}")
    return 0


def _await_scale(cluster: RelayClient, wanted: ScaleStatus) -> ScaleStatus:
    """The scale once it has the wanted number; raises ClusterError if that takes too long."""
    begun = said_at = time.monotonic()
    while True:
        now = cluster.status().scale
        if (
            now.mode is wanted.mode
            and now.actual == now.wanted
            and (now.mode is ScaleMode.AUTO or now.wanted == wanted.wanted)
        ):
            return now
        if time.monotonic() - begun > SCALE_DEADLINE_S:
            raise ClusterError(
                f"there are {now.actual} publishers and not {now.wanted} after {SCALE_DEADLINE_S:.0f} s;"
                " is there room for them in the cluster?"
            )
        if time.monotonic() - said_at > REPORT_EVERY_S:
            said_at = time.monotonic()
            print(f"now:    {now.summary}", flush=True)
        time.sleep(POLL_S)


def down(args: Namespace) -> int:
    with closing(join_relay(args.address)) as cluster:
        for line in taken_down_lines(cluster.take_down(args.deadline)):
            print(line)
    return 0


def taken_down_lines(taken: TakenDown) -> list[str]:
    """Which events were left in the journals when the relay ended."""
    lines = [
        f"{one.key}: {count(one.backlog_count)} events stay in the journal for the next start"
        for one in taken.streams
        if one.backlog_count
    ]
    lines += [f"{stream} gave no final figures; its journal holds what it had" for stream in taken.silent]
    state = "everything was published" if not lines else "the rest was published"
    return [*lines, f"{len(taken.streams) + len(taken.silent)} streams ended; {state}"]
