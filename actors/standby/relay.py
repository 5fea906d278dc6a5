"""An instance of a critical stream: at first a standby that reads and keeps events, later the active one.

There are two instances, the actor in the role `stream` and the one in the role `twin`, each with a connection
of its own. The active one is an ordinary stream relay that also sends the stored position. The standby
receives it and forgets the events up to it. When the active one dies, stops, or steps down because it lost
its connection, the standby continues as the stream's next incarnation. The former active instance ends once
it learns of that, and Ray starts it again as the standby.
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


class StandbyRelay:
    """Everything of one instance, on one event loop. A `twin` differs from the stream's actor only in its
    names, and in that its epochs are odd."""

    def __init__(self, settings: StreamSettings, host: Host, *, twin: bool) -> None:
        self.settings = settings
        self.instance_id = random.getrandbits(62) + 1
        self.relay: StreamRelay | None = None
        self.takeovers = 0
        self._host = host
        self._twin = twin
        role = "twin" if twin else "stream"
        gate = connect_gate(settings, host, f"{settings.spec.key} {role}")
        self.feed = FeedKeeper(settings, gate, self._on_read, self._on_disconnected)
        self.memory = ReplayMemory(settings, journal_directory(settings) / f"{role}.spool")
        self.election = Election(self.instance_id)
        self.peer_links = PeerLinks(settings.spec.key, self.instance_id, host, self.election)
        self._journal_epoch = self._last_journal()
        self._takeover: Takeover | None = None
        self._step_down: StepDown | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._active: PeerStatus | None = None
        self._active_status_at = 0.0
        self._drained = False
        self._received = 0
        self._rate = RateMeter(RATE_HALF_LIFE_S)
        self._metrics = LegMetrics(host.metrics, settings.spec.name)

    async def run(self) -> None:
        """Until `drain`. An error raised here ends the process, and Ray starts the instance again."""
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
        """The relay, once everything in the memory is accepted."""
        return self.relay if self._takeover is not None and self._takeover.joined else None

    def _on_read(self, payloads: list[bytes], recv_ns: int) -> None:
        if self._step_down is not None:
            self._step_down.hold(payloads, recv_ns)
            return
        relay = self._accepting
        if relay is not None:
            relay.accept(payloads, recv_ns)
            return
        result = self.memory.append(payloads, recv_ns)
        if result.events:
            self._received += result.events
            self.feed.delivered()
        if result.shutdown:
            self.feed.renew("the exchange announced its shutdown")

    def _on_disconnected(self) -> None:
        relay = self._accepting
        if relay is None:
            self.memory.mark_discontinuity()
        elif self._step_down is not None:
            self._step_down.mark_discontinuity()
        elif self._peer_can_take_over():
            self._step_down = StepDown(relay)
        else:
            relay.intake.disconnected()

    def _peer_can_take_over(self) -> bool:
        """Whether the peer could continue without a loss. A connection that ended while reading was paused is
        no reason to step down: the peer's would soon end for the same cause."""
        peer = self.election.peer(time.monotonic())
        return peer is not None and peer.ready and not (self._drained or self.feed.paused)

    def _finish_step_down(self, step_down: StepDown) -> None:
        """Raises SteppedDown if the peer still has its connection; what is read meanwhile is not accepted."""
        if self._peer_can_take_over():
            step_down.step_down()
        self._step_down = None
        step_down.resume()

    async def _monitor(self, group: asyncio.TaskGroup, feeding: asyncio.Task[None]) -> None:
        sent_at = float("-inf")
        while True:
            now = time.monotonic()
            if now - sent_at >= STATUS_INTERVAL_S:
                sent_at = now
                self._read_active_status(now)
                self.peer_links.broadcast(self._own_status())
            if self._step_down is not None and self._step_down.is_due(now):
                self._finish_step_down(self._step_down)
            if self.relay is not None:
                self._exit_if_superseded(self.relay)
            elif self.election.must_take_over(self._own_status(), now, covers=self._can_replay()):
                self._take_over(group, feeding)
                sent_at = float("-inf")
                continue
            await asyncio.sleep(MONITOR_INTERVAL_S)

    def _read_active_status(self, now: float) -> None:
        """Forget what the active instance says is stored, if its status is a new one."""
        active = self.election.active
        if active is None or active is self._active:
            return
        self._active, self._active_status_at = active, now
        self.takeovers = max(self.takeovers, active.takeovers)
        if self.relay is None:
            self.feed.low_priority = True
            self.memory.forget_stored(active, reading=self._reading)

    @property
    def _reading(self) -> bool:
        return self.feed.connected and not self.feed.paused

    def _can_replay(self) -> bool:
        """Whether everything after the stored position is in the memory, or in this node's journal because
        the active instance wrote it."""
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
        unacknowledged = window.queued + window.in_flight + window.counts.spilled
        if not self._accepting:
            unacknowledged += self.memory.count
        return PeerStatus(
            self.instance_id,
            active=True,
            reading=self._reading,
            epoch=self.relay.epoch,
            unacknowledged=min(unacknowledged, 2**32 - 1),
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
        active = self._active
        if active is not None:
            self.takeovers += 1
            self._metrics.took_over()
            _log.warning("the active instance, epoch %d, is gone; taking over", active.epoch)
        self.feed.expedite()
        self._takeover = Takeover(
            self._next_epoch(active),
            active,
            self.memory,
            self.feed,
            feeding,
            active_status_at=self._active_status_at,
        )
        self.relay = StreamRelay(self.settings, self._host, self._takeover)
        if self.peer_links.assignment is not None:
            self.relay.assign(self.peer_links.assignment)
        self._tasks.append(group.create_task(self.relay.run()))

    def _next_epoch(self, active: PeerStatus | None) -> int:
        """Odd for a twin and even for the stream's actor, so that the two never have the same."""
        least = max(time.time_ns() // 1_000_000, active.epoch + 1 if active else 0)
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
                peer = self.election.peer(time.monotonic())
                self._metrics.update(warm_ready=peer is not None and peer.ready)

    async def drain(self, deadline_s: float) -> StreamStats:
        """The peer may take over afterwards, unless it is drained as well."""
        self._drained = True
        monitoring = self._tasks[2]
        monitoring.cancel()
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
        return self._standby_stats()

    def _state(self) -> StreamState:
        if self._drained:
            return StreamState.STOPPED
        return StreamState.LIVE if self.feed.delivering else StreamState.CONNECTING

    def _standby_stats(self) -> StreamStats:
        """Those of a stream that has accepted nothing; `warm` says what the standby keeps."""
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
