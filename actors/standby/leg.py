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

from actors.standby.peer_links import PeerLinks
from actors.standby.replay_memory import ReplayMemory
from actors.standby.step_down import StepDown
from actors.standby.takeover import Takeover
from actors.stream.facade import StreamActorFacade
from actors.stream.feed_keeper import FeedKeeper
from actors.stream.node_files import connect_gate, epoch_directory, journal_directory
from actors.stream.relay import TICK_S, StreamRelay
from actors.stream.stats import RATE_HALF_LIFE_S, idle_stats
from relay.config import StreamSettings
from relay.errors import FencedError
from relay.journal.journal import Journal
from relay.model.assignment import Assignment
from relay.model.position import StoredPosition, position_of
from relay.model.stats import LegState, StreamState, StreamStats, WarmLeg
from relay.observability.metric_recording import LegMetrics
from relay.ports import Host
from relay.primitives.rate_meter import RateMeter
from relay.standby.election import Election
from relay.standby.peer_status import STATUS_INTERVAL_S, PeerStatus

_log = logging.getLogger(__name__)

MONITOR_INTERVAL_S = 0.05


class LegActor(StreamActorFacade):
    def __init__(self, settings: StreamSettings, host: Host, twin: bool) -> None:
        super().__init__(settings, lambda: StandbyRelay(settings, host, twin=twin))


class StandbyRelay:
    """Everything of one leg, on one event loop. A `twin` differs from the stream's actor in names alone."""

    def __init__(self, settings: StreamSettings, host: Host, *, twin: bool) -> None:
        self.settings = settings
        self.instance_id = random.getrandbits(62) + 1
        self.relay: StreamRelay | None = None
        self.takeovers = 0
        self._host = host
        self._twin = twin
        place = "twin" if twin else "stream"
        gate = connect_gate(settings, host, f"{settings.spec.key} {place}")
        self.feed = FeedKeeper(settings, gate, self._take, self._disconnected)
        self.memory = ReplayMemory(settings, journal_directory(settings) / f"{place}.spool")
        self.election = Election(self.instance_id)
        self.peer_links = PeerLinks(settings.spec.key, self.instance_id, host, self.election)
        self._journal_epoch = self._last_journal()
        self._takeover: Takeover | None = None
        self._step_down: StepDown | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._active: PeerStatus | None = None
        self._active_heard_at = 0.0
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
                    group.create_task(self.peer_links.run()),
                    group.create_task(self._monitor(group, feeding)),
                    group.create_task(self._tick()),
                ]
        finally:
            self.feed.close("stopping")
            self.peer_links.close()
            self.memory.close()
            # The transports' last callbacks are due in the next turn of the loop.
            await asyncio.sleep(0)

    def assign(self, assignment: Assignment) -> None:
        self.peer_links.assign(assignment)
        if self.relay is not None:
            self.relay.assign(assignment)

    @property
    def _accepting(self) -> StreamRelay | None:
        """The relay, once everything that was remembered is accepted."""
        return self.relay if self._takeover is not None and self._takeover.joined else None

    def _take(self, payloads: list[bytes], recv_ns: int) -> None:
        if self._step_down is not None:
            self._step_down.hold(payloads, recv_ns)
            return
        relay = self._accepting
        if relay is not None:
            relay.accept(payloads, recv_ns)
            return
        seen = self.memory.append(payloads, recv_ns)
        if seen.events:
            self._received += seen.events
            self.feed.delivered()
        if seen.shutdown:
            self.feed.renew("the exchange announced its shutdown")

    def _disconnected(self) -> None:
        relay = self._accepting
        if relay is None:
            self.memory.mark_discontinuity()
        elif self._step_down is not None:
            self._step_down.mark_discontinuity()
        elif self._replaceable():
            self._step_down = StepDown(relay)
        else:
            relay.intake.disconnected()

    def _replaceable(self) -> bool:
        """The other leg could go on without a loss. A socket that ended while reading paused is no reason:
        that of the other leg would soon end for the same one."""
        partner = self.election.peer(time.monotonic())
        return partner is not None and partner.ready and not (self._drained or self.feed.paused)

    def _finish_step_down(self, aside: StepDown) -> None:
        """Raises SteppedDown if the other leg still has its socket; reads are held until all ends."""
        if self._replaceable():
            aside.step_down()
        self._step_down = None
        aside.resume()

    async def _monitor(self, group: asyncio.TaskGroup, feeding: asyncio.Task[None]) -> None:
        said_at = float("-inf")
        while True:
            now = time.monotonic()
            if now - said_at >= STATUS_INTERVAL_S:
                said_at = now
                self._read_active_status(now)
                self.peer_links.broadcast(self._own_status())
            if self._step_down is not None and self._step_down.settled(now):
                self._finish_step_down(self._step_down)
            if self.relay is not None:
                self._exit_if_superseded(self.relay)
            elif self.election.must_take_over(self._own_status(), now, covers=self._can_replay()):
                self._take_over(group, feeding)
                said_at = float("-inf")
                continue
            await asyncio.sleep(MONITOR_INTERVAL_S)

    def _read_active_status(self, now: float) -> None:
        """What the hot leg said last."""
        hot = self.election.active
        if hot is None or hot is self._active:
            return
        self._active, self._active_heard_at = hot, now
        self.takeovers = max(self.takeovers, hot.takeovers)
        if self.relay is None:
            self.feed.spare = True
            self.memory.forget_stored(hot, reading=self._reading)

    @property
    def _reading(self) -> bool:
        return self.feed.connected and not self.feed.paused

    def _can_replay(self) -> bool:
        """What is not remembered is in the journal, if that is the hot leg's own."""
        if self.memory.covers or self._active is None:
            return self.memory.covers
        return self._last_journal() >= self._active.epoch

    def _last_journal(self) -> int:
        """The newest epoch in the journal of this node; 0 if it has none."""
        directory = journal_directory(self.settings)
        return Journal.next_epoch(directory, 1) - 1 if self.settings.journal else 0

    def _own_status(self) -> PeerStatus:
        if self.relay is None:
            return PeerStatus(
                self.instance_id,
                active=False,
                ready=self.memory.covers and self._reading,
                reading=self._reading,
                takeovers=self.takeovers,
                journal_epoch=self._journal_epoch,
                since_ns=self.memory.since_ns,
            )
        window = self.relay.window
        held = window.queued + window.in_flight + window.counts.spilled
        remembered = 0 if self._accepting else self.memory.count
        return PeerStatus(
            self.instance_id,
            active=True,
            reading=self._reading,
            epoch=self.relay.epoch,
            unacknowledged=min(held + remembered, 2**32 - 1),
            takeovers=self.takeovers,
            stored=self._last_stored(self.relay),
        )

    def _last_stored(self, relay: StreamRelay) -> StoredPosition:
        last = relay.window.last_acknowledged
        if last is not None:
            return position_of(last)
        return self._takeover.stored if self._takeover else StoredPosition()

    def _exit_if_superseded(self, relay: StreamRelay) -> None:
        """Raises FencedError once a later incarnation is known."""
        epoch = self.election.superseded_by(relay.epoch)
        if epoch is not None:
            raise FencedError(self.settings.spec.key, epoch)

    def _take_over(self, group: asyncio.TaskGroup, feeding: asyncio.Task[None]) -> None:
        hot = self._active
        if hot is not None:
            self.takeovers += 1
            self._metrics.took_over()
            _log.warning("the hot leg, epoch %d, is gone; taking over", hot.epoch)
        self.feed.expedite()
        takeover = self._takeover = Takeover(self._next_epoch(hot), hot, self.memory, self.feed, feeding)
        takeover.silent_since = self._active_heard_at
        self.relay = StreamRelay(self.settings, self._host, takeover)
        if self.peer_links.assignment is not None:
            self.relay.assign(self.peer_links.assignment)
        self._tasks.append(group.create_task(self.relay.run()))

    def _next_epoch(self, hot: PeerStatus | None) -> int:
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
                partner = self.election.peer(time.monotonic())
                self._metrics.update(warm_ready=partner is not None and partner.ready)

    async def drain(self, deadline_s: float) -> StreamStats:
        """The other leg may take over afterwards, unless it is drained as well."""
        self._drained = True
        looking = self._tasks[2]
        looking.cancel()
        if self._step_down is not None:
            self._finish_step_down(self._step_down)
        if self.relay is not None:
            await self.relay.drain(deadline_s)
        self.feed.close("draining")
        for task in self._tasks:
            task.cancel()
        self.peer_links.close()
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
        """As a stream that has accepted nothing; `warm` says what it remembers."""
        state, node = self._state(), self._host.node
        ready = self.memory.covers and self._reading and not self._drained
        return replace(
            idle_stats(self.settings, self._host, self.feed, self.peer_links.assignment, state),
            backlog_bytes=self.memory.memory_bytes,
            rate_per_s=self._rate.rate_per_s,
            critical=True,
            leg=LegState.WARM,
            takeovers=self.takeovers,
            warm=WarmLeg(node=node, pid=os.getpid(), state=state, ready=ready, remembered=self.memory.count),
        )
