"""Writes the loss ledger's entries and the reports of rejected payloads among a stream's records; pure."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from relay.binance.streams import StreamSpec
from relay.intake.gap_tracker import Interruption
from relay.intake.loss_entries import filled_entry, lost_entry
from relay.intake.sequencer import Sequencer
from relay.losses.entry import LossEntry
from relay.model.gap import FillOutcome, FillRange, Gap
from relay.model.record_batch import RecordKind
from relay.primitives.text import utc

MAX_RAW_BYTES = 64 * 1024
NO_IDS = "the stream has no ids that count its events"


class LossRecorder:
    """`subject` is where consumers find the events of the stream.

    `losses` counts the entries of lost events, and `lost` the events in them, as far as ids count events.
    """

    def __init__(self, spec: StreamSpec, sequencer: Sequencer, subject: str) -> None:
        self.losses = 0
        self.lost = 0
        self._spec = spec
        self._sequencer = sequencer
        self._subject = subject

    def record_gap(self, gap: Gap, ranges: Sequence[FillRange], reason: str) -> None:
        """The end of a gap: what REST gave, in `ranges`, is healed; the rest is lost, for this
        `reason`."""
        next_id = gap.first_id
        for filled in ranges:
            if filled.outcome is FillOutcome.UNREACHED:
                self._record_lost(gap, filled.first_id, filled.last_id, reason)
            else:
                self._write(filled_entry(self._spec.key, gap, filled, self._subject))
            next_id = filled.last_id + 1
        if next_id <= gap.last_id:
            self._record_lost(gap, next_id, gap.last_id, reason)

    def record_repair(self, gap: Gap, repaired: FillRange) -> None:
        """REST gave these ids after the gap was recorded as lost; what it does not have stays recorded so."""
        if repaired.outcome is not FillOutcome.UNREACHED:
            self._write(filled_entry(self._spec.key, gap, repaired, f"{self._subject}.repair"))

    def record_interruption(self, interruption: Interruption) -> None:
        cause, from_ns, to_ns = interruption
        self._write_lost(lost_entry(self._spec, None, cause, from_ns, to_ns, NO_IDS))

    def record_rejected(self, payload: bytes, recv_ns: int, reason: str) -> None:
        entry = {
            "stream": self._spec.key,
            "reason": reason,
            "bytes": len(payload),
            "at": utc(recv_ns),
            "raw": payload[:MAX_RAW_BYTES].decode("utf-8", errors="backslashreplace"),
        }
        self._sequencer.append_side_record(RecordKind.REJECTED, recv_ns, orjson.dumps(entry))

    def _record_lost(self, gap: Gap, first_id: int, last_id: int, reason: str) -> None:
        ids = first_id, last_id
        self._write_lost(lost_entry(self._spec, ids, gap.cause, gap.from_ns, gap.to_ns, reason))

    def _write_lost(self, entry: LossEntry) -> None:
        self.losses += 1
        self.lost += entry.count or 0
        self._write(entry)

    def _write(self, entry: LossEntry) -> None:
        self._sequencer.append_side_record(RecordKind.LOSS, entry.to_ns, entry.encode())
