"""A leg of a critical stream: warm at first, reading and remembering; hot once nobody else is.

There are two legs, the stream's actor and its twin, each with a socket of its own. The hot one is an ordinary
stream relay that also says what is stored. The warm one hears that and forgets as much. When the hot one dies
or stops, or steps aside since it lost its socket, the warm one goes on as the stream's next incarnation.
Whoever was hot before ends once it learns of it, and comes back as the warm one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from dataclasses import replace

from actors.standby.peer_links import Line
from actors.standby.replay_memory import WarmMemory
from actors.standby.step_down import Aside
from actors.standby.takeover import Takeover
from actors.stream.facade import StreamFace
from actors.stream.feed_keeper import FeedKeeper
from actors.stream.relay import (
    RATE_HALF_LIFE_S,
    TICK_S,
    StreamRelay,
    connect_gate,
    epoch_directory,
    journal_directory,
)
from relay.config import StreamSettings
from relay.errors import FencedError
from relay.journal.journal import Journal
from relay.model.assignment import Assignment
from relay.model.position import Point, point_of
from relay.model.stats import LegState, StreamState, StreamStats, WarmLeg
from relay.observability.metrics import LegMetrics
from relay.ports import Host
from relay.primitives.rate_meter import RateMeter
from relay.standby.election import Vigil
from relay.standby.peer_status import WORD_EVERY_S, Word

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05


class LegActor(StreamFace):
    def __init__(self, settings: StreamSettings, host: Host, twin: bool) -> None:
        super().__init__(settings, lambda: Leg(settings, host, twin=twin))


class Leg:
    """Everything of one leg, on one event loop. A `twin` differs from the stream's actor in names alone."""

    def __init__(self, settings: StreamSettings, host: Host, *, twin: bool) -> None:
        self.settings = settings
        self.name = random.getrandbits(62) + 1
        self.relay: StreamRelay | None = None
        self.takeovers = 0
        self._host = host
        self._twin = twin
        place = "twin" if twin else "stream"
        gate = connect_gate(settings, host, f"{settings.spec.key} {place}")
        self.feed = FeedKeeper(settings, gate, self._take, self._disconnected)
        self.memory = WarmMemory(settings, journal_directory(settings) / f"{place}.spool")
        self.vigil = Vigil(self.name)
        self.line = Line(settings.spec.key, self.name, host, self.vigil)
        self._journal_epoch = self._last_journal()
        self._takeover: Takeover | None = None
        self._aside: Aside | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._hot: Word | None = None
        self._hot_heard_at = 0.0
        self._drained = False
        self._received = 0
        self._rate = RateMeter(RATE_HALF_LIFE_S)
        self._metrics = LegMetrics(host.metrics, settings.spec.name)

    async def run(self) -> None:
        """Until `drain`; whatever fails here ends the process, and Ray starts the leg anew."""
        try:
            async with asyncio.TaskGroup() as group:
                feeding = group.create_task(self.feed.run())
                self._tasks = [
                    feeding,
                    group.create_task(self.line.run()),
                    group.create_task(self._look(group, feeding)),
                    group.create_task(self._tick()),
                ]
        finally:
            self.feed.close("stopping")
            self.line.close()
            self.memory.close()
            # The transports' last callbacks are due in the next turn of the loop.
            await asyncio.sleep(0)

    def assign(self, assignment: Assignment) -> None:
        self.line.assign(assignment)
        if self.relay is not None:
            self.relay.assign(assignment)

    @property
    def _accepting(self) -> StreamRelay | None:
        """The relay, once everything that was remembered is accepted."""
        return self.relay if self._takeover is not None and self._takeover.joined else None

    def _take(self, payloads: list[bytes], recv_ns: int) -> None:
        if self._aside is not None:
            self._aside.hold(payloads, recv_ns)
            return
        relay = self._accepting
        if relay is not None:
            relay.take(payloads, recv_ns)
            return
        seen = self.memory.take(payloads, recv_ns)
        if seen.events:
            self._received += seen.events
            self.feed.delivered()
        if seen.shutdown:
            self.feed.renew("the exchange announced its shutdown")

    def _disconnected(self) -> None:
        relay = self._accepting
        if relay is None:
            self.memory.broke()
        elif self._aside is not None:
            self._aside.broke()
        elif self._replaceable():
            self._aside = Aside(relay)
        else:
            relay.intake.disconnected()

    def _replaceable(self) -> bool:
        """The other leg could go on without a loss. A socket that ended while reading paused is no reason:
        that of the other leg would soon end for the same one."""
        partner = self.vigil.partner(time.monotonic())
        return partner is not None and partner.ready and not (self._drained or self.feed.paused)

    def _decide(self, aside: Aside) -> None:
        """Raises SteppedAsideError if the other leg still has its socket; reads are held until all ends."""
        if self._replaceable():
            aside.leave()
        self._aside = None
        aside.stay()

    async def _look(self, group: asyncio.TaskGroup, feeding: asyncio.Task[None]) -> None:
        said_at = float("-inf")
        while True:
            now = time.monotonic()
            if now - said_at >= WORD_EVERY_S:
                said_at = now
                self._hear(now)
                self.line.say(self._word())
            if self._aside is not None and self._aside.settled(now):
                self._decide(self._aside)
            if self.relay is not None:
                self._give_way(self.relay)
            elif self.vigil.must_take_over(self._word(), now, covers=self._covers()):
                self._take_over(group, feeding)
                said_at = float("-inf")
                continue
            await asyncio.sleep(LOOK_EVERY_S)

    def _hear(self, now: float) -> None:
        """What the hot leg said last."""
        hot = self.vigil.hot
        if hot is None or hot is self._hot:
            return
        self._hot, self._hot_heard_at = hot, now
        self.takeovers = max(self.takeovers, hot.takeovers)
        if self.relay is None:
            self.feed.spare = True
            self.memory.heard(hot, reading=self._reading)

    @property
    def _reading(self) -> bool:
        return self.feed.connected and not self.feed.paused

    def _covers(self) -> bool:
        """What is not remembered is in the journal, if that is the hot leg's own."""
        if self.memory.covers or self._hot is None:
            return self.memory.covers
        return self._last_journal() >= self._hot.epoch

    def _last_journal(self) -> int:
        """The newest epoch in the journal of this node; 0 if it has none."""
        directory = journal_directory(self.settings)
        return Journal.next_epoch(directory, 1) - 1 if self.settings.journal else 0

    def _word(self) -> Word:
        if self.relay is None:
            return Word(
                self.name,
                hot=False,
                ready=self.memory.covers and self._reading,
                reading=self._reading,
                takeovers=self.takeovers,
                journal=self._journal_epoch,
                since_ns=self.memory.since_ns,
            )
        window = self.relay.window
        held = window.queued + window.in_flight + window.books.spilled
        remembered = 0 if self._accepting else self.memory.count
        return Word(
            self.name,
            hot=True,
            reading=self._reading,
            epoch=self.relay.epoch,
            held=min(held + remembered, 2**32 - 1),
            takeovers=self.takeovers,
            stored=self._last_stored(self.relay),
        )

    def _last_stored(self, relay: StreamRelay) -> Point:
        last = relay.window.last_acknowledged
        if last is not None:
            return point_of(last)
        return self._takeover.stored if self._takeover else Point()

    def _give_way(self, relay: StreamRelay) -> None:
        """Raises FencedError once a later incarnation is known."""
        epoch = self.vigil.superseded_by(relay.epoch)
        if epoch is not None:
            raise FencedError(self.settings.spec.key, epoch)

    def _take_over(self, group: asyncio.TaskGroup, feeding: asyncio.Task[None]) -> None:
        hot = self._hot
        if hot is not None:
            self.takeovers += 1
            self._metrics.took_over()
            _log.warning("the hot leg, epoch %d, is gone; taking over", hot.epoch)
        self.feed.need()
        takeover = self._takeover = Takeover(self._next_epoch(hot), hot, self.memory, self.feed, feeding)
        takeover.silent_since = self._hot_heard_at
        self.relay = StreamRelay(self.settings, self._host, takeover)
        if self.line.assignment is not None:
            self.relay.assign(self.line.assignment)
        self._tasks.append(group.create_task(self.relay.run()))

    def _next_epoch(self, hot: Word | None) -> int:
        """Odd for a twin and even for the other, so that no two legs ever have the same."""
        least = max(time.time_ns() // 1_000_000, hot.epoch + 1 if hot else 0)
        epoch = Journal.next_epoch(epoch_directory(self.settings, self._host), least)
        return epoch + (epoch % 2 != self._twin)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._rate.update(self._received, time.monotonic())
            if self.relay is None:
                self.feed.check(time.monotonic())
                self._host.set_title(
                    f"ray::Stream {self.settings.spec.name} warm remembered={self.memory.count}"
                )
            else:
                partner = self.vigil.partner(time.monotonic())
                self._metrics.update(warm_ready=partner is not None and partner.ready)

    async def drain(self, deadline_s: float) -> StreamStats:
        """The other leg may take over afterwards, unless it is drained as well."""
        self._drained = True
        looking = self._tasks[2]
        looking.cancel()
        if self._aside is not None:
            self._decide(self._aside)
        if self.relay is not None:
            await self.relay.drain(deadline_s)
        self.feed.close("draining")
        for task in self._tasks:
            task.cancel()
        self.line.close()
        return self.stats()

    def stats(self) -> StreamStats:
        if self.relay is not None:
            return replace(self.relay.stats(), critical=True, takeovers=self.takeovers)
        return self._warm_stats()

    def _state(self) -> StreamState:
        if self._drained:
            return StreamState.STOPPED
        return StreamState.LIVE if self.feed.delivering else StreamState.CONNECTING

    def _warm_stats(self) -> StreamStats:
        """As a stream that has accepted nothing; `warm` tells what it remembers."""
        spec, feed, now = self.settings.spec, self.feed, time.monotonic()
        state = self._state()
        assignment = self.line.assignment
        ready = self.memory.covers and self._reading and not self._drained
        return StreamStats(
            stream=spec.name, venue=spec.venue.value, symbol=spec.symbol, channel=spec.channel, state=state,
            overflow=self.settings.overflow.value, epoch=0, pid=os.getpid(), node=self._host.node,
            publisher=None, linked=False, received=0, recovered=0, acknowledged=0, queued=0, in_flight=0,
            spilled=0, conflated=0, dropped=0, rejected=0, repeated=0, lost=0, healed=0, repaired=0,
            reconnects=feed.reconnects, rotations=feed.rotations, silences=feed.silences,
            unaligned=feed.unaligned, failovers=0, backlog_bytes=self.memory.memory_bytes, backlog_age_s=0.0,
            journal_bytes=0,
            last_data_age_s=None if feed.last_data_at is None else now - feed.last_data_at,
            rate_per_s=self._rate.rate_per_s, bytes_per_s=0.0,
            latency_p50_ms=None, latency_p99_ms=None, latency_max_ms=None,
            assignment_version=assignment.version if assignment else 0,
            subscribed_at_ns=feed.subscribed_at_ns, first_data_at_ns=feed.first_data_at_ns,
            last_error=feed.last_error, critical=True, leg=LegState.WARM, takeovers=self.takeovers,
            warm=WarmLeg(
                node=self._host.node, pid=os.getpid(), state=state, ready=ready,
                remembered=self.memory.count,
            ),
        )  # fmt: skip
