"""From payloads to batches: every frame is checked, numbered, counted and handed to the window; pure.

Events that were read together and plainly are the next ones become one batch, which costs little for each
of them. An event whose exchange id was accepted before is a repeat: it is counted and goes nowhere. A hole in
ids that name their predecessor becomes a loss record; so does a spell without a connection on a stream
without such ids.

Where REST can heal, a hole first holds up what was read behind it, so that what REST gives comes in its
place. Held payloads are not accepted yet: a kill loses them, and the next incarnation finds the same hole,
but longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from relay.binance.classifier import Classification, PayloadClass, PayloadClassifier
from relay.binance.event_time import event_time_ns
from relay.binance.streams import StreamSpec
from relay.delivery.buffered_batch import BufferedBatch
from relay.delivery.window import SendWindow
from relay.intake.gap_hold import GapHold, HeldPayload
from relay.intake.loss_entries import lost_entry, settled_entry
from relay.intake.sequencer import Sequencer
from relay.journal.damage import JournalLoss
from relay.losses.entry import LossEntry
from relay.model.gap import FillOutcome, FillRange, Gap, LossCause, coalesce
from relay.model.record_batch import FULL_BYTES, MAX_RECORDS, NO_EVENT_ID, RecordKind
from relay.primitives.range_set import RangeSet
from relay.primitives.text import utc

MAX_RAW_BYTES = 64 * 1024
# A stream whose ids count nothing begins a run with each event.
MAX_RUNS = 1000
NOT_HEALABLE = "REST gives no events of this kind by their ids"
NO_IDS = "the stream has no ids that count its events"
HEALING_OFF = "exchange.heal is off"
TOO_MUCH = "too much was read while REST was asked; what it gives later goes to the subject of repairs"


class IntakeResult(NamedTuple):
    """What one call came to. `journal` is to be appended in one piece, up to record `last_offset`.

    `held` events of this call wait for their predecessors. `hole` is one that was found in it and that REST
    may heal: in its place as long as it is `Intake.hole`, else beside the stream.
    """

    journal: bytes
    last_offset: int
    accepted: int
    shutdown: bool
    held: int = 0
    gap: Gap | None = None


class _First(NamedTuple):
    """Of the first event of this incarnation."""

    previous_id: int
    recv_ns: int
    payload: bytes


class Intake:
    """`last_event_id` is the newest id of an earlier incarnation, where the journal still knew it, and
    `last_event_ns` when that event was sent.

    With `heals` somebody asks REST about each `Taken.hole`. `subject` is where consumers find the events.
    """

    def __init__(
        self,
        spec: StreamSpec,
        window: SendWindow,
        *,
        epoch: int,
        last_offset: int = 0,
        last_event_id: int = NO_EVENT_ID,
        last_event_ns: int = 0,
        heals: bool = False,
        subject: str = "",
    ) -> None:
        self.lost = 0
        self.losses = 0
        self.healed = 0
        self.repaired = 0
        self.received_bytes = 0
        self._classify = PayloadClassifier(spec)
        self._spec = spec
        self._window = window
        self._sequencer = Sequencer(window, epoch, last_offset)
        self._last_id = last_event_id
        # What a later event must name as its predecessor: the last id, also where that is not unique.
        self._last_link = last_event_id
        # Ids from here to `_last_id` have all been accepted, and those before a hole: one again is a repeat.
        self._run_start = last_event_id
        self._earlier_runs = RangeSet()
        self._last_recv_ns = 0
        self._last_payload = b""
        self._disconnected_since_ns: int | None = last_event_ns or None
        self._set_back_ns = 0
        self._predecessor_known = last_event_id != NO_EVENT_ID
        self._first: _First | None = None
        self._heals = heals and spec.healable
        self._subject = subject
        self._hold_buffer = GapHold(None) if self._heals and not self._predecessor_known else None
        self._found: Gap | None = None
        self._held = 0

    @property
    def gap(self) -> Gap | None:
        """The one that holds up later events; None if there is none, or if it is not known yet."""
        return self._hold_buffer.gap if self._hold_buffer else None

    @property
    def holding(self) -> bool:
        return self._hold_buffer is not None

    def preceded_by(self, event_id: int, at_ns: int) -> IntakeResult:
        """The last event that is stored of earlier incarnations: what came between it and our first is lost.

        Call when NATS told, with 0 for `at_ns` if nothing is stored; it may have been known from the
        journal, or our first event may be here already.
        """
        if self._predecessor_known:
            return self._result()
        self._predecessor_known = True
        if at_ns:
            self._follow_on(event_id, at_ns)
        if self._hold_buffer is not None and self._hold_buffer.gap is None:
            self._release()
        return self._result()

    def follow(self, event_id: int, link_id: int, recv_ns: int, *, seamless: bool) -> None:
        """Go on behind this event of another incarnation; call before anything is taken.

        `link_id` is what the next event names as its predecessor. Unless it is `seamless`, what came between
        the two may be missing: where ids do not tell, that is written down.
        """
        self._predecessor_known = True
        self._hold_buffer = None
        self._run_start = self._last_id = event_id
        self._last_link = link_id
        self._last_recv_ns = recv_ns
        self._disconnected_since_ns = None if seamless else recv_ns or None

    def _follow_on(self, event_id: int, at_ns: int) -> None:
        first = self._first
        if first is None:
            self._disconnected_since_ns = at_ns
            self._run_start = self._last_id = self._last_link = event_id
        elif event_id == NO_EVENT_ID:
            self._lose(None, None, LossCause.DISCONNECT, at_ns, first.recv_ns, NO_IDS)
        elif first.previous_id > event_id:
            hole = Gap(
                first_id=event_id + 1,
                last_id=first.previous_id,
                cause=LossCause.DISCONNECT,
                from_ns=at_ns,
                to_ns=first.recv_ns,
                sample=first.payload,
            )
            self._report_missed(hole)

    def journal_lost(self, tear: JournalLoss) -> IntakeResult:
        """Damage to the journal took accepted events, behind which others are on their way already."""
        after = tear.after
        last_id = self._last_id if after is None else self._classify(after.payloads[0]).previous_id
        to_ns = self._last_recv_ns if after is None else after.recv_ns
        if NO_EVENT_ID in (last_id, tear.before_id):
            self._lose(None, None, LossCause.JOURNAL, tear.before_ns or to_ns, to_ns, NO_IDS)
        elif last_id > tear.before_id:
            hole = Gap(
                first_id=tear.before_id + 1,
                last_id=last_id,
                cause=LossCause.JOURNAL,
                from_ns=tear.before_ns,
                to_ns=to_ns,
                sample=b"" if after is None else after.payloads[0],
            )
            self._report_missed(hole)
        return self._result()

    def _report_missed(self, hole: Gap) -> None:
        """What comes behind the hole is accepted already."""
        if self._heals:
            self._found = hole
            self._lose_gap(hole.first_id, hole, "events behind it were accepted first")
        else:
            self._lose_gap(hole.first_id, hole, HEALING_OFF if self._spec.healable else NOT_HEALABLE)

    def disconnected(self) -> None:
        """The connection ended; call once for each."""
        if self._hold_buffer is not None:
            self._hold_buffer.disconnected()
        elif self._last_recv_ns and self._disconnected_since_ns is None:
            self._disconnected_since_ns = event_time_ns(self._last_payload, self._last_recv_ns)

    def clock_set_back(self, by_ns: int) -> None:
        """Call before what is read by the new clock: the spell before it is to be covered in both."""
        self._set_back_ns += by_ns
        if self._last_recv_ns:
            self._last_recv_ns -= by_ns
        if self._disconnected_since_ns is not None:
            self._disconnected_since_ns -= by_ns

    def accept_fast(self, payloads: list[bytes], recv_ns: int) -> BufferedBatch | None:
        """The short way, for events that plainly are the next ones and have room: numbered and encoded, to be
        given to the window by the caller. None, and nothing done, if any needs more thought: see `take`."""
        count = len(payloads)
        if self._hold_buffer is not None or self._first is None or self._set_back_ns or count > MAX_RECORDS:
            return None
        size = sum(map(len, payloads))
        if size > FULL_BYTES or not self._window.has_room(count):
            return None
        event_ids = self._classify.event_ids(payloads)
        if event_ids is None:
            return None
        first, last = event_ids[0], event_ids[-1]
        if first == NO_EVENT_ID:
            if self._disconnected_since_ns is not None:
                return None
        elif (
            first != self._last_id + 1
            or first != self._last_link + 1
            or (count > 1 and event_ids != list(range(first, last + 1)))
        ):
            return None
        else:
            self._disconnected_since_ns = None
            self._last_id = self._last_link = last
        self._last_recv_ns, self._last_payload = recv_ns, payloads[-1]
        self.received_bytes += size
        return self._sequencer.batch(recv_ns, self._classify.conflatable, event_ids, payloads)

    def accept(self, payloads: list[bytes], recv_ns: int) -> IntakeResult:
        accepted = 0
        shutdown = False
        self.received_bytes += sum(map(len, payloads))
        for payload in payloads:
            verdict = self._classify(payload)
            if verdict.payload_class is PayloadClass.ACCEPTED:
                if self._hold_buffer is None:
                    accepted += self._accept_event(payload, recv_ns, verdict)
                else:
                    self._hold(self._hold_buffer, HeldPayload(payload, recv_ns, verdict))
            elif verdict.payload_class is PayloadClass.REJECTED:
                self._reject(payload, recv_ns, verdict.reason)
            elif verdict.payload_class is PayloadClass.SHUTDOWN:
                shutdown = True
        return self._result(accepted, shutdown)

    def _result(self, accepted: int = 0, shutdown: bool = False) -> IntakeResult:
        found, self._found = self._found, None
        held, self._held = self._held, 0
        return IntakeResult(*self._sequencer.flush(), accepted, shutdown, held, found)

    def _hold(self, gap: GapHold, waiting: HeldPayload) -> None:
        gap.hold(waiting)
        self._held += 1
        if gap.full:
            self._end_gap(TOO_MUCH)

    def _accept_event(self, payload: bytes, recv_ns: int, verdict: Classification) -> bool:
        if NO_EVENT_ID < verdict.event_id <= self._last_id and self._is_repeat(verdict.event_id):
            self._window.counts.repeated += 1
            return False
        hole = self._gap_before(payload, recv_ns, verdict)
        if hole is not None and self._heals:
            self._found = hole
            self._hold_buffer = GapHold(hole)
            self._hold(self._hold_buffer, HeldPayload(payload, recv_ns, verdict))
            return False
        if hole is not None:
            self._report_missed(hole)
        if self._first is None:
            self._first = _First(verdict.previous_id, recv_ns, payload)
        if verdict.event_id != NO_EVENT_ID:
            self._advance(verdict.event_id, verdict.previous_id)
        else:
            self._last_link = verdict.own_link_id
        self._last_recv_ns, self._last_payload = recv_ns, payload
        self._sequencer.append_event(
            RecordKind.EVENT, recv_ns, verdict.event_id, payload, verdict.conflatable
        )
        return True

    def _is_repeat(self, event_id: int) -> bool:
        return event_id >= self._run_start or event_id in self._earlier_runs

    def _advance(self, event_id: int, previous_id: int) -> None:
        if event_id < self._run_start or previous_id != self._last_id:
            self._begin_run(event_id)
        self._last_id = self._last_link = event_id

    def _gap_before(self, payload: bytes, recv_ns: int, verdict: Classification) -> Gap | None:
        """What was missed before this event by its ids; where they do not tell, the time is written down."""
        dark_since_ns, self._disconnected_since_ns = self._disconnected_since_ns, None
        until_ns, self._set_back_ns = recv_ns + self._set_back_ns, 0
        known = verdict.previous_id != NO_EVENT_ID and self._last_link != NO_EVENT_ID
        if known and verdict.previous_id > self._last_link:
            was_connected = dark_since_ns is None and self._last_recv_ns
            cause = LossCause.UPSTREAM if was_connected else LossCause.DISCONNECT
            since_ns = dark_since_ns or self._last_recv_ns or recv_ns
            return Gap(
                first_id=self._last_link + 1,
                last_id=verdict.previous_id,
                cause=cause,
                from_ns=since_ns,
                to_ns=until_ns,
                sample=payload,
            )
        if dark_since_ns is not None and not known:
            self._lose(None, None, LossCause.DISCONNECT, dark_since_ns, until_ns, NO_IDS)
        return None

    def fill(self, pieces: Sequence[FillRange], recv_ns: int) -> IntakeResult:
        """What REST tells of `hole`, from where it told last; the events take their place."""
        assert self._hold_buffer is not None
        for piece in pieces:
            self._hold_buffer.settled.append(piece)
            for event_id, payload in enumerate(piece.payloads, piece.first_id):
                self._advance(event_id, event_id - 1)
                self.healed += 1
                self._last_recv_ns, self._last_payload = recv_ns, payload
                self._sequencer.append_event(RecordKind.HEALED, recv_ns, event_id, payload, False)
        return self._result()

    def end_hold(self, reason: str) -> IntakeResult:
        """What is not healed by now is lost, for this `reason`, and the held events go on."""
        self._end_gap(reason)
        return self._result()

    def _end_gap(self, reason: str) -> None:
        gap = self._hold_buffer
        assert gap is not None
        if gap.gap is not None:
            self._write_down(gap.gap, coalesce(gap.settled), reason)
            self._run_on(gap.gap.last_id)
        self._release()

    def _write_down(self, hole: Gap, pieces: Sequence[FillRange], reason: str) -> None:
        next_id = hole.first_id
        for piece in pieces:
            self._settle(hole, piece, self._subject, reason)
            next_id = piece.last_id + 1
        if next_id <= hole.last_id:
            self._lose_gap(next_id, hole, reason)

    def _settle(self, hole: Gap, piece: FillRange, subject: str, reason: str) -> None:
        if piece.outcome is FillOutcome.UNREACHED:
            self._lose(piece.first_id, piece.last_id, hole.cause, hole.from_ns, hole.to_ns, reason)
            return
        self._write(settled_entry(self._spec.key, hole, piece, subject))

    def _run_on(self, hole_end: int) -> None:
        """The hole is over, filled or not: the next event is its successor."""
        if self._last_id != hole_end:
            self._begin_run(hole_end + 1)
        self._last_id = self._last_link = hole_end

    def _begin_run(self, event_id: int) -> None:
        if self._earlier_runs.runs >= MAX_RUNS:
            self._earlier_runs = RangeSet()
        self._earlier_runs.add(max(0, self._run_start), self._last_id)
        self._run_start = event_id

    def _release(self) -> None:
        """The held events go on, up to the next hole."""
        gap, self._hold_buffer = self._hold_buffer, None
        assert gap is not None
        while gap.waiting and self._hold_buffer is None:
            waiting = gap.waiting.popleft()
            if waiting.verdict is not None:
                self._accept_event(waiting.payload, waiting.recv_ns, waiting.verdict)
            elif self._disconnected_since_ns is None:
                self._disconnected_since_ns = waiting.recv_ns
        if self._hold_buffer is not None:
            for waiting in gap.waiting:
                self._hold_buffer.hold(waiting)

    def repair(self, hole: Gap, pieces: Sequence[FillRange], recv_ns: int) -> IntakeResult:
        """What REST tells too late of a hole that is announced: it goes out beside the stream."""
        for piece in pieces:
            for event_id, payload in enumerate(piece.payloads, piece.first_id):
                self.repaired += 1
                self._sequencer.append_side_record(RecordKind.REPAIR, recv_ns, payload, event_id)
            if piece.outcome is not FillOutcome.UNREACHED:
                self._settle(hole, piece, f"{self._subject}.repair", "")
        return self._result()

    def _lose_gap(self, first_id: int, hole: Gap, reason: str) -> None:
        self._lose(first_id, hole.last_id, hole.cause, hole.from_ns, hole.to_ns, reason)

    def _lose(
        self,
        first_id: int | None,
        last_id: int | None,
        cause: LossCause,
        from_ns: int,
        to_ns: int,
        reason: str,
    ) -> None:
        ids = None if first_id is None or last_id is None else (first_id, last_id)
        entry = lost_entry(self._spec, ids, cause, from_ns, to_ns, reason)
        self.losses += 1
        self.lost += entry.count or 0
        self._write(entry)

    def _write(self, entry: LossEntry) -> None:
        self._sequencer.append_side_record(RecordKind.LOSS, entry.to_ns, entry.encode())

    def _reject(self, payload: bytes, recv_ns: int, reason: str) -> None:
        self._window.counts.received += 1
        self._window.counts.rejected += 1
        self._report_rejected(payload, recv_ns, reason)

    def refused(self, payload: bytes, recv_ns: int, reason: str) -> IntakeResult:
        """NATS can never take an accepted event, which the window has counted as rejected: report it."""
        self._report_rejected(payload, recv_ns, reason)
        return self._result()

    def _report_rejected(self, payload: bytes, recv_ns: int, reason: str) -> None:
        entry = {
            "stream": self._spec.key,
            "reason": reason,
            "bytes": len(payload),
            "at": utc(recv_ns),
            "raw": payload[:MAX_RAW_BYTES].decode("utf-8", errors="backslashreplace"),
        }
        self._sequencer.append_side_record(RecordKind.REJECTED, recv_ns, orjson.dumps(entry))
