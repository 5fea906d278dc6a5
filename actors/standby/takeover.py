"""How a standby instance continues where the active one ended: as the next incarnation, fed from its memory.

Three things are joined: what is stored, what the journal of this node holds after it, and what was read here.
The replay continues after the last event that was accepted before. If the ended instance had its journal on
this node, the journal names that event, and nothing waits for NATS. Otherwise NATS names it, once the fence
stops the ended instance from storing more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from actors.standby.replay_memory import ReplayMemory
from actors.stream.feed_keeper import FeedKeeper
from actors.stream.start import StartedRelay
from relay.binance.classifier import classify
from relay.model.position import NOTHING_STORED, StoredPosition, position_of
from relay.model.record_batch import NO_EVENT_ID, RecordBatch
from relay.standby.peer_status import PeerStatus
from relay.standby.replay_buffer import DISCONTINUITY, Entry, JoinQuality, ReplayPoint

_log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.02
# The last accepted event may still be on its way to the socket of this instance. If it has no id, an equal
# one may never come; if it has one, a later one always comes, unless the exchange restarts its numbering.
SEARCH_S, NUMBERED_SEARCH_S = 1.0, 10.0
# NATS answers within milliseconds, or not at all.
NATS_ANSWER_S = 0.5


@dataclass(frozen=True, slots=True)
class _LastAccepted:
    """The last event that was accepted before; `event` is the event itself, where the journal has it."""

    position: StoredPosition
    event: RecordBatch | None = None


class Takeover:
    """A `Start` from the replay `memory`. `active` is the last status of the instance that is taken over
    from, None if there was none; `active_status_at` is when it came (monotonic seconds), for the log. `feed`
    is the connection of this instance, which the task `feeding` runs.

    Once it has `joined`, everything in the memory is accepted, and what is read from then on goes to the
    relay. Use from one event loop.
    """

    def __init__(
        self,
        epoch: int,
        active: PeerStatus | None,
        memory: ReplayMemory,
        feed: FeedKeeper,
        feeding: asyncio.Task[None],
        *,
        active_status_at: float,
    ) -> None:
        self.epoch = epoch
        self.joined = False
        self._feed = feed
        self._active = active
        self._active_status_at = active_status_at
        self._memory = memory
        self._feeding = feeding
        self._journal_last: RecordBatch | None = None
        # Set when events are accepted before NATS has named the stored position.
        self._accepted_behind: StoredPosition | None = None
        self._position: asyncio.Future[StoredPosition] = asyncio.get_running_loop().create_future()

    @property
    def stored(self) -> StoredPosition:
        """The last event that is known to be stored, as long as this incarnation has stored none."""
        if self._position.done():
            return self._position.result()
        return self._active.stored if self._active else NOTHING_STORED

    def journal_recovered(self, last: RecordBatch | None) -> None:
        """The last event in the journal of this node."""
        self._journal_last = last

    def feed_for(self, relay: StartedRelay) -> FeedKeeper:
        return self._feed

    def position_known(self, relay: StartedRelay, stored: StoredPosition) -> None:
        """Where NATS has no stored position, the last status of the ended instance says what was
        acknowledged."""
        if self._position.done():
            return
        self._position.set_result(stored if stored.epoch else self.stored)
        before = self._accepted_behind
        # Where events have ids, the window compares those.
        if before is None or self._memory.numbered or before.epoch != stored.epoch:
            return
        # Events that were accepted here turn out to be stored, by the ended instance.
        if stored.seq > before.seq:
            relay.window.resume(StoredPosition(relay.epoch, stored.seq - before.seq))

    async def _last_accepted(self) -> _LastAccepted:
        last, active = self._journal_last, self._active
        in_journal = last is not None and active is not None and last.epoch >= active.epoch
        await asyncio.wait({self._position}, timeout=NATS_ANSWER_S if in_journal else None)
        stored = self.stored
        if last is not None and (last.epoch, last.seq) > stored.epoch_seq:
            return _LastAccepted(position_of(last), last)
        return _LastAccepted(stored)

    async def run(self, relay: StartedRelay) -> None:
        """Replay the memory from after the last accepted event, then continue to read until cancelled."""
        before = await self._last_accepted()
        point = await self._find_replay_point(before.position)
        self._accepted_behind = None if self._position.done() else before.position
        self._continue_behind(relay, before, point)
        events = await self._replay(relay, point)
        self._log_result(relay, events, point.quality)
        await self._feeding

    async def _find_replay_point(self, position: StoredPosition) -> ReplayPoint:
        search_s = NUMBERED_SEARCH_S if self._memory.numbered else SEARCH_S
        deadline = time.monotonic() + search_s
        while time.monotonic() < deadline:
            point = await self._memory.replay_point_after(position)
            if point is not None:
                return point
            await asyncio.sleep(POLL_INTERVAL_S)
        return await self._memory.replay_point_by_time(position)

    def _continue_behind(self, relay: StartedRelay, before: _LastAccepted, point: ReplayPoint) -> None:
        """Tell the intake which event comes directly before the first one that is replayed."""
        position = before.position
        if not position.seq:
            relay.intake.follow(NO_EVENT_ID, NO_EVENT_ID, 0, seamless=True)
            return
        exact = point.quality is JoinQuality.EXACT
        payload = before.event.payloads[0] if before.event else self._memory.payload_before(point)
        link_id = position.event_id
        if exact and payload:
            classification = classify(relay.settings.spec, payload)
            link_id = max(classification.event_id, classification.own_link_id)
        relay.intake.follow(position.event_id, link_id, position.recv_ns, seamless=exact)

    async def _replay(self, relay: StartedRelay, point: ReplayPoint) -> int:
        events = 0
        async for entries in self._memory.replay(point.entry_index):
            for read in _reads(entries):
                events += sum(entry.is_event for entry in read)
                if read[0].name == DISCONTINUITY:
                    relay.intake.disconnected()
                else:
                    relay.accept([entry.payload for entry in read], read[0].recv_ns)
        self.joined = True
        return events

    def _log_result(self, relay: StartedRelay, events: int, quality: JoinQuality) -> None:
        recovered, lost = relay.window.counts.recovered, relay.intake.lost
        if self._active is None:
            _log.info("active from the start: %d events from the journal, %d remembered", recovered, events)
            return
        gap = relay.intake.gap
        uncertain = quality is JoinQuality.BY_TIME or relay.intake.losses > lost
        _log.warning(
            "took over from epoch %d, %.2f s after its last status: %d events from its journal,"
            " %d remembered; %d lost%s%s",
            self._active.epoch,
            time.monotonic() - self._active_status_at,
            recovered,
            events,
            lost,
            f"; ids {gap.first_id} to {gap.last_id} are missing and asked for" if gap else "",
            "; events without ids may be missing or repeated" if uncertain else "",
        )


def _reads(entries: list[Entry]) -> list[list[Entry]]:
    """The entries grouped by the read that brought them, in order; each discontinuity is alone."""
    reads: list[list[Entry]] = []
    for entry in entries:
        same_connection = reads and entry.name != DISCONTINUITY and reads[-1][0].name != DISCONTINUITY
        if same_connection and reads[-1][0].recv_ns == entry.recv_ns:
            reads[-1].append(entry)
        else:
            reads.append([entry])
    return reads
