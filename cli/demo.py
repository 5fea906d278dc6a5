"""`demo`: the whole relay on this machine against a simulated exchange, then the audit of every event."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cli.background_audit import BackgroundAudit
from cli.connect import start_local
from cli.display.audit import comparison_table, total_line
from cli.display.status import Progress, render, summary_line
from cli.display.terminal import Tone
from cli.local_stage import embed_nats, simulate
from cli.screen import Interrupts, Screen
from relay.adapters.local.simulator_process import SimulatedExchange
from relay.audit.audit import Audit
from relay.audit.comparison import Sent, compare
from relay.binance.id_gaps import gap_rule
from relay.binance.streams import Venue
from relay.config import Config, load_config
from relay.config.overrides import with_exchange, with_journal_directory, with_nats
from relay.errors import ClusterError, UsageError
from relay.model.stats import RelayStatus

if TYPE_CHECKING:
    from actors.client import RelayClient

POLL_S = 1.0
PLAIN_WIDTH = 200
READY_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
# Without progress for this long, the rest is not going to arrive.
NO_PROGRESS_S = 10.0
READ_DEADLINE_S = 30.0
DRAIN_DEADLINE_S = 10.0
HURRIED_S = 2.0


def run(args: Namespace) -> int:
    config = load_config(args.config, os.environ)
    flood = _flood(config, args.flood, args.flood_rate)
    screen = Screen()
    with (
        Interrupts() as interrupts,
        TemporaryDirectory(prefix="sluice-demo-") as scratch,
        ExitStack() as children,
    ):
        directory = Path(scratch)
        config = with_journal_directory(config, directory / "journal")
        config = with_nats(config, embed_nats(children, directory / "nats"))
        exchanges = simulate(children, config, directory, rate_scale=args.rate_scale, hold=True)
        config = with_exchange(config, {venue: one.url for venue, one in exchanges.items()})
        screen.print_line(
            "nats-server and the simulated exchange are up; starting Ray, which takes some seconds"
        )
        reader = children.enter_context(BackgroundAudit(config, Audit(gap_rule), from_start=True))
        with interrupts.interruptible():
            cluster = start_local(config, shared=False)
        with closing(cluster), screen:
            if interrupts.stop_requested:
                return 0
            return _Demo(cluster, config, exchanges, reader, screen, interrupts).run(args.seconds, flood)


@dataclass(frozen=True, slots=True)
class _Flood:
    venue: Venue
    stream: str
    rate_per_s: float


def _flood(config: Config, name: str | None, rate_per_s: float) -> _Flood | None:
    if name is None:
        return None
    for settings in config.streams:
        if settings.spec.name == name:
            return _Flood(settings.spec.venue, name, rate_per_s)
    known = ", ".join(one.spec.name for one in config.streams)
    raise UsageError(f"{name} is not in the configuration; --flood takes one of {known}")


class _Demo:
    """One run, from the first actor to the audit's result; every step ends early on a signal."""

    def __init__(
        self,
        cluster: RelayClient,
        config: Config,
        exchanges: Mapping[Venue, SimulatedExchange],
        reader: BackgroundAudit,
        screen: Screen,
        interrupts: Interrupts,
    ) -> None:
        self._cluster = cluster
        self._config = config
        self._exchanges = exchanges
        self._reader = reader
        self._screen = screen
        self._interrupts = interrupts
        self._status: RelayStatus | None = None

    def run(self, seconds: float, flood: _Flood | None) -> int:
        self._cluster.bring_up(self._config)
        try:
            self._await_ready()
            self._relay_traffic(seconds, flood)
            sent = self._stop_traffic()
            self._await_stored(sent)
            complete = self._reader.caught_up(READ_DEADLINE_S)
        finally:
            self._cluster.take_down(self._deadline(DRAIN_DEADLINE_S))
        return self._report(sent, complete=complete)

    def _await_ready(self) -> None:
        """Until every stream is subscribed and linked to a publisher, so that no event is sent before
        that.
        """
        begun = time.monotonic()
        while not self._interrupts.wait(POLL_S / 4):
            elapsed = time.monotonic() - begun
            status = self._update_screen(
                Progress(elapsed, READY_DEADLINE_S, "until every stream is connected")
            )
            waiting = self._waiting(status)
            if not waiting:
                break
            if elapsed > READY_DEADLINE_S:
                names = ", ".join(sorted(waiting))
                raise ClusterError(f"not connected within {READY_DEADLINE_S:.0f} s: {names}")
        for exchange in self._exchanges.values():
            exchange.start_traffic()

    def _waiting(self, status: RelayStatus | None) -> set[str]:
        linked = {one.key for one in status.streams if one.linked} if status else set()
        subscribed = {
            f"{venue}:{name}" for venue, one in self._exchanges.items() for name in one.subscribed()
        }
        return {one.spec.key for one in self._config.streams} - (linked & subscribed)

    def _relay_traffic(self, seconds: float, flood: _Flood | None) -> None:
        begun = time.monotonic()
        flooding = False
        while (elapsed := time.monotonic() - begun) < seconds and not self._interrupts.stop_requested:
            wanted = flood is not None and seconds / 3 <= elapsed < seconds * 2 / 3
            if flood is not None and wanted != flooding:
                flooding = wanted
                self._switch_flood(flood, on=wanted)
            note = f"flooding {flood.stream}" if flood and flooding else "relaying"
            self._update_screen(Progress(elapsed, seconds, note))
            self._interrupts.wait(min(POLL_S, seconds - elapsed))

    def _switch_flood(self, flood: _Flood, *, on: bool) -> None:
        exchange = self._exchanges[flood.venue]
        if on:
            exchange.flood(flood.stream, flood.rate_per_s)
        else:
            exchange.calm(flood.stream)

    def _stop_traffic(self) -> dict[str, Sent]:
        """The final report of what was sent, by the streams' keys."""
        return {
            f"{venue}:{name}": sent
            for venue, exchange in self._exchanges.items()
            for name, sent in exchange.stop_traffic(self._deadline(STOP_DEADLINE_S)).items()
        }

    def _await_stored(self, sent: Mapping[str, Sent]) -> None:
        """Until every sent event is stored or counted as conflated, progress ends, or a second signal
        comes.
        """
        total = sum(one.events for one in sent.values())
        best, moved_at = -1, time.monotonic()
        while not self._interrupts.hurried:
            conflated = self._conflated()
            audit = self._reader.audit
            # Healed events are left out: the exchange may have made them while no socket was open, uncounted.
            done = sum(audit.stored(key) - audit.healed(key) + conflated.get(key, 0) for key in sent)
            if done >= total:
                return
            if done > best:
                best, moved_at = done, time.monotonic()
            elif time.monotonic() - moved_at > NO_PROGRESS_S:
                return
            self._update_screen(Progress(done, total, "stored; the exchange has stopped", unit="events"))
            time.sleep(POLL_S / 4)

    def _report(self, sent: Mapping[str, Sent], *, complete: bool) -> int:
        if self._interrupts.stop_requested and not any(one.events for one in sent.values()):
            self._screen.print_line("stopped before the exchange sent anything")
            return 0
        audit = self._reader.audit
        keys = [one.spec.key for one in self._config.streams]
        sent_by_key = {key: Sent(0, "") for key in keys} | dict(sent)
        comparisons = compare(sent_by_key, audit.report(), self._conflated())
        passed = complete and not audit.malformed and all(one.passed for one in comparisons)
        # A stream without events proves nothing and fails the run, unless the run was cut short.
        passed = passed and (self._interrupts.stop_requested or all(one.sent for one in comparisons))
        for line in comparison_table(comparisons, width=self._screen.width, colour=self._screen.colour):
            self._screen.print_line(line)
        if not complete:
            self._screen.print_line(
                f"NATS did not deliver all it has stored within {READ_DEADLINE_S:.0f} s", Tone.BAD
            )
        self._screen.print_line(
            total_line(comparisons, audit, passed=passed), Tone.GOOD if passed else Tone.BAD
        )
        return 0 if passed else 1

    def _update_screen(self, progress: Progress) -> RelayStatus | None:
        """Draw the present status; None while the controller does not answer."""
        try:
            self._status = self._cluster.status()
        except ClusterError as error:
            self._screen.print_line(str(error), Tone.WARN)
            return None
        screen = self._screen
        lines = render(self._status, width=screen.width, colour=screen.colour, progress=progress)
        screen.draw(lines, f"{progress}: {summary_line(self._status, PLAIN_WIDTH)}", progress.note)
        return self._status

    def _conflated(self) -> dict[str, int]:
        """Events that overflow policies left out, by the streams' own counts."""
        streams = self._status.streams if self._status else ()
        return {one.key: one.conflated + one.dropped for one in streams}

    def _deadline(self, seconds: float) -> float:
        return HURRIED_S if self._interrupts.hurried else seconds
