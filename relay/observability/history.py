"""The last minutes of the relay, for charts: a bounded ring of samples, and what happened meanwhile. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from relay.model.stats import RelayStatus
from relay.observability.activity import ActivityEntry, diff_status

SAMPLES_KEPT = 300
ENTRIES_KEPT = 100
# The controller looks more often while something is under way; charts need no more than this. Spans of time
# are taken without their sign: somebody may set the clock back.
SAMPLE_INTERVAL_NS = 900_000_000
# What goes on happening is one line with a growing number.
MERGE_WITHIN_NS = 30_000_000_000


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """`number` is that of its last look, `id` that of its first; a happening keeps its `id` as it grows."""

    number: int
    id: int
    at_ns: int
    last_ns: int
    entry: ActivityEntry


@dataclass(slots=True)
class History:
    """`run` tells one controller's numbers from those of another."""

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
                self._note(one, at_ns)
        if not self._samples or abs(at_ns - self._samples[-1]["at_ns"]) >= SAMPLE_INTERVAL_NS:
            self._samples.append(_sample(status, self._last, at_ns))

    def _note(self, found: ActivityEntry, at_ns: int) -> None:
        for noted in self._entries:
            same = (noted.entry.kind, noted.entry.about) == (found.kind, found.about)
            if same and abs(at_ns - noted.last_ns) <= MERGE_WITHIN_NS:
                grown = ActivityEntry(
                    found.kind, found.about, found.severity, found.text, noted.entry.amount + found.amount
                )
                self._entries.remove(noted)
                self._entries.append(HistoryEntry(self._last, noted.id, noted.at_ns, at_ns, grown))
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


def _encoded_entry(noted: HistoryEntry) -> dict[str, Any]:
    return {
        "number": noted.number,
        "id": noted.id,
        "at_ns": noted.at_ns,
        "last_ns": noted.last_ns,
        "kind": noted.entry.kind,
        "about": noted.entry.about,
        "weight": noted.entry.severity,
        "text": str(noted.entry),
    }
