"""Finds loss, duplicates, order, bytes and latency from what is in NATS alone; pure.

Two numberings are followed. The exchange's ids, where a stream has them, show what the relay never received;
`Sluice-Epoch` and `Sluice-Seq` show, for every stream, what was accepted and is not in NATS. A missing id is
not lost if its event is on the subject of repairs, or if the loss ledger says that the id never existed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from relay.audit.message import open_envelope, read_marks
from relay.audit.stream_audit import SideRecords, StreamAudit, StreamFollower
from relay.errors import SluiceError
from relay.losses.entry import LossEntry, read_entry
from relay.model.gap import GapRule
from relay.primitives.histogram import LatencyHistogram

_FENCE_PREFIX = "fence:"
OWN_PREFIX, LEDGER_PREFIX = "sluice.", "sluice.loss."


class Audit:
    """Feed it every message of every stream, in the order received; memory stays bounded.

    `gap_rule_of` returns the rule of the stream with this key, None where its events have no rising ids.
    `skipping` are the keys of the streams whose overflow policy may leave events out.
    """

    def __init__(self, gap_rule_of: Callable[[str], GapRule | None], skipping: Collection[str] = ()) -> None:
        self._gap_rule_of = gap_rule_of
        self._skipping = frozenset(skipping)
        self._streams: dict[str, StreamFollower] = {}
        self._side: dict[str, SideRecords] = {}
        self.malformed = 0
        self.last_problem = ""

    def event_received(self, headers: Mapping[str, str] | None, body: bytes, now_ns: int) -> None:
        """`now_ns` is the wall clock when it was received; headers are None where the relay sends none."""
        if headers and headers.get("Nats-Msg-Id", "").startswith(_FENCE_PREFIX):
            return
        try:
            event = open_envelope(body)
            marks = read_marks(headers, event)
            self._follower(event.key).event_received(event, marks, now_ns)
        except (SluiceError, ValueError, KeyError, TypeError) as error:
            self.malformed += 1
            self.last_problem = f"{error} in {body[:120]!r}"

    def side_record_received(self, subject: str, headers: Mapping[str, str] | None, body: bytes) -> None:
        """A message of a side subject: of the loss ledger, of rejected frames, or a repair."""
        try:
            if subject.startswith(LEDGER_PREFIX):
                self._on_ledger_entry(read_entry(body))
            elif not subject.startswith(OWN_PREFIX):
                event = open_envelope(body)
                read_marks(headers, event)
                self._side_of(event.key).repair(int(event.number))
        except (SluiceError, ValueError, KeyError, TypeError) as error:
            self.malformed += 1
            self.last_problem = f"{error} in {body[:120]!r}"

    def _on_ledger_entry(self, entry: LossEntry) -> None:
        if entry.healed and entry.count == 0 and entry.first_id is not None and entry.last_id is not None:
            self._side_of(entry.stream).absent.add(entry.first_id, entry.last_id)

    def _side_of(self, key: str) -> SideRecords:
        return self._side.setdefault(key, SideRecords())

    def report(self) -> list[StreamAudit]:
        """One for each stream that has events, by key."""
        nothing = SideRecords()
        return [
            self._streams[key].report(self._side.get(key, nothing), may_skip=key in self._skipping)
            for key in sorted(self._streams)
        ]

    def stored(self, key: str) -> int:
        """Distinct events of one stream so far."""
        found = self._streams.get(key)
        return found.stored if found else 0

    def healed(self, key: str) -> int:
        """How many of these came over REST."""
        found = self._streams.get(key)
        return found.healed if found else 0

    def latency(self) -> LatencyHistogram:
        """Of all streams together."""
        merged = LatencyHistogram()
        for follower in self._streams.values():
            merged.merge(follower.latency)
        return merged

    def _follower(self, key: str) -> StreamFollower:
        found = self._streams.get(key)
        if found is None:
            found = self._streams[key] = StreamFollower(key, self._gap_rule_of(key))
        return found
