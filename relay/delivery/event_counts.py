"""Counts over the events of one stream; pure.

Every received event is in exactly one place, so that
`received = acknowledged + conflated + dropped + rejected + spilled + queued + in flight` holds at any moment.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class EventCounts:
    """Since the start of this incarnation; only `spilled` also goes down.

    `recovered` is the part of `received` that came from the journal of earlier incarnations. `repeated`
    counts events that were received again and discarded: they are in no other count.
    """

    received: int = 0
    recovered: int = 0
    acknowledged: int = 0
    conflated: int = 0
    dropped: int = 0
    rejected: int = 0
    repeated: int = 0
    # Held by the journal alone, and not in memory.
    spilled: int = 0
