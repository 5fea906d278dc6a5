"""What the loss ledger comes to: which holes are open, which are healed, and the totals. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from relay.losses.entry import LossEntry
from relay.primitives.range_set import RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecord:
    """One entry, and what has become of it since. Of its `count` events, `open` are missing still.

    `open` and `healed` are None where nobody can count. `state` is `open`, `partly`, `repaired` (all came
    later), `healed` (in their place) or `no loss` (there never were such events).
    """

    entry: LossEntry
    state: str
    open: int | None
    healed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReport:
    """`uncounted` are open holes whose events nobody can count: of streams without ids, or of depth updates.

    `suspect` is the part of `open` of which nobody has confirmed that it ever was.
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
    settled: dict[str, RangeSet] = {}
    lost: dict[str, RangeSet] = {}
    for entry in chosen:
        ids = settled if entry.healed else lost
        if entry.count is not None and entry.first_id is not None and entry.last_id is not None:
            ids.setdefault(entry.stream, RangeSet()).add(entry.first_id, entry.last_id)
    none = RangeSet()
    records = tuple(
        _record(entry, settled.get(entry.stream, none), lost.get(entry.stream, none)) for entry in chosen
    )
    return _summed(tuple(record for record in records if record.state != _FOLLOWS))


# A healed entry that follows a lost one says in the lost one's line what it has to say.
_FOLLOWS = "follows"


def _is(key: str, stream: str) -> bool:
    return key == stream or key.partition(":")[2] == stream


def _record(entry: LossEntry, settled: RangeSet, lost: RangeSet) -> LossRecord:
    if entry.first_id is None or entry.last_id is None or entry.count is None:
        return LossRecord(entry=entry, state="open", open=None, healed=None)
    ids = RangeSet([(entry.first_id, entry.last_id)])
    if entry.healed:
        if ids.common(lost) == ids:
            return LossRecord(entry=entry, state=_FOLLOWS, open=0, healed=0)
        state = "healed" if entry.count else "no loss"
        return LossRecord(entry=entry, state=state, open=0, healed=entry.count)
    healed = len(ids.common(settled))
    missing = len(ids) - healed
    state = "open" if not healed else "partly" if missing else "repaired"
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
