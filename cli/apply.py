"""`apply`: change the running relay to what a configuration says, and report when the change is in force."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from contextlib import closing
from typing import TYPE_CHECKING

from cli.connect import join_relay
from cli.display.rollout import lines
from cli.operator_name import operator_name
from relay.config import Config, load_config
from relay.control.rollout import Rollout, rollout_status
from relay.errors import ClusterError
from relay.model.stats import RelayStatus

if TYPE_CHECKING:
    from actors.client import RelayClient

POLL_S = 0.2
REPORT_EVERY_S = 5.0
# More would make the line too long; `status` shows all of them.
MAX_SHOWN = 5


def run(args: Namespace) -> int:
    config = load_config(args.config, os.environ)
    with closing(join_relay(args.address)) as cluster:
        found = cluster.differences(config)
        for difference in found:
            print(difference, flush=True)
        if not found:
            print("nothing to change")
        elif args.dry_run:
            print("nothing was changed; leave out --dry-run to apply this")
        else:
            _apply(cluster, config, None if args.no_wait else args.deadline)
    return 0


def _apply(cluster: RelayClient, config: Config, deadline_s: float | None) -> None:
    """Without a deadline it does not wait until the change is in force."""
    before, begun = cluster.status(), time.monotonic()
    cluster.bring_up(config, operator_name())
    if deadline_s is None:
        print("applied; `driver.py status` shows how far it is")
        return
    for line in lines(_await_rollout(cluster, before, config, deadline_s)):
        print(line)
    print(f"in force after {time.monotonic() - begun:.1f} s")


def _await_rollout(cluster: RelayClient, before: RelayStatus, config: Config, deadline_s: float) -> Rollout:
    """Raises ClusterError if that takes too long."""
    begun = said_at = time.monotonic()
    while True:
        status = cluster.status()
        found = rollout_status(before, status, config)
        if not found.waiting:
            return found
        if time.monotonic() - begun > deadline_s:
            problems = "".join(f"; {problem}" for problem in status.problems)
            raise ClusterError(
                f"after {deadline_s:g} s still waiting for {_shown(found)}{problems};"
                " the relay goes on bringing it about: see `driver.py status`"
            )
        if time.monotonic() - said_at > REPORT_EVERY_S:
            said_at = time.monotonic()
            print(f"waiting for {_shown(found)}", flush=True)
        time.sleep(POLL_S)


def _shown(found: Rollout) -> str:
    more = len(found.waiting) - MAX_SHOWN
    return ", ".join(found.waiting[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")
