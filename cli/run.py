"""`run`: bring the relay to what the configuration says, then watch it, and its file, until a signal."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from cli.config_watch import ConfigWatcher, digest
from cli.connect import join_or_start, start_local
from cli.display.status import summary_line
from cli.display.status_notes import page_line
from cli.display.terminal import Tone
from cli.local_stage import default_port_or_any, embed_nats, simulate
from cli.operator_name import operator_name
from cli.scale_and_down import taken_down_lines
from cli.screen import Interrupts, Screen
from relay.config import Config, load_config
from relay.config.overrides import with_exchange, with_nats
from relay.errors import ClusterError
from relay.model.stats import PageStatus, RelayStatus, StreamState
from relay.observability.activity import problem_fingerprint

if TYPE_CHECKING:
    from actors.client import RelayClient

REPORT_EVERY_S = 10.0
POLL_S = 1.0
LINE_WIDTH = 200
# Kubernetes allows 30 s between SIGTERM and SIGKILL, and stopping Ray takes some of them.
DRAIN_DEADLINE_S = 10.0
HURRIED_DEADLINE_S = 2.0


def run(args: Namespace) -> int:
    known = digest(args.config)
    config = load_config(args.config, os.environ)
    screen = Screen()
    with Interrupts() as interrupts, ExitStack() as children:
        adapt = _start_surroundings(args, config, children, screen)
        config = adapt(config)
        screen.print_line("looking for a Ray cluster; starting one takes some seconds")
        with interrupts.interruptible():
            # On a cluster that ran before, the actors would outlive these child processes.
            own = args.simulate or args.embedded_nats
            cluster = start_local(config, shared=True) if own else join_or_start(args.address, config)
        with closing(cluster), screen:
            _bring_up(cluster, config, screen)
            watcher = ConfigWatcher(args.config, known, adapt, cluster, screen) if args.watch else None
            return _watch(cluster, watcher, screen, interrupts)


def _start_surroundings(
    args: Namespace, config: Config, children: ExitStack, screen: Screen
) -> Callable[[Config], Config]:
    """Starts the requested child processes; returns a function that adapts a configuration to them."""
    state = config.journal.directory.parent
    server, exchanges = "", {}
    if args.embedded_nats:
        server = embed_nats(children, state / "nats", port=default_port_or_any())
    if args.simulate:
        state.mkdir(parents=True, exist_ok=True)
        exchanges = {venue: one.url for venue, one in simulate(children, config, state).items()}
        for venue, url in exchanges.items():
            screen.print_line(f"simulated exchange of {venue}: {url}")

    def adapt(found: Config) -> Config:
        found = with_nats(found, server) if server else found
        return with_exchange(found, exchanges) if exchanges else found

    return adapt


def _watch(
    cluster: RelayClient, watcher: ConfigWatcher | None, screen: Screen, interrupts: Interrupts
) -> int:
    """Until a signal comes or another command takes the relay down."""
    watch = StatusReporter(cluster, screen)
    while not interrupts.wait(POLL_S):
        if watch.is_over():
            screen.print_line("the relay was taken down")
            return 0
        if watcher is not None:
            watcher.poll()
    if not cluster.started_here:
        screen.print_line("the actors are detached and go on; `driver.py down` drains and removes them")
        return 0
    _drain(cluster, screen, HURRIED_DEADLINE_S if interrupts.hurried else DRAIN_DEADLINE_S)
    return 0


def _drain(cluster: RelayClient, screen: Screen, deadline_s: float) -> None:
    screen.print_line("draining")
    try:
        cluster.check()
        taken = cluster.take_down(deadline_s)
    except ClusterError as error:
        # When a pod ends, all its processes get the signal, and Ray may end before its driver.
        if not cluster.ended_daemons:
            raise
        screen.print_line(str(error), Tone.WARN)
        return
    for line in taken_down_lines(taken):
        screen.print_line(line)


def _bring_up(cluster: RelayClient, config: Config, screen: Screen) -> None:
    change = cluster.bring_up(config, operator_name())
    what = "started" if change.created else "changed" if change.differences else "nothing changed"
    screen.print_line(f"{what}: {len(config.shards)} streams on Ray at {cluster.address}")
    for difference in change.differences:
        screen.print_line(f"  {difference}")
    screen.print_line(
        f"NATS: {', '.join(config.nats.servers)}   dashboard: {cluster.dashboard_url or 'none'}"
    )


class StatusReporter:
    """Prints a line when a stream's state or the scale changes, for each new problem, and every 10 s."""

    def __init__(self, cluster: RelayClient, screen: Screen) -> None:
        self._cluster = cluster
        self._screen = screen
        self._last_fingerprint: object = None
        self._reported_problems: set[str] = set()
        self._page: PageStatus | None = None
        self._report_at = 0.0

    def is_over(self) -> bool:
        """Report the present status; True if the relay was taken down. Raises ClusterError if Ray has
        ended.
        """
        self._cluster.check()
        try:
            status = self._cluster.status()
        except ClusterError as error:
            if not self._cluster.running():
                return True
            self._report(str(error), f"{error}; the streams go on meanwhile", Tone.WARN)
            return False
        if status.page != self._page:
            self._page = status.page
            self._screen.print_line(page_line(status.page) if status.page else "the status page is off")
        for problem in status.problems:
            if problem_fingerprint(problem) not in self._reported_problems:
                self._screen.print_line(problem, Tone.WARN)
        self._reported_problems = set(map(problem_fingerprint, status.problems))
        self._report(_status_fingerprint(status), summary_line(status, LINE_WIDTH))
        return False

    def _report(self, seen: object, line: str, tone: Tone = Tone.PLAIN) -> None:
        now = time.monotonic()
        if seen != self._last_fingerprint or now >= self._report_at:
            self._last_fingerprint, self._report_at = seen, now + REPORT_EVERY_S
            self._screen.print_line(line, tone)


def _status_fingerprint(status: RelayStatus) -> object:
    """The part of the status whose change is printed at once."""
    live = frozenset(one.stream for one in status.streams if one.state is StreamState.LIVE)
    return live, status.scale.mode, status.scale.actual, status.unreachable
