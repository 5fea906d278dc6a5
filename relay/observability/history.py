"""The last minutes of the relay, for charts: a bounded number of samples, and the activity in them. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from relay.model.stats import RelayStatus
from relay.observability.activity import ActivityEntry, diff_status

SAMPLES_KEPT = 300
ENTRIES_KEPT = 100
# The controller observes more often than this while something is under way; charts do not need that. Times
# are compared by absolute difference, because the clock may be set back.
SAMPLE_INTERVAL_NS = 900_000_000
# An entry that repeats within this time is one line with a growing number.
MERGE_WITHIN_NS = 30_000_000_000


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """`number` is that of the last status that it appeared in; an entry keeps its `id` as it grows."""

    number: int
    id: int
    at_ns: int
    last_ns: int
    entry: ActivityEntry


@dataclass(slots=True)
class History:
    """`run` identifies the controller whose numbers these are: they start again with each."""

    run: str
    _last: int = 0
    _ids: int = 0
    _status: RelayStatus | None = None
    _samples: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))
    _entries: deque[HistoryEntry] = field(default_factory=lambda: deque(maxlen=ENTRIES_KEPT))

    def update(self, status: RelayStatus, at_ns: int) -> None:
        """`at_ns` is Unix time."""
        before, self._status = self._status, status
        self._last += 1
        if before is not None:
            for one in diff_status(before, status):
                self._add(one, at_ns)
        if not self._samples or abs(at_ns - self._samples[-1]["at_ns"]) >= SAMPLE_INTERVAL_NS:
            self._samples.append(_sample(status, self._last, at_ns))

    def _add(self, found: ActivityEntry, at_ns: int) -> None:
        for known in self._entries:
            same = (known.entry.kind, known.entry.about) == (found.kind, found.about)
            if same and abs(at_ns - known.last_ns) <= MERGE_WITHIN_NS:
                grown = ActivityEntry(
                    found.kind, found.about, found.severity, found.text, known.entry.amount + found.amount
                )
                self._entries.remove(known)
                self._entries.append(HistoryEntry(self._last, known.id, known.at_ns, at_ns, grown))
                return
        self._ids += 1
        self._entries.append(HistoryEntry(self._last, self._ids, at_ns, at_ns, found))

    def encoded(self, after: int) -> bytes:
        """JSON of what is newer than the number `last` of an earlier answer; 0 gives all."""
        start = after if after <= self._last else 0
        return orjson.dumps(
            {
                "run": self.run,
                "last": self._last,
                "samples": [one for one in self._samples if one["number"] > start],
                "happenings": [_encoded_entry(one) for one in self._entries if one.number > start],
            }
        )


def _sample(status: RelayStatus, number: int, at_ns: int) -> dict[str, Any]:
    """Streams: events/s, backlog, p50 and p99 in ms. Publishers: load as a share, events/s."""
    return {
        "number": number,
        "at_ns": at_ns,
        "wanted": status.scale.wanted,
        "actual": status.scale.actual,
        "streams": {
            one.key: [
                round(one.rate_per_s, 1),
                one.backlog_count,
                _rounded(one.latency_p50_ms),
                _rounded(one.latency_p99_ms),
            ]
            for one in status.streams
        },
        "publishers": {
            one.publisher: [round(one.load, 3), round(one.rate_per_s, 1)] for one in status.publishers
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _encoded_entry(known: HistoryEntry) -> dict[str, Any]:
    return {
        "number": known.number,
        "id": known.id,
        "at_ns": known.at_ns,
        "last_ns": known.last_ns,
        "kind": known.entry.kind,
        "about": known.entry.about,
        "weight": known.entry.severity,
        "text": str(known.entry),
    }
