"""The loss ledger's entries of a gap; pure."""

from __future__ import annotations

from relay.binance.streams import StreamSpec
from relay.losses.entry import LossEntry
from relay.model.gap import FillOutcome, FillRange, Gap, LossCause
from relay.primitives.range_set import Range

# For a loss that seems to end before it begins: the two times come from before and after the clock was set.
SET_BACK = "the clock was set back meanwhile, so these times are rough"


def filled_entry(stream: str, gap: Gap, filled: FillRange, subject: str) -> LossEntry:
    """For ids that REST answered for; the events, if there are any, are on `subject`."""
    absent = filled.outcome is FillOutcome.ABSENT
    return LossEntry(
        stream=stream,
        first_id=filled.first_id,
        last_id=filled.last_id,
        count=len(filled.payloads),
        cause=gap.cause,
        from_ns=min(gap.from_ns, gap.to_ns),
        to_ns=max(gap.from_ns, gap.to_ns),
        healed=True,
        subject=None if absent else subject,
        reason="REST lists the events around these ids and none with them" if absent else "",
    )


def lost_entry(
    spec: StreamSpec, ids: Range | None, cause: LossCause, from_ns: int, to_ns: int, reason: str
) -> LossEntry:
    """For events that are lost; `ids` is None where the stream has none."""
    first_id, last_id = ids if ids else (None, None)
    count = ids[1] - ids[0] + 1 if ids and spec.counts_by_ids else None
    return LossEntry(
        stream=spec.key,
        first_id=first_id,
        last_id=last_id,
        count=count,
        cause=cause,
        from_ns=min(from_ns, to_ns),
        to_ns=max(from_ns, to_ns),
        suspect=count is not None and spec.may_skip_ids,
        reason=f"{reason}; {SET_BACK}" if to_ns < from_ns else reason,
    )
