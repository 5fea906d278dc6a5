"""What an incarnation finds in the segments of its predecessors; pure, the journal reads the files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.journal.segments import Damage, DamagedRange, Segment, damage_of, scan
from relay.model.record_batch import EVENT_KINDS, NO_EVENT_ID, RecordBatch, head, record_of


class Survey(NamedTuple):
    """What one segment holds. `events`, `records` and, in whole batches, `bytes` count what is not
    acknowledged."""

    segment: Segment
    last_seq: int
    last_event: RecordBatch | None
    events: int
    records: int
    bytes: int
    damages: tuple[Damage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What earlier incarnations left. `events`, `records` and `bytes` count what is not acknowledged, `bytes`
    in whole batches.

    All zero for a new journal; `last_seq` is zero too when the last epoch left no record on the disk, and
    `last_event` is the newest event on the disk, acknowledged or not, alone in a batch, and
    `last_numbered_event` the newest one that has an id of the exchange; each is None where there is none.
    """

    acknowledged_offset: int
    last_offset: int
    last_epoch: int
    last_seq: int
    events: int
    records: int
    bytes: int
    damages: tuple[Damage, ...]
    last_event: RecordBatch | None = None
    last_numbered_event: RecordBatch | None = None


def survey(segment: Segment, data: bytes, acknowledged: int, limit: int) -> Survey:
    """Scan a segment of an earlier epoch, and set in it how far it is intact."""
    segment.bytes = len(data)
    last_event_at = 0, 0, 0
    last_seq = events = records = unacknowledged_bytes = 0
    damages = []
    for item in scan(data, segment.epoch, segment.last_offset, limit):
        if isinstance(item, DamagedRange):
            held = max(segment.last_offset, acknowledged)
            damages.append(damage_of(item, segment, 0, held, limit))
            continue
        start, end, kind, first, last = item
        segment.extend(last, end)
        last_seq = head(data, start).seq + last - first
        if kind in EVENT_KINDS:
            last_event_at = start, end, last - first
        if last > acknowledged:
            left = last - max(acknowledged, first - 1)
            records += left
            events += left if kind in EVENT_KINDS else 0
            unacknowledged_bytes += end - start
    start, end, number = last_event_at
    last_event = record_of(data[start:end], number) if end else None
    return Survey(segment, last_seq, last_event, events, records, unacknowledged_bytes, tuple(damages))


def recovery_of(surveys: Sequence[Survey], acknowledged: int, last_epoch: int) -> Recovery:
    """Sum up the surveys of a journal's segments, given in offset order."""
    return Recovery(
        acknowledged_offset=acknowledged,
        last_offset=max([acknowledged, *(each.segment.last_offset for each in surveys)]),
        last_epoch=last_epoch,
        last_seq=max((each.last_seq for each in surveys if each.segment.epoch == last_epoch), default=0),
        events=sum(each.events for each in surveys),
        records=sum(each.records for each in surveys),
        bytes=sum(each.bytes for each in surveys),
        damages=tuple(damage for each in surveys for damage in each.damages),
        last_event=next(_last_events(surveys), None),
        last_numbered_event=next(filter(_has_id, _last_events(surveys)), None),
    )


def _has_id(event: RecordBatch) -> bool:
    return event.event_ids[0] != NO_EVENT_ID


def _last_events(surveys: Sequence[Survey]) -> Iterator[RecordBatch]:
    """The last event of each segment that has one, the newest segment first."""
    return (each.last_event for each in reversed(surveys) if each.last_event is not None)
