"""The state and the findings of an audit about one stream; pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from relay.audit.message import ConsumedEvent, Marks
from relay.model.gap import GapRule
from relay.primitives.histogram import LatencyHistogram
from relay.primitives.range_set import Range, RangeSet

# A repeat of an older message counts as out of order, since its number does not rise.
REMEMBERED_IDS = 20_000
DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAudit:
    """The findings on one stream, whose fields are keys of `audit --json`; `stream` is `<venue>:<name>`.

    `missing_ids` is None where events have no rising ids. Where ids are linked and not contiguous (diff
    depth), it counts broken links. `skipped` are missing sequences of a stream whose overflow policy may
    leave events out. `digest` covers the payloads in the order received, without repeats. `healed` events
    are stored and came over REST; of the missing ids, `repaired` are on the subject of repairs, and `absent`
    never existed. `mended` are the ids of all that came over REST.
    """

    stream: str
    stored: int
    duplicated: int
    out_of_order: int
    missing_ids: int | None
    missing_seqs: int
    skipped: int
    epochs: int
    first_id: str
    last_id: str
    digest: str
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    healed: int = 0
    repaired: int = 0
    absent: int = 0
    mended: tuple[Range, ...] = ()

    @property
    def lost(self) -> int:
        accounted_for = self.skipped + self.repaired + self.absent
        return max((self.missing_ids or 0) - accounted_for, self.missing_seqs)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.out_of_order)


class SideRecords:
    """Ids of one stream from the side subjects: repaired ones, and ones that never existed."""

    def __init__(self) -> None:
        self.repaired = RangeSet()
        self.absent = RangeSet()
        self.repeated = 0

    def repair(self, number: int) -> None:
        self.repeated += number in self.repaired
        self.repaired.add(number, number)


class StreamFollower:
    """Follows the messages of one stream in the order received."""

    def __init__(self, key: str, gap_rule: GapRule | None) -> None:
        self._key = key
        self._gap_rule = gap_rule
        self.stored = self.healed = self._duplicated = self._out_of_order = self._epochs = 0
        self._missing_ids = self._missing_seqs = 0
        self._first_id = self._last_id = ""
        self._sequence = (0, 0)
        self._number: int | None = None
        self._first_number = 0
        self._missing = RangeSet()
        self._healed = RangeSet()
        self._recent: OrderedDict[str, None] = OrderedDict()
        self.latency = LatencyHistogram()
        self._digest = blake2b(digest_size=DIGEST_BYTES)

    def event_received(self, event: ConsumedEvent, marks: Marks, now_ns: int) -> None:
        if marks.recv_ns is not None:
            self.latency.add(now_ns - marks.recv_ns)
        if self._is_repeat(event.message_id):
            self._duplicated += 1
            return
        self.stored += 1
        self._first_id = self._first_id or event.number
        self._last_id = event.number
        self._digest.update(len(event.data).to_bytes(4, "big") + event.data)
        in_sequence = not marks.epoch or self._follow_sequence(marks.epoch, marks.seq)
        rising = self._gap_rule is None or self._follow_ids(self._gap_rule, event)
        if not (in_sequence and rising):
            self._out_of_order += 1
        if marks.healed:
            self.healed += 1
            self._healed.add(int(event.number), int(event.number))

    def report(self, side: SideRecords, *, may_skip: bool) -> StreamAudit:
        repaired = self._missing.common(side.repaired)
        from_rest = RangeSet((*self._healed, *repaired))
        return StreamAudit(
            stream=self._key,
            stored=self.stored,
            duplicated=self._duplicated + side.repeated + self._stored_as_well(side.repaired),
            out_of_order=self._out_of_order,
            missing_ids=None if self._gap_rule is None else self._missing_ids,
            missing_seqs=0 if may_skip else self._missing_seqs,
            skipped=self._missing_seqs if may_skip else 0,
            epochs=self._epochs,
            first_id=self._first_id,
            last_id=self._last_id,
            digest=self._digest.hexdigest(),
            p50_ms=self._millis(0.5),
            p99_ms=self._millis(0.99),
            max_ms=self._millis(1.0),
            healed=self.healed,
            repaired=len(repaired),
            absent=len(self._missing.common(side.absent)),
            mended=tuple(from_rest),
        )

    def _stored_as_well(self, repaired: RangeSet) -> int:
        """How many repaired ids are stored too: of the ids that were read, all that are not missing."""
        if self._number is None:
            return 0
        within = repaired.common(RangeSet([(self._first_number, self._number)]))
        return len(within) - len(within.common(self._missing))

    def _is_repeat(self, message_id: str) -> bool:
        if message_id in self._recent:
            return True
        self._recent[message_id] = None
        if len(self._recent) > REMEMBERED_IDS:
            self._recent.popitem(last=False)
        return False

    def _follow_sequence(self, epoch: int, seq: int) -> bool:
        """Whether it rises. Every epoch counts from 1; what came before the first message is not missing."""
        last_epoch, last_seq = self._sequence
        if epoch < last_epoch or (epoch == last_epoch and seq <= last_seq):
            # It was counted as missing when a later one came before it, if that was so.
            self._missing_seqs = max(0, self._missing_seqs - 1)
            return False
        if self._epochs:
            self._missing_seqs += seq - 1 - (last_seq if epoch == last_epoch else 0)
        self._epochs += epoch != last_epoch
        self._sequence = epoch, seq
        return True

    def _follow_ids(self, rule: GapRule, event: ConsumedEvent) -> bool:
        number = int(event.number)
        if self._number is not None and number <= self._number:
            self._missing_ids = max(0, self._missing_ids - 1)
            self._missing.remove(number, number)
            return False
        if self._number is None:
            self._first_number = number
        elif missed := rule.missing_between(self._number, number, event.payload):
            self._missing_ids += missed
            if rule.contiguous:
                self._missing.add(self._number + 1, number - 1)
        self._number = number
        return True

    def _millis(self, share: float) -> float | None:
        if share == 1.0:
            return self.latency.max_ns / 1e6 if self.latency.count else None
        value = self.latency.quantile(share)
        return None if value is None else value / 1e6
