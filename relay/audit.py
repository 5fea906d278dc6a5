"""What a consumer can say about the relay from NATS alone: loss, duplicates, order, bytes, latency. Pure.

Two numberings are followed. The exchange's own ids, where a stream has them, show what never arrived here;
`Sluice-Epoch` and `Sluice-Seq` show what was accepted and is not in NATS, for every stream. A missing id that
is on the subject of repairs is not lost, nor one of which the loss ledger says that it never was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from relay.errors import SluiceError
from relay.histogram import LatencyHistogram
from relay.ledger import LossEntry, read_entry
from relay.ranges import Range, RangeSet
from relay.streams import StreamKind, Venue, parse_stream

# A repeat further back than this shows as out of order, since its number does not rise.
REMEMBERED_IDS = 20_000
DIGEST_BYTES = 16
_FENCE_PREFIX = "fence:"
OWN_PREFIX, LEDGER_PREFIX = "sluice.", "sluice.loss."

GapRule = Callable[[int, int, Any], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAudit:
    """The findings on one stream; `stream` is `<venue>:<name>`.

    `missing_ids` is None where the exchange numbers nothing. Diff depth has linked ids, not contiguous ones:
    there it counts broken links. `skipped` are missing sequences of a stream whose overflow policy may leave
    events out. `digest` covers the payloads in the order of arrival, repeats left out. `healed` events are
    stored and came over REST; of the missing ids, `repaired` are on the subject of repairs, and `absent`
    never were. `mended` are the ids of all that came over REST.
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
        settled = self.skipped + self.repaired + self.absent
        return max((self.missing_ids or 0) - settled, self.missing_seqs)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.out_of_order)


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message taken apart: `number` ends its id, `data` are the payload's own bytes."""

    key: str
    number: str
    message_id: str
    data: bytes
    payload: Any


class Marks(NamedTuple):
    """What the headers say; without headers `epoch` is 0 unless the id holds it."""

    epoch: int
    seq: int
    recv_ns: int | None
    healed: bool = False


class MalformedError(SluiceError):
    """A message that breaks the contract."""


class Audit:
    """Feed it every message of every stream, in the order of arrival; memory stays bounded.

    `skipping` are the keys of the streams whose overflow policy may leave events out.
    """

    def __init__(self, skipping: Collection[str] = ()) -> None:
        self._skipping = frozenset(skipping)
        self._streams: dict[str, _Follower] = {}
        self._beside: dict[str, _Beside] = {}
        self.malformed = 0
        self.last_problem = ""

    def take(self, headers: Mapping[str, str] | None, body: bytes, now_ns: int) -> None:
        """`now_ns` is the wall clock at the arrival; headers are None where the relay sends none."""
        if headers and headers.get("Nats-Msg-Id", "").startswith(_FENCE_PREFIX):
            return
        try:
            envelope = open_envelope(body)
            marks = read_marks(headers, envelope)
            self._follower(envelope.key).take(envelope, marks, now_ns)
        except (SluiceError, ValueError, KeyError, TypeError) as error:
            self.malformed += 1
            self.last_problem = f"{error} in {body[:120]!r}"

    def take_side(self, subject: str, headers: Mapping[str, str] | None, body: bytes) -> None:
        """A message of a subject beside the streams: of the loss ledger, of rejected frames, or a repair."""
        try:
            if subject.startswith(LEDGER_PREFIX):
                self._settle(read_entry(body))
            elif not subject.startswith(OWN_PREFIX):
                envelope = open_envelope(body)
                read_marks(headers, envelope)
                self._beside_of(envelope.key).repair(int(envelope.number))
        except (SluiceError, ValueError, KeyError, TypeError) as error:
            self.malformed += 1
            self.last_problem = f"{error} in {body[:120]!r}"

    def _settle(self, entry: LossEntry) -> None:
        if entry.healed and entry.count == 0 and entry.first_id is not None and entry.last_id is not None:
            self._beside_of(entry.stream).absent.add(entry.first_id, entry.last_id)

    def _beside_of(self, key: str) -> _Beside:
        return self._beside.setdefault(key, _Beside())

    def report(self) -> list[StreamAudit]:
        """Of the streams that events came of."""
        nothing = _Beside()
        return [
            self._streams[key].report(self._beside.get(key, nothing), may_skip=key in self._skipping)
            for key in sorted(self._streams)
        ]

    def stored(self, key: str) -> int:
        """Distinct events of one stream so far."""
        found = self._streams.get(key)
        return found.stored if found else 0

    def healed(self, key: str) -> int:
        """Those of them that came over REST."""
        found = self._streams.get(key)
        return found.healed if found else 0

    def latency(self) -> LatencyHistogram:
        """Of all streams together."""
        merged = LatencyHistogram()
        for follower in self._streams.values():
            merged.merge(follower.latency)
        return merged

    def _follower(self, key: str) -> _Follower:
        found = self._streams.get(key)
        if found is None:
            found = self._streams[key] = _Follower(key)
        return found


def open_envelope(body: bytes) -> Envelope:
    """Raises MalformedError unless `body` is the envelope to the byte, ValueError or KeyError if no JSON."""
    fields = orjson.loads(body)
    stream, identity, timestamp = fields["stream"], fields["message_id"], fields["timestamp"]
    head = f'{{"stream":"{stream}","data":'.encode()
    tail = (
        f',"timestamp":"{timestamp}","message_id":"{identity}","source":"binance-websocket","version":"1.0"}}'
    ).encode()
    key, _, number = str(identity).rpartition(":")
    if not (body.startswith(head) and body.endswith(tail) and key.endswith(f":{stream}")):
        raise MalformedError("the envelope has other fields or another order")
    data = body[len(head) : len(body) - len(tail)]
    return Envelope(key, number, identity, data, fields["data"])


def read_marks(headers: Mapping[str, str] | None, envelope: Envelope) -> Marks:
    if headers is None:
        epoch, dash, seq = envelope.number.partition("-")
        return Marks(int(epoch), int(seq), None) if dash else Marks(0, 0, None)
    if headers.get("Nats-Msg-Id") != envelope.message_id:
        raise MalformedError(f"the headers name another id than the envelope's {envelope.message_id}")
    return Marks(
        int(headers["Sluice-Epoch"]),
        int(headers["Sluice-Seq"]),
        int(headers["Sluice-Recv-Ns"]),
        headers.get("Sluice-Healed") == "1",
    )


class _Beside:
    """What came of one stream beside it."""

    def __init__(self) -> None:
        self.repaired = RangeSet()
        self.absent = RangeSet()
        self.repeated = 0

    def repair(self, number: int) -> None:
        self.repeated += number in self.repaired
        self.repaired.add(number, number)


class _Follower:
    """The running account of one stream."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._gap = gap_rule(key)
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

    def take(self, envelope: Envelope, marks: Marks, now_ns: int) -> None:
        if marks.recv_ns is not None:
            self.latency.add(now_ns - marks.recv_ns)
        if self._is_repeat(envelope.message_id):
            self._duplicated += 1
            return
        self.stored += 1
        self._first_id = self._first_id or envelope.number
        self._last_id = envelope.number
        self._digest.update(len(envelope.data).to_bytes(4, "big") + envelope.data)
        in_sequence = not marks.epoch or self._follow_sequence(marks.epoch, marks.seq)
        rising = self._gap is None or self._follow_ids(self._gap, envelope)
        if not (in_sequence and rising):
            self._out_of_order += 1
        if marks.healed:
            self.healed += 1
            self._healed.add(int(envelope.number), int(envelope.number))

    def report(self, beside: _Beside, *, may_skip: bool) -> StreamAudit:
        repaired = self._missing.common(beside.repaired)
        mended = RangeSet((*self._healed, *repaired))
        return StreamAudit(
            stream=self._key,
            stored=self.stored,
            duplicated=self._duplicated + beside.repeated + self._stored_as_well(beside.repaired),
            out_of_order=self._out_of_order,
            missing_ids=None if self._gap is None else self._missing_ids,
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
            absent=len(self._missing.common(beside.absent)),
            mended=tuple(mended),
        )

    def _stored_as_well(self, repaired: RangeSet) -> int:
        """Repairs of events that are in the stream: within what was read of it, all that is not missing."""
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
        """Whether it rises. Every epoch counts from 1; a follower that begins in the midst misses nothing."""
        last_epoch, last_seq = self._sequence
        if epoch < last_epoch or (epoch == last_epoch and seq <= last_seq):
            # Counted as missing when it was jumped over, if it was.
            self._missing_seqs = max(0, self._missing_seqs - 1)
            return False
        if self._epochs:
            self._missing_seqs += seq - 1 - (last_seq if epoch == last_epoch else 0)
        self._epochs += epoch != last_epoch
        self._sequence = epoch, seq
        return True

    def _follow_ids(self, gap: GapRule, envelope: Envelope) -> bool:
        number = int(envelope.number)
        if self._number is not None and number <= self._number:
            self._missing_ids = max(0, self._missing_ids - 1)
            self._missing.remove(number, number)
            return False
        if self._number is None:
            self._first_number = number
        elif missed := gap(self._number, number, envelope.payload):
            self._missing_ids += missed
            if gap is _skipped_ids:
                self._missing.add(self._number + 1, number - 1)
        self._number = number
        return True

    def _millis(self, share: float) -> float | None:
        if share == 1.0:
            return self.latency.max_ns / 1e6 if self.latency.count else None
        value = self.latency.quantile(share)
        return None if value is None else value / 1e6


def gap_rule(key: str) -> GapRule | None:
    """How many ids are missing between two neighbours of this stream; None if it has no ids."""
    venue, _, name = key.partition(":")
    spec = parse_stream(Venue(venue), name)
    if not spec.id_key:
        return None
    return _broken_links if spec.kind is StreamKind.DEPTH_DIFF else _skipped_ids


def _skipped_ids(last: int, number: int, _payload: Any) -> int:
    return number - last - 1


def _broken_links(last: int, _number: int, payload: Any) -> int:
    """Futures name the previous `u` as `pu`; spot continues with `U` one above it."""
    previous = payload["pu"] if "pu" in payload else payload["U"] - 1
    return int(previous != last)
