"""What a standby instance keeps, in memory and in a spill file, and how it is read back on a takeover."""

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
    """A replay buffer and, if the stream has a journal, a spill file for what the buffer evicts. Use from one
    event loop."""

    def __init__(self, settings: StreamSettings, spill_path: Path) -> None:
        queue = settings.queue
        self._buffer = ReplayBuffer(settings.spec, max_messages=queue.max_messages, max_bytes=queue.max_bytes)
        self._spill_file = SpillFile(spill_path, settings.journal_max_bytes) if settings.journal else None
        self._spilled = 0

    @property
    def covers(self) -> bool:
        return self._buffer.covers

    @property
    def numbered(self) -> bool:
        return self._buffer.numbered

    @property
    def since_ns(self) -> int:
        return self._buffer.since_ns

    @property
    def count(self) -> int:
        return self._spilled + len(self._buffer.entries)

    @property
    def memory_bytes(self) -> int:
        return self._buffer.memory_bytes

    def append(self, payloads: list[bytes], recv_ns: int) -> AppendResult:
        result = self._buffer.append(payloads, recv_ns)
        evicted = self._buffer.evict()
        if evicted:
            self._spill(evicted)
        return result

    def _spill(self, evicted: list[Entry]) -> None:
        try:
            if self._spill_file is None:
                raise JournalError("there is no journal to spill to")
            self._spill_file.append(evicted)
        except JournalError as error:
            _log.warning("the standby instance does not remember all that it has read: %s", error)
            self._buffer.evicted_lost()
            self._clear_spill_file()
        else:
            self._spilled += len(evicted)

    def mark_discontinuity(self) -> None:
        self._buffer.mark_discontinuity()

    def forget_stored(self, status: PeerStatus, *, reading: bool) -> None:
        """By the active instance's `status`; `reading` says that this instance has a connection."""
        if self._buffer.forget_stored(
            status.stored, status.unacknowledged, reading=reading and status.reading
        ):
            self._clear_spill_file()

    def _clear_spill_file(self) -> None:
        if self._spill_file is not None and self._spilled:
            try:
                self._spill_file.clear()
            except JournalError as error:
                _log.warning("%s", error)
            self._spilled = 0

    async def replay_point_after(self, position: StoredPosition) -> ReplayPoint | None:
        """Where to continue after the event at `position`; None while that event may still arrive."""
        if not self._spilled:
            return self._buffer.replay_point_after(self._buffer.entries, position)
        found = replay_point_after(self._buffer.entries, position)
        if found is not None and found.quality is JoinQuality.EXACT:
            return ReplayPoint(self._spilled + found.entry_index, JoinQuality.EXACT)
        return self._buffer.replay_point_after(await self._all_names(), position)

    async def replay_point_by_time(self, position: StoredPosition) -> ReplayPoint:
        return replay_point_by_time(await self._all_names(), position)

    def payload_before(self, point: ReplayPoint) -> bytes:
        """Of the entry before `point`; empty if there is none, or only in the file."""
        index = point.entry_index - 1 - self._spilled
        return self._buffer.entries[index].payload if 0 <= index < len(self._buffer.entries) else b""

    async def _all_names(self) -> Sequence[Entry]:
        """All entries, those in the file without their payloads."""
        names: list[Entry] = []
        at = 0
        while entries := self._read(at):
            names += [entry._replace(payload=b"") for entry in entries[0]]
            at = entries[1]
            await asyncio.sleep(0)
        return [*names, *self._buffer.entries]

    def _read(self, at: int) -> tuple[list[Entry], int] | None:
        """The next entries of the file, and the byte where to continue; None at its end."""
        if self._spill_file is None or at >= self._spill_file.bytes or not self._spilled:
            return None
        return self._spill_file.read(at, CHUNK_BYTES)

    async def replay(self, index: int) -> AsyncIterator[list[Entry]]:
        """Everything from entry `index` on, in pieces, including what is appended meanwhile; ends once none
        is left."""
        at, skip = 0, index
        while chunk := self._next(at):
            entries, at = chunk
            yield entries[skip:]
            skip = max(0, skip - len(entries))
            await asyncio.sleep(0)
        self.close()

    def _next(self, at: int) -> tuple[list[Entry], int] | None:
        try:
            if (spilled := self._read(at)) is not None:
                return spilled
        except JournalError as error:
            _log.error("what the standby instance had spilled to its file is lost: %s", error)
            self._clear_spill_file()
            return [Entry(DISCONTINUITY, b"", 0)], at
        buffer = self._buffer
        popped = [buffer.pop() for _ in range(min(CHUNK_ENTRIES, len(buffer.entries)))]
        return (popped, at) if popped else None

    def close(self) -> None:
        if self._spill_file is not None:
            self._spill_file.close()
