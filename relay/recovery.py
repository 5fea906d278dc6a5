"""What an incarnation finds in the segments of its predecessors. Pure: the journal does the reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.record import EVENT_KINDS, NO_EVENT_ID, Record, decode
from relay.segments import Damage, Gap, Segment, damage_of, scan


class Survey(NamedTuple):
    """One segment read through. The counts leave out what is acknowledged."""

    segment: Segment
    last_seq: int
    last_event: Record | None
    events: int
    records: int
    bytes: int
    damages: tuple[Damage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What earlier incarnations left. `events`, `records` and `bytes` count what is not acknowledged.

    All zero for a new journal; `last_seq` is zero too when the last epoch left no record on the disk, and
    `last_event_id` is NO_EVENT_ID when no event on the disk has an id of the exchange. `last_event` is the
    newest on the disk, acknowledged or not.
    """

    acknowledged_offset: int
    last_offset: int
    last_epoch: int
    last_seq: int
    last_event_id: int
    events: int
    records: int
    bytes: int
    damages: tuple[Damage, ...]
    last_event: Record | None = None


def survey(segment: Segment, data: bytes, acknowledged: int, limit: int) -> Survey:
    """Read a segment of an earlier epoch through and note in it how far it is good."""
    segment.bytes = len(data)
    last_start = last_event_start = -1
    events = records = unacknowledged_bytes = 0
    damages = []
    for item in scan(data, segment.epoch, segment.last_offset, limit):
        if isinstance(item, Gap):
            held = max(segment.last_offset, acknowledged)
            damages.append(damage_of(item, segment, 0, held, limit))
            continue
        last_start, end, kind, offset = item
        segment.extend(offset, end)
        if kind in EVENT_KINDS:
            last_event_start = last_start
        if offset > acknowledged:
            records += 1
            events += kind in EVENT_KINDS
            unacknowledged_bytes += end - last_start
    last_seq = decode(data, last_start, check=False)[0].seq if last_start >= 0 else 0
    last_event = decode(data, last_event_start, check=False)[0] if last_event_start >= 0 else None
    return Survey(segment, last_seq, last_event, events, records, unacknowledged_bytes, tuple(damages))


def recovery_of(surveys: Sequence[Survey], acknowledged: int, last_epoch: int) -> Recovery:
    """Sum up the surveys of a journal's segments, given in offset order."""
    return Recovery(
        acknowledged_offset=acknowledged,
        last_offset=max([acknowledged, *(each.segment.last_offset for each in surveys)]),
        last_epoch=last_epoch,
        last_seq=max((each.last_seq for each in surveys if each.segment.epoch == last_epoch), default=0),
        last_event_id=_last_event_id(surveys),
        events=sum(each.events for each in surveys),
        records=sum(each.records for each in surveys),
        bytes=sum(each.bytes for each in surveys),
        damages=tuple(damage for each in surveys for damage in each.damages),
        last_event=next(_last_events(surveys), None),
    )


def _last_event_id(surveys: Sequence[Survey]) -> int:
    ids = (event.event_id for event in _last_events(surveys))
    return next((event_id for event_id in ids if event_id != NO_EVENT_ID), NO_EVENT_ID)


def _last_events(surveys: Sequence[Survey]) -> Iterator[Record]:
    """Of each segment that has one, the newest first."""
    return (each.last_event for each in reversed(surveys) if each.last_event is not None)
