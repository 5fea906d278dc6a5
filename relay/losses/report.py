"""The loss ledger read as a whole: which gaps are still open, which were healed, and the totals. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from relay.losses.entry import LossEntry
from relay.primitives.range_set import RangeSet


class LossState(StrEnum):
    """What has become of the ids of one ledger entry."""

    OPEN = "open"
    PARTLY = "partly"
    """Some of its events came later."""
    REPAIRED = "repaired"
    """All of its events came later, on `.repair`."""
    HEALED = "healed"
    """All of its events came over REST, in their place."""
    NO_LOSS = "no loss"
    """REST says that there were no such events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecord:
    """One entry, and what has become of it since. Of its `count` events, `open` are still missing.

    `open` and `healed` are None where the ids do not count events.
    """

    entry: LossEntry
    state: LossState
    open: int | None
    healed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReport:
    """`uncounted` are open gaps whose events cannot be counted: of streams without ids, or of depth updates.

    `suspect` is the part of `open` for which nothing confirms that these events ever existed.
    """

    records: tuple[LossRecord, ...]
    open: int
    healed: int
    repaired: int
    uncounted: int
    suspect: int


def report_losses(
    entries: Iterable[LossEntry], *, since_ns: int | None = None, stream: str | None = None
) -> LossReport:
    """Of what ended at `since_ns` or later, on one stream, named with or without its venue."""
    chosen = [
        entry
        for entry in entries
        if (since_ns is None or entry.to_ns >= since_ns) and (stream is None or _is(entry.stream, stream))
    ]
    return _summed(tuple(_records(chosen)))


def _is(key: str, stream: str) -> bool:
    return key == stream or key.partition(":")[2] == stream


def _records(entries: list[LossEntry]) -> Iterator[LossRecord]:
    """In the order of the entries, without healed ones whose ids an entry of a loss names already."""
    healed: dict[str, RangeSet] = {}
    lost: dict[str, RangeSet] = {}
    for entry in entries:
        if (ids := _ids(entry)) is not None:
            known = healed if entry.healed else lost
            known.setdefault(entry.stream, RangeSet()).add(*ids)
    none = RangeSet()
    for entry in entries:
        ids = _ids(entry)
        if ids is None:
            yield LossRecord(entry=entry, state=LossState.OPEN, open=None, healed=None)
        elif not entry.healed:
            yield _lost_record(entry, RangeSet([ids]), healed.get(entry.stream, none))
        elif not _covers(lost.get(entry.stream, none), RangeSet([ids])):
            state = LossState.HEALED if entry.count else LossState.NO_LOSS
            yield LossRecord(entry=entry, state=state, open=0, healed=entry.count)


def _ids(entry: LossEntry) -> tuple[int, int] | None:
    if entry.first_id is None or entry.last_id is None or entry.count is None:
        return None
    return entry.first_id, entry.last_id


def _covers(outer: RangeSet, inner: RangeSet) -> bool:
    return inner.common(outer) == inner


def _lost_record(entry: LossEntry, ids: RangeSet, healed_ids: RangeSet) -> LossRecord:
    healed = len(ids.common(healed_ids))
    missing = len(ids) - healed
    state = LossState.OPEN if not healed else LossState.PARTLY if missing else LossState.REPAIRED
    return LossRecord(entry=entry, state=state, open=missing, healed=healed)


def _summed(records: tuple[LossRecord, ...]) -> LossReport:
    lost = [record for record in records if not record.entry.healed]
    return LossReport(
        records=records,
        open=sum(record.open or 0 for record in lost),
        healed=sum(record.healed or 0 for record in records if record.entry.healed),
        repaired=sum(record.healed or 0 for record in lost),
        uncounted=sum(record.open is None for record in lost),
        suspect=sum(record.open or 0 for record in lost if record.entry.suspect),
    )
