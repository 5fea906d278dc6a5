"""What a warm leg remembers, in memory and beyond it in a file, and how it is read back on a takeover."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from relay.config import StreamSettings
from relay.errors import JournalError
from relay.model.position import StoredPosition
from relay.standby.peer_status import PeerStatus
from relay.standby.replay_buffer import (
    DISCONTINUITY,
    AppendResult,
    Entry,
    JoinQuality,
    ReplayBuffer,
    ReplayPoint,
    replay_point_after,
    replay_point_by_time,
)
from relay.standby.spill_file import SpillFile

_log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
CHUNK_ENTRIES = 500


class ReplayMemory:
    """A ring over a spool, which there is where the stream has a journal. Use from one event loop."""

    def __init__(self, settings: StreamSettings, spool: Path) -> None:
        queue = settings.queue
        self._ring = ReplayBuffer(settings.spec, max_messages=queue.max_messages, max_bytes=queue.max_bytes)
        self._spool = SpillFile(spool, settings.journal_max_bytes) if settings.journal else None
        self._spooled = 0

    @property
    def covers(self) -> bool:
        return self._ring.covers

    @property
    def numbered(self) -> bool:
        return self._ring.numbered

    @property
    def since_ns(self) -> int:
        return self._ring.since_ns

    @property
    def count(self) -> int:
        return self._spooled + len(self._ring.entries)

    @property
    def memory_bytes(self) -> int:
        return self._ring.memory_bytes

    def append(self, payloads: list[bytes], recv_ns: int) -> AppendResult:
        seen = self._ring.append(payloads, recv_ns)
        evicted = self._ring.evict()
        if evicted:
            self._keep(evicted)
        return seen

    def _keep(self, evicted: list[Entry]) -> None:
        try:
            if self._spool is None:
                raise JournalError("there is no journal to spill to")
            self._spool.append(evicted)
        except JournalError as error:
            _log.warning("the warm leg does not remember all that it has read: %s", error)
            self._ring.evicted_lost()
            self._clear_spill_file()
        else:
            self._spooled += len(evicted)

    def mark_discontinuity(self) -> None:
        self._ring.mark_discontinuity()

    def forget_stored(self, word: PeerStatus, *, reading: bool) -> None:
        """Of the hot leg; `reading` says that this one has a connection."""
        if self._ring.forget_stored(word.stored, word.unacknowledged, reading=reading and word.reading):
            self._clear_spill_file()

    def _clear_spill_file(self) -> None:
        if self._spool is not None and self._spooled:
            try:
                self._spool.clear()
            except JournalError as error:
                _log.warning("%s", error)
            self._spooled = 0

    async def replay_point_after(self, point: StoredPosition) -> ReplayPoint | None:
        """Where to go on behind that event; None while it may be still to come."""
        if not self._spooled:
            return self._ring.replay_point_after(self._ring.entries, point)
        place = replay_point_after(self._ring.entries, point)
        if place is not None and place.quality is JoinQuality.EXACT:
            return ReplayPoint(self._spooled + place.entry_index, JoinQuality.EXACT)
        return self._ring.replay_point_after(await self._names(), point)

    async def replay_point_by_time(self, point: StoredPosition) -> ReplayPoint:
        return replay_point_by_time(await self._names(), point)

    def payload_before(self, place: ReplayPoint) -> bytes:
        """Of the entry that it comes behind; empty if there is none, or only in the file."""
        at = place.entry_index - 1 - self._spooled
        return self._ring.entries[at].payload if 0 <= at < len(self._ring.entries) else b""

    async def _names(self) -> Sequence[Entry]:
        """All entries, those in the file without their payloads."""
        found: list[Entry] = []
        at = 0
        while entries := self._read(at):
            found += [entry._replace(payload=b"") for entry in entries[0]]
            at = entries[1]
            await asyncio.sleep(0)
        return [*found, *self._ring.entries]

    def _read(self, at: int) -> tuple[list[Entry], int] | None:
        """The next entries of the file, and where to go on; None at its end."""
        if self._spool is None or at >= self._spool.bytes or not self._spooled:
            return None
        return self._spool.read(at, CHUNK_BYTES)

    async def replay(self, index: int) -> AsyncIterator[list[Entry]]:
        """Everything from that place on, until nothing is left that has come meanwhile."""
        at, skip = 0, index
        while chunk := self._next(at):
            entries, at = chunk
            yield entries[skip:]
            skip = max(0, skip - len(entries))
            await asyncio.sleep(0)
        self.close()

    def _next(self, at: int) -> tuple[list[Entry], int] | None:
        try:
            if (spooled := self._read(at)) is not None:
                return spooled
        except JournalError as error:
            _log.error("what the warm leg had beyond its memory is lost: %s", error)
            self._clear_spill_file()
            return [Entry(DISCONTINUITY, b"", 0)], at
        ring = self._ring
        popped = [ring.pop() for _ in range(min(CHUNK_ENTRIES, len(ring.entries)))]
        return (popped, at) if popped else None

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
