"""`run`: bring the relay to what the configuration says, then watch it, and its file, until a signal."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from cli.config_watch import ConfigWatcher, digest
from cli.connect import joined_or_started, started
from cli.display.status import summary_line
from cli.display.status_notes import page_line
from cli.display.terminal import Tone
from cli.local_stage import embed_nats, simulate, usual_port_or_any
from cli.operator_name import operator_name
from cli.scale_and_down import left_lines
from cli.screen import Interrupts, Screen
from relay.config import Config, load_config
from relay.config.overrides import with_exchange, with_nats
from relay.errors import ClusterError
from relay.model.stats import PageStatus, RelayStatus, StreamState
from relay.observability.activity import problem_fingerprint

if TYPE_CHECKING:
    from actors.client import RelayClient

SAY_EVERY_S = 10.0
LOOK_EVERY_S = 1.0
LINE_WIDTH = 200
# A container gets 30 s between SIGTERM and SIGKILL; Ray's own end takes some of them.
DRAIN_DEADLINE_S = 10.0
HURRIED_DEADLINE_S = 2.0


def run(args: Namespace) -> int:
    known = digest(args.config)
    config = load_config(args.config, os.environ)
    screen = Screen()
    with Interrupts() as interrupts, ExitStack() as children:
        fit = _staged(args, config, children, screen)
        config = fit(config)
        screen.say("looking for a Ray cluster; starting one takes some seconds")
        with interrupts.breaking_off():
            # The actors on a cluster that was here before would outlive our children.
            own = args.simulate or args.embedded_nats
            cluster = started(config, shared=True) if own else joined_or_started(args.address, config)
        with closing(cluster), screen:
            _say_changes(cluster, config, screen)
            follower = ConfigWatcher(args.config, known, fit, cluster, screen) if args.watch else None
            return _watch(cluster, follower, screen, interrupts)


def _staged(
    args: Namespace, config: Config, children: ExitStack, screen: Screen
) -> Callable[[Config], Config]:
    """Starts what was asked for around the relay; returns what turns a configuration to it."""
    state = config.journal.directory.parent
    server, exchanges = "", {}
    if args.embedded_nats:
        server = embed_nats(children, state / "nats", port=usual_port_or_any())
    if args.simulate:
        state.mkdir(parents=True, exist_ok=True)
        exchanges = {venue: one.url for venue, one in simulate(children, config, state).items()}
        for venue, url in exchanges.items():
            screen.say(f"simulated exchange of {venue}: {url}")

    def fit(found: Config) -> Config:
        found = with_nats(found, server) if server else found
        return with_exchange(found, exchanges) if exchanges else found

    return fit


def _watch(
    cluster: RelayClient, follower: ConfigWatcher | None, screen: Screen, interrupts: Interrupts
) -> int:
    """Until somebody asks to end or takes the relay down."""
    watch = StatusReporter(cluster, screen)
    while not interrupts.wait(LOOK_EVERY_S):
        if watch.is_over():
            screen.say("the relay was taken down")
            return 0
        if follower is not None:
            follower.look()
    if not cluster.started_here:
        screen.say("the actors are detached and go on; `driver.py down` drains and removes them")
        return 0
    _drain(cluster, screen, HURRIED_DEADLINE_S if interrupts.hurried else DRAIN_DEADLINE_S)
    return 0


def _drain(cluster: RelayClient, screen: Screen, deadline_s: float) -> None:
    screen.say("draining")
    try:
        cluster.check()
        taken = cluster.take_down(deadline_s)
    except ClusterError as error:
        # Whoever ends a pod signals all its processes, and Ray may be faster than its driver.
        if not cluster.ended_daemons:
            raise
        screen.say(str(error), Tone.WARN)
        return
    for line in left_lines(taken):
        screen.say(line)


def _say_changes(cluster: RelayClient, config: Config, screen: Screen) -> None:
    change = cluster.bring_up(config, operator_name())
    what = "started" if change.created else "changed" if change.differences else "nothing changed"
    screen.say(f"{what}: {len(config.shards)} streams on Ray at {cluster.address}")
    for difference in change.differences:
        screen.say(f"  {difference}")
    screen.say(f"NATS: {', '.join(config.nats.servers)}   dashboard: {cluster.dashboard_url or 'none'}")


class StatusReporter:
    """Says a line when a stream's state or the scale changes, for each new problem, and now and then."""

    def __init__(self, cluster: RelayClient, screen: Screen) -> None:
        self._cluster = cluster
        self._screen = screen
        self._seen: object = None
        self._told: set[str] = set()
        self._page: PageStatus | None = None
        self._say_at = 0.0

    def is_over(self) -> bool:
        """One look; whether somebody else took the relay down. Raises ClusterError once it cannot go on."""
        self._cluster.check()
        try:
            status = self._cluster.status()
        except ClusterError as error:
            if not self._cluster.running():
                return True
            self._say(str(error), f"{error}; the streams go on meanwhile", Tone.WARN)
            return False
        if status.page != self._page:
            self._page = status.page
            self._screen.say(page_line(status.page) if status.page else "the status page is off")
        for problem in status.problems:
            if problem_fingerprint(problem) not in self._told:
                self._screen.say(problem, Tone.WARN)
        self._told = set(map(problem_fingerprint, status.problems))
        self._say(_status_fingerprint(status), summary_line(status, LINE_WIDTH))
        return False

    def _say(self, seen: object, line: str, tone: Tone = Tone.PLAIN) -> None:
        now = time.monotonic()
        if seen != self._seen or now >= self._say_at:
            self._seen, self._say_at = seen, now + SAY_EVERY_S
            self._screen.say(line, tone)


def _status_fingerprint(status: RelayStatus) -> object:
    """What is worth a line at once when it changes."""
    live = frozenset(one.stream for one in status.streams if one.state is StreamState.LIVE)
    return live, status.scale.mode, status.scale.actual, status.unreachable
