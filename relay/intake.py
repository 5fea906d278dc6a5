"""From payloads to records: every frame is checked, numbered, counted and handed to the window; pure.

`seq` counts the events of this epoch from 1, `offset` counts all records of the stream for ever. An event
whose exchange id was accepted before is a repeat: it is counted and goes nowhere. A hole in ids that name
their predecessor becomes a loss record; so does a spell without a connection on a stream without such ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from relay.frames import FrameClassifier, Outcome, Verdict
from relay.record import NO_EVENT_ID, Kind, encode
from relay.streams import StreamKind, StreamSpec
from relay.window import Admission, Held, Window

# Each id is one event: the size of a hole is a count of events. Depth updates number price levels instead.
_COUNTABLE = frozenset({StreamKind.TRADE, StreamKind.AGG_TRADE})
MAX_RAW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Taken:
    """What one read came to. `journal` is to be appended in one piece, up to record `last_offset`."""

    journal: bytes
    last_offset: int
    accepted: int
    shutdown: bool


class _First(NamedTuple):
    """Of the first event of this incarnation."""

    previous_id: int
    recv_ns: int


class Intake:
    """`last_event_id` is the newest id of an earlier incarnation, where the journal still knew it."""

    def __init__(
        self,
        spec: StreamSpec,
        window: Window,
        *,
        epoch: int,
        last_offset: int = 0,
        last_event_id: int = NO_EVENT_ID,
    ) -> None:
        self.lost = 0
        self.losses = 0
        self.received_bytes = 0
        self._classify = FrameClassifier(spec)
        self._spec = spec
        self._window = window
        self._epoch = epoch
        self._offset = last_offset
        self._seq = 0
        self._last_id = last_event_id
        # Ids from here to `_last_id` have all been accepted: one of them again is a repeat.
        self._run_start = last_event_id
        self._last_recv_ns = 0
        self._dark_since_ns: int | None = None
        self._pending: list[bytes] = []
        self._predecessor_known = last_event_id != NO_EVENT_ID
        self._first: _First | None = None

    def preceded_by(self, event_id: int, recv_ns: int) -> Taken:
        """The last event that is stored of earlier incarnations: what came between it and our first is lost.

        Call when NATS told; it may have been known from the journal, or our first event may be here already.
        """
        if self._predecessor_known:
            return self.take([], recv_ns)
        self._predecessor_known = True
        first = self._first
        if first is None:
            self._dark_since_ns = recv_ns
            self._run_start = self._last_id = event_id
        elif event_id == NO_EVENT_ID:
            self._lose(None, None, "disconnect", recv_ns, first.recv_ns)
        elif first.previous_id > event_id:
            self._lose(event_id + 1, first.previous_id, "disconnect", recv_ns, first.recv_ns)
        return self.take([], recv_ns)

    def disconnected(self) -> None:
        """The connection ended; call once for each."""
        if self._last_recv_ns and self._dark_since_ns is None:
            self._dark_since_ns = self._last_recv_ns

    def take(self, payloads: list[bytes], recv_ns: int) -> Taken:
        accepted = 0
        shutdown = False
        for payload in payloads:
            self.received_bytes += len(payload)
            verdict = self._classify(payload)
            if verdict.outcome is Outcome.ACCEPTED:
                accepted += self._accept(payload, recv_ns, verdict)
            elif verdict.outcome is Outcome.REJECTED:
                self._reject(payload, recv_ns, verdict.reason)
            elif verdict.outcome is Outcome.SHUTDOWN:
                shutdown = True
        journal = b"".join(self._pending)
        self._pending.clear()
        return Taken(journal, self._offset, accepted, shutdown)

    def _accept(self, payload: bytes, recv_ns: int, verdict: Verdict) -> bool:
        if verdict.event_id != NO_EVENT_ID and self._is_repeat(verdict):
            self._window.books.repeated += 1
            return False
        self._note_loss(verdict, recv_ns)
        if verdict.event_id != NO_EVENT_ID:
            self._last_id = verdict.event_id
        if self._first is None:
            self._first = _First(verdict.previous_id, recv_ns)
        self._last_recv_ns = recv_ns
        self._seq += 1
        self._offer(Kind.EVENT, recv_ns, verdict.event_id, payload, verdict.conflatable)
        return True

    def _is_repeat(self, verdict: Verdict) -> bool:
        if self._run_start <= verdict.event_id <= self._last_id:
            return True
        if verdict.event_id < self._run_start or verdict.previous_id != self._last_id:
            self._run_start = verdict.event_id
        return False

    def _note_loss(self, verdict: Verdict, recv_ns: int) -> None:
        """What was missed before this event: by its ids where they tell, else only by the clock."""
        dark_since_ns, self._dark_since_ns = self._dark_since_ns, None
        known = verdict.previous_id != NO_EVENT_ID and self._last_id != NO_EVENT_ID
        if known and verdict.previous_id > self._last_id:
            cause = "upstream" if dark_since_ns is None and self._last_recv_ns else "disconnect"
            since_ns = dark_since_ns or self._last_recv_ns or recv_ns
            self._lose(self._last_id + 1, verdict.previous_id, cause, since_ns, recv_ns)
        elif dark_since_ns is not None and not known:
            self._lose(None, None, "disconnect", dark_since_ns, recv_ns)

    def _lose(self, first_id: int | None, last_id: int | None, cause: str, from_ns: int, to_ns: int) -> None:
        self.losses += 1
        count = None
        if first_id is not None and last_id is not None and self._spec.kind in _COUNTABLE:
            count = last_id - first_id + 1
            self.lost += count
        entry = {
            "stream": self._spec.key,
            "first_id": first_id,
            "last_id": last_id,
            "count": count,
            "cause": cause,
            "from": _utc(from_ns),
            "to": _utc(to_ns),
            "healed": False,
        }
        self._offer(Kind.LOSS, to_ns, NO_EVENT_ID, orjson.dumps(entry), False)

    def _reject(self, payload: bytes, recv_ns: int, reason: str) -> None:
        self._window.books.received += 1
        self._window.books.rejected += 1
        self._report_rejected(payload, recv_ns, reason)

    def refused(self, payload: bytes, recv_ns: int, reason: str) -> Taken:
        """NATS can never take an accepted event, which the window has counted as rejected: report it."""
        self._report_rejected(payload, recv_ns, reason)
        return self.take([], recv_ns)

    def _report_rejected(self, payload: bytes, recv_ns: int, reason: str) -> None:
        entry = {
            "stream": self._spec.key,
            "reason": reason,
            "bytes": len(payload),
            "at": _utc(recv_ns),
            "raw": payload[:MAX_RAW_BYTES].decode("utf-8", errors="backslashreplace"),
        }
        self._offer(Kind.REJECTED, recv_ns, NO_EVENT_ID, orjson.dumps(entry), False)

    def _offer(self, kind: Kind, recv_ns: int, event_id: int, payload: bytes, conflatable: bool) -> None:
        self._offset += 1
        encoded = encode(kind, self._offset, self._epoch, self._seq, recv_ns, event_id, payload)
        held = Held(self._offset, recv_ns, encoded, kind is Kind.EVENT, conflatable)
        if self._window.offer(held) is not Admission.DROPPED:
            self._pending.append(encoded)


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
