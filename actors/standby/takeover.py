"""How a warm leg goes on where the hot one left off: as the next incarnation, fed from what it remembers.

Three things have to meet: what is stored, what the journal of this node holds behind it, and what was read
here. The last event that was accepted before is the seam. If the hot leg had its journal here, the journal
names it, and nothing waits for NATS; else NATS does, once the fence keeps the hot leg from storing more.
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
# The event at the seam may still be on its way to this leg's socket. Where it has no id, another one that is
# equal may never come; where it has one, a later one always does, unless the exchange counts anew.
SEARCH_S, NUMBERED_SEARCH_S = 1.0, 10.0
# NATS answers within milliseconds, if at all.
NATS_ANSWER_S = 0.5


@dataclass(frozen=True, slots=True)
class _LastAccepted:
    """The event at the seam. `event` is it itself, where the journal has it."""

    point: StoredPosition
    event: RecordBatch | None = None


class Takeover:
    """`hot` is the last word of the leg that is taken over from, None if there was none.

    Once it has `joined`, all that was remembered is accepted, and what is read from then on is the relay's.
    Use from one event loop.
    """

    def __init__(
        self,
        epoch: int,
        hot: PeerStatus | None,
        memory: ReplayMemory,
        feed: FeedKeeper,
        feeding: asyncio.Task[None],
    ) -> None:
        self.epoch = epoch
        self._feed = feed
        self.joined = False
        self.silent_since = time.monotonic()
        self._active = hot
        self._memory = memory
        self._feeding = feeding
        self._found: RecordBatch | None = None
        # Set when events are accepted before NATS has told.
        self._accepted_behind: StoredPosition | None = None
        self._told: asyncio.Future[StoredPosition] = asyncio.get_running_loop().create_future()

    @property
    def stored(self) -> StoredPosition:
        """The last event that is known to be stored, as long as this incarnation has stored none."""
        if self._told.done():
            return self._told.result()
        return self._active.stored if self._active else NOTHING_STORED

    def journal_recovered(self, last: RecordBatch | None) -> None:
        """The last event in the journal of this node."""
        self._found = last

    def feed_for(self, relay: StartedRelay) -> FeedKeeper:
        return self._feed

    def position_known(self, relay: StartedRelay, stored: StoredPosition) -> None:
        """What NATS says is stored last. Where it cannot tell, the hot leg has told what was acknowledged."""
        if self._told.done():
            return
        self._told.set_result(stored if stored.epoch else self.stored)
        before = self._accepted_behind
        # Where events have ids, the ids say which of them are stored already.
        if before is None or self._memory.numbered or before.epoch != stored.epoch:
            return
        if stored.seq > before.seq:
            relay.window.resume(StoredPosition(relay.epoch, stored.seq - before.seq))

    async def _last_accepted(self) -> _LastAccepted:
        """The last event that was accepted before."""
        found, hot = self._found, self._active
        is_hot_legs = found is not None and hot is not None and found.epoch >= hot.epoch
        await asyncio.wait({self._told}, timeout=NATS_ANSWER_S if is_hot_legs else None)
        stored = self.stored
        if found is not None and (found.epoch, found.seq) > stored.epoch_seq:
            return _LastAccepted(position_of(found), found)
        return _LastAccepted(stored)

    async def run(self, relay: StartedRelay) -> None:
        """Join, then read on, for ever."""
        before = await self._last_accepted()
        place = await self._find_replay_point(before.point)
        self._accepted_behind = None if self._told.done() else before.point
        self._follow(relay, before, place)
        events = await self._replay(relay, place)
        self._log_result(relay, events, place.quality)
        await self._feeding

    async def _find_replay_point(self, point: StoredPosition) -> ReplayPoint:
        lag_s = NUMBERED_SEARCH_S if self._memory.numbered else SEARCH_S
        deadline = time.monotonic() + lag_s
        while time.monotonic() < deadline:
            place = await self._memory.replay_point_after(point)
            if place is not None:
                return place
            await asyncio.sleep(POLL_INTERVAL_S)
        return await self._memory.replay_point_by_time(point)

    def _follow(self, relay: StartedRelay, before: _LastAccepted, place: ReplayPoint) -> None:
        point = before.point
        if not point.seq:
            relay.intake.follow(NO_EVENT_ID, NO_EVENT_ID, 0, seamless=True)
            return
        payload = before.event.payloads[0] if before.event else self._memory.payload_before(place)
        link_id = point.event_id
        if place.quality is JoinQuality.EXACT and payload:
            verdict = classify(relay.settings.spec, payload)
            link_id = max(verdict.event_id, verdict.own_link_id)
        seamless = place.quality is JoinQuality.EXACT
        relay.intake.follow(point.event_id, link_id, point.recv_ns, seamless=seamless)

    async def _replay(self, relay: StartedRelay, place: ReplayPoint) -> int:
        events = 0
        async for entries in self._memory.replay(place.entry_index):
            for read in _reads(entries):
                events += sum(entry.is_event for entry in read)
                if read[0].name == DISCONTINUITY:
                    relay.intake.disconnected()
                else:
                    relay.accept([entry.payload for entry in read], read[0].recv_ns)
        self.joined = True
        return events

    def _log_result(self, relay: StartedRelay, events: int, seam: JoinQuality) -> None:
        recovered, lost = relay.window.counts.recovered, relay.intake.lost
        if self._active is None:
            _log.info("hot, as nobody was: %d events from the journal, %d remembered", recovered, events)
            return
        hole = relay.intake.gap
        torn = seam is JoinQuality.BY_TIME or relay.intake.losses > lost
        _log.warning(
            "took over from epoch %d, %.2f s after its last word: %d events from its journal, %d remembered;"
            " %d lost%s%s",
            self._active.epoch,
            time.monotonic() - self.silent_since,
            recovered,
            events,
            lost,
            f"; ids {hole.first_id} to {hole.last_id} are missing and asked for" if hole else "",
            "; events without ids may be missing or repeated" if torn else "",
        )


def _reads(entries: list[Entry]) -> list[list[Entry]]:
    """What was read together, in order; each break is alone."""
    reads: list[list[Entry]] = []
    for entry in entries:
        fits = reads and entry.name != DISCONTINUITY and reads[-1][0].name != DISCONTINUITY
        if fits and reads[-1][0].recv_ns == entry.recv_ns:
            reads[-1].append(entry)
        else:
            reads.append([entry])
    return reads
