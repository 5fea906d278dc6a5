"""From payloads to batches: every payload is classified, numbered, counted and given to the window; pure.

Events that were read together and certainly are the next ones become one batch, which costs little for each
of them. An event whose exchange id was accepted before is a repeat: it is counted and dropped. A gap becomes
a loss record, as does a time without a connection on a stream whose ids do not count its events.

Where REST can fill a gap, the events read after it are held at first, so that the events that REST gives can
be stored in order. Held payloads are not accepted yet: if the process is killed they are lost, and the next
incarnation finds the same gap, but longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.binance.classifier import Classification, PayloadClass, PayloadClassifier
from relay.binance.streams import StreamSpec
from relay.delivery.buffered_batch import BufferedBatch
from relay.delivery.window import SendWindow
from relay.intake.gap_hold import MAX_HELD_MESSAGES, GapHold, HeldPayload
from relay.intake.gap_tracker import GapTracker, Interruption
from relay.intake.loss_recorder import LossRecorder
from relay.intake.sequencer import Sequencer
from relay.journal.damage import JournalLoss
from relay.model.gap import FillRange, Gap, coalesce
from relay.model.record_batch import FULL_BYTES, MAX_RECORDS, NO_EVENT_ID, RecordKind

NOT_HEALABLE = "REST gives no events of this kind by their ids"
HEALING_OFF = "exchange.heal is off"
ACCEPTED_FIRST = "events behind it were accepted first"
NO_SAMPLE = "no event was read since the start that shows the form of the missing ones"
TOO_MUCH = "too much was read while REST was asked; what it gives later goes to the subject of repairs"


class IntakeResult(NamedTuple):
    """What one call did. `journal` is to be appended in one piece, up to record `last_offset`.

    `accepted` and `held` count the events of this call that were accepted and that wait behind a gap. `gap`
    is one that was found in it and that REST may fill: in its place as long as it is `Intake.gap`, else on
    the subject of repairs.
    """

    journal: bytes
    last_offset: int
    accepted: int
    shutdown: bool
    held: int = 0
    gap: Gap | None = None


class Intake:
    """`last_event_id` is the newest id of an earlier incarnation, where the journal still had it, and
    `last_event_ns` the Unix time in ns when that event was sent.

    With `heals` the owner asks REST about each `IntakeResult.gap`. `subject` is where consumers find the
    events. At most `max_held` events are held behind a gap.
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
        max_held: int = MAX_HELD_MESSAGES,
    ) -> None:
        self.healed = 0
        self.repaired = 0
        self.received_bytes = 0
        self._classify = PayloadClassifier(spec)
        self._spec = spec
        self._window = window
        self._sequencer = Sequencer(window, epoch, last_offset)
        self._gaps = GapTracker(last_event_id, last_event_ns)
        self._recorder = LossRecorder(spec, self._sequencer, subject)
        self._predecessor_known = last_event_id != NO_EVENT_ID
        self._heals = heals and spec.healable
        self._max_held = max_held
        # Holds from the start if NATS has yet to name the predecessor, which decides whether there is a gap.
        self._hold_buffer = GapHold(None, max_held) if self._heals and not self._predecessor_known else None
        # Reported with the next result.
        self._new_gap: Gap | None = None
        self._newly_held = 0

    @property
    def lost(self) -> int:
        """Events that are lost, as far as ids count them."""
        return self._recorder.lost

    @property
    def losses(self) -> int:
        """Losses that were recorded."""
        return self._recorder.losses

    @property
    def gap(self) -> Gap | None:
        """The gap that holds up later events; None if there is none, or if it is not known yet."""
        return self._hold_buffer.gap if self._hold_buffer else None

    @property
    def holding(self) -> bool:
        return self._hold_buffer is not None

    def preceded_by(self, event_id: int, at_ns: int) -> IntakeResult:
        """The last event of earlier incarnations that NATS has: events between it and our first one are lost.

        Call when NATS has answered, with 0 for `at_ns` if nothing is stored. Does nothing if the journal knew
        that event.
        """
        if self._predecessor_known:
            return self._result()
        self._predecessor_known = True
        if at_ns:
            self._record_missed(self._gaps.missing_after_predecessor(event_id, at_ns))
        if self._hold_buffer is not None and self._hold_buffer.gap is None:
            self._release()
        return self._result()

    def follow(self, event_id: int, link_id: int, recv_ns: int, *, seamless: bool) -> None:
        """Continue after this event of another incarnation; call before anything is accepted.

        `link_id` is what the next event names as its predecessor. Unless it is `seamless`, events between the
        two may be missing; where ids do not show whether any are, a loss is recorded.
        """
        self._predecessor_known = True
        self._hold_buffer = None
        self._gaps.follow(event_id, link_id, recv_ns, seamless=seamless)

    def journal_lost(self, loss: JournalLoss) -> IntakeResult:
        """Damage to the journal destroyed accepted events, and later ones have been sent already."""
        after = loss.after
        previous_id = NO_EVENT_ID if after is None else self._classify(after.payloads[0]).previous_id
        self._record_missed(self._gaps.missing_in_journal(loss, previous_id))
        return self._result()

    def _record_missed(self, missed: Gap | Interruption | None) -> None:
        """Record what is missing before an event that is accepted already, or is about to be."""
        if isinstance(missed, Interruption):
            self._recorder.record_interruption(missed)
        elif missed is not None and not self._heals:
            self._recorder.record_gap(missed, [], HEALING_OFF if self._spec.healable else NOT_HEALABLE)
        elif missed is not None and not missed.sample:
            self._recorder.record_gap(missed, [], NO_SAMPLE)
        elif missed is not None:
            self._new_gap = missed
            self._recorder.record_gap(missed, [], ACCEPTED_FIRST)

    def disconnected(self) -> None:
        """The connection ended; call once for each."""
        if self._hold_buffer is not None:
            self._hold_buffer.disconnected()
        else:
            self._gaps.disconnected()

    def clock_set_back(self, by_ns: int) -> None:
        """Call before what is read by the new clock."""
        self._gaps.clock_set_back(by_ns)

    def accept_fast(self, payloads: list[bytes], recv_ns: int) -> BufferedBatch | None:
        """For events that certainly are the next ones and have room: numbers and encodes them.

        The caller gives the batch to the window. None, and nothing done, if any payload needs `accept`.
        """
        count = len(payloads)
        if self._hold_buffer is not None or count > MAX_RECORDS:
            return None
        size = sum(map(len, payloads))
        if size > FULL_BYTES or not self._window.has_room(count):
            return None
        event_ids = self._classify.event_ids(payloads)
        if event_ids is None or not self._gaps.extend(event_ids, payloads[-1], recv_ns):
            return None
        self.received_bytes += size
        return self._sequencer.batch(recv_ns, self._classify.conflatable, event_ids, payloads)

    def accept(self, payloads: list[bytes], recv_ns: int) -> IntakeResult:
        """For any payloads that were read together; recv_ns is the Unix time of that read."""
        accepted = 0
        shutdown = False
        self.received_bytes += sum(map(len, payloads))
        for payload in payloads:
            classification = self._classify(payload)
            if classification.payload_class is PayloadClass.ACCEPTED:
                if self._hold_buffer is None:
                    accepted += self._accept_event(payload, recv_ns, classification)
                else:
                    self._hold(self._hold_buffer, HeldPayload(payload, recv_ns, classification))
            elif classification.payload_class is PayloadClass.REJECTED:
                self._reject(payload, recv_ns, classification.reason)
            elif classification.payload_class is PayloadClass.SHUTDOWN:
                shutdown = True
        return self._result(accepted, shutdown)

    def _result(self, accepted: int = 0, shutdown: bool = False) -> IntakeResult:
        gap, self._new_gap = self._new_gap, None
        held, self._newly_held = self._newly_held, 0
        return IntakeResult(*self._sequencer.flush(), accepted, shutdown, held, gap)

    def _hold(self, hold: GapHold, payload: HeldPayload) -> None:
        hold.hold(payload)
        self._newly_held += 1
        if hold.full:
            self._end_hold(TOO_MUCH)

    def _accept_event(self, payload: bytes, recv_ns: int, classification: Classification) -> bool:
        """False if it is a repeat, or is held behind a gap that this event shows."""
        if self._gaps.is_repeat(classification.event_id):
            self._window.counts.repeated += 1
            return False
        missed = self._gaps.missing_before(payload, recv_ns, classification)
        if isinstance(missed, Gap) and self._heals:
            self._new_gap = missed
            self._hold_buffer = GapHold(missed, self._max_held)
            self._hold(self._hold_buffer, HeldPayload(payload, recv_ns, classification))
            return False
        self._record_missed(missed)
        self._gaps.accepted(payload, recv_ns, classification)
        self._sequencer.append_event(
            RecordKind.EVENT, recv_ns, classification.event_id, payload, classification.conflatable
        )
        return True

    def fill(self, ranges: Sequence[FillRange], recv_ns: int) -> IntakeResult:
        """What REST gives of `gap`, from where its last answer ended; the events are accepted in their
        place."""
        assert self._hold_buffer is not None
        for filled in ranges:
            self._hold_buffer.filled.append(filled)
            for event_id, payload in enumerate(filled.payloads, filled.first_id):
                self.healed += 1
                self._gaps.filled(payload, recv_ns, event_id)
                self._sequencer.append_event(RecordKind.HEALED, recv_ns, event_id, payload, False)
        return self._result()

    def end_hold(self, reason: str) -> IntakeResult:
        """Record as lost, for this `reason`, what is not healed by now, and accept the held events."""
        self._end_hold(reason)
        return self._result()

    def _end_hold(self, reason: str) -> None:
        hold = self._hold_buffer
        assert hold is not None
        if hold.gap is not None:
            self._recorder.record_gap(hold.gap, coalesce(hold.filled), reason)
            self._gaps.close_gap(hold.gap.last_id)
        self._release()

    def _release(self) -> None:
        """Accept the held events, up to the next gap."""
        hold, self._hold_buffer = self._hold_buffer, None
        assert hold is not None
        while hold.payloads and self._hold_buffer is None:
            payload = hold.payloads.popleft()
            if payload.classification is not None:
                self._accept_event(payload.payload, payload.recv_ns, payload.classification)
            else:
                self._gaps.disconnected(payload.recv_ns)
        if self._hold_buffer is not None:
            for payload in hold.payloads:
                self._hold_buffer.hold(payload)

    def repair(self, gap: Gap, ranges: Sequence[FillRange], recv_ns: int) -> IntakeResult:
        """What REST gives after `gap` was recorded as lost: these events go to the subject of repairs."""
        for repaired in ranges:
            for event_id, payload in enumerate(repaired.payloads, repaired.first_id):
                self.repaired += 1
                self._sequencer.append_side_record(RecordKind.REPAIR, recv_ns, payload, event_id)
            self._recorder.record_repair(gap, repaired)
        return self._result()

    def _reject(self, payload: bytes, recv_ns: int, reason: str) -> None:
        self._window.counts.received += 1
        self._window.counts.rejected += 1
        self._recorder.record_rejected(payload, recv_ns, reason)

    def refused(self, payload: bytes, recv_ns: int, reason: str) -> IntakeResult:
        """Report an accepted event that NATS can never store, and that the window has counted as rejected."""
        self._recorder.record_rejected(payload, recv_ns, reason)
        return self._result()
