"""Compares what the exchange has sent with what a consumer has found in NATS; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from relay.audit.stream_audit import StreamAudit
from relay.primitives.range_set import Range, RangeSet


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamComparison:
    """Of one stream. `conflated` events were left out by the stream's overflow policy, which counted them.

    `sent` counts the events sent on connections, and those that only REST returned because no connection was
    open. `repaired` events are on the subject of repairs. `bytes_equal` is None where the two sets differ, so
    that their bytes cannot be compared.
    """

    stream: str
    sent: int
    stored: int
    conflated: int
    duplicated: int
    out_of_order: int
    bytes_equal: bool | None
    p50_ms: float | None
    p99_ms: float | None
    healed: int = 0
    repaired: int = 0

    @property
    def lost(self) -> int:
        return max(0, self.sent - self.stored - self.repaired - self.conflated)

    @property
    def unexpected(self) -> int:
        """How many more events are stored than the exchange sent."""
        return max(0, self.stored + self.repaired + self.conflated - self.sent)

    @property
    def passed(self) -> bool:
        faults = self.lost or self.unexpected or self.duplicated or self.out_of_order
        return not faults and self.bytes_equal is not False


@dataclass(frozen=True, slots=True)
class Sent:
    """What the exchange sent on one stream; the digest is computed as in relay/audit/stream_audit.py.

    `unseen` are ids of events that it produced while no connection was open; `events` and `digest` leave them
    out.
    """

    events: int
    digest: str
    unseen: tuple[Range, ...] = ()


def compare(
    sent: Mapping[str, Sent], audits: Iterable[StreamAudit], conflated: Mapping[str, int]
) -> list[StreamComparison]:
    """One for each stream that was sent or found, by key; a stream without any stored event is lost."""
    found = {audit.stream: audit for audit in audits}
    return [
        _compared(key, sent.get(key, Sent(0, "")), found.get(key), conflated.get(key, 0))
        for key in sorted(sent.keys() | found.keys())
    ]


def _compared(key: str, sent: Sent, audit: StreamAudit | None, conflated: int) -> StreamComparison:
    stored = audit.stored if audit else 0
    repaired = audit.repaired if audit else 0
    unseen = len(RangeSet(audit.mended).common(RangeSet(sent.unseen))) if audit else 0
    comparable = not unseen and not repaired and stored == sent.events
    return StreamComparison(
        stream=key,
        sent=sent.events + unseen,
        stored=stored,
        conflated=conflated,
        duplicated=audit.duplicated if audit else 0,
        out_of_order=audit.out_of_order if audit else 0,
        bytes_equal=audit.digest == sent.digest if audit and comparable else None,
        p50_ms=audit.p50_ms if audit else None,
        p99_ms=audit.p99_ms if audit else None,
        healed=audit.healed if audit else 0,
        repaired=repaired,
    )
