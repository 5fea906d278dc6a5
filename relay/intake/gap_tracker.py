"""Which events of a stream were accepted, and what is missing before the next one; pure.

Exchange ids that name their predecessor show a gap exactly. Without such ids only the time is known in which
events may be missing: between two connections, or between two incarnations.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.binance.classifier import Classification
from relay.binance.event_time import event_time_ns
from relay.journal.damage import JournalLoss
from relay.model.gap import Gap, LossCause
from relay.model.record_batch import NO_EVENT_ID
from relay.primitives.range_set import RangeSet

# Bounds the memory: a stream whose ids do not count up begins a run with each event.
MAX_RUNS = 1000


class Interruption(NamedTuple):
    """Events may be missing between these Unix times in ns, and no ids say how many."""

    cause: LossCause
    from_ns: int
    to_ns: int


class _First(NamedTuple):
    """What is kept of the first event of this incarnation."""

    previous_id: int
    recv_ns: int
    payload: bytes


class GapTracker:
    """Follows every accepted event, in the order in which the stream has them.

    `last_event_id` is the newest id of an earlier incarnation, and `last_event_ns` the Unix time in ns when
    that event was sent; NO_EVENT_ID and 0 where they are not known.
    """

    def __init__(self, last_event_id: int = NO_EVENT_ID, last_event_ns: int = 0) -> None:
        self._last_id = last_event_id
        # What the next event must name as its predecessor: the last id, also where that is not unique.
        self._last_link = last_event_id
        # A run is a range of ids that were accepted without a gap: an id in any run is a repeat. The present
        # run goes from here to `_last_id`.
        self._run_start = last_event_id
        self._earlier_runs = RangeSet()
        self._first: _First | None = None
        self._last_recv_ns = 0
        self._last_payload = b""
        self._disconnected_since_ns: int | None = last_event_ns or None
        self._set_back_ns = 0

    def extend(self, event_ids: list[int], last_payload: bytes, recv_ns: int) -> bool:
        """Accept the events of one read if they certainly are the next ones; else do nothing, return False.

        NO_EVENT_ID stands for each event of a stream without ids. Called for every read.
        """
        if self._first is None or self._set_back_ns:
            return False
        first, last = event_ids[0], event_ids[-1]
        if first == NO_EVENT_ID:
            if self._disconnected_since_ns is not None:
                return False
        elif (
            first != self._last_id + 1
            or first != self._last_link + 1
            or (len(event_ids) > 1 and event_ids != list(range(first, last + 1)))
        ):
            return False
        else:
            self._disconnected_since_ns = None
            self._last_id = self._last_link = last
        self._last_recv_ns = recv_ns
        self._last_payload = last_payload
        return True

    def is_repeat(self, event_id: int) -> bool:
        """Whether this id was accepted before; False for NO_EVENT_ID."""
        if not NO_EVENT_ID < event_id <= self._last_id:
            return False
        return event_id >= self._run_start or event_id in self._earlier_runs

    def missing_before(
        self, payload: bytes, recv_ns: int, classification: Classification
    ) -> Gap | Interruption | None:
        """What was missed before this event, which is the next one. Call once for each event."""
        since_ns, self._disconnected_since_ns = self._disconnected_since_ns, None
        until_ns, self._set_back_ns = recv_ns + self._set_back_ns, 0
        previous_id = classification.previous_id
        known = previous_id != NO_EVENT_ID and self._last_link != NO_EVENT_ID
        if known and previous_id > self._last_link:
            was_connected = since_ns is None and self._last_recv_ns
            return Gap(
                first_id=self._last_link + 1,
                last_id=previous_id,
                cause=LossCause.UPSTREAM if was_connected else LossCause.DISCONNECT,
                from_ns=since_ns or self._last_recv_ns or recv_ns,
                to_ns=until_ns,
                sample=payload,
            )
        if since_ns is not None and not known:
            return Interruption(LossCause.DISCONNECT, since_ns, until_ns)
        return None

    def accepted(self, payload: bytes, recv_ns: int, classification: Classification) -> None:
        event_id, previous_id = classification.event_id, classification.previous_id
        if self._first is None:
            self._first = _First(previous_id, recv_ns, payload)
        if event_id == NO_EVENT_ID:
            self._last_link = classification.own_link_id
        else:
            self._advance(event_id, previous_id)
        self._last_recv_ns, self._last_payload = recv_ns, payload

    def filled(self, payload: bytes, recv_ns: int, event_id: int) -> None:
        """A backfill gave this event, which follows those accepted so far."""
        self._advance(event_id, event_id - 1)
        self._last_recv_ns, self._last_payload = recv_ns, payload

    def close_gap(self, last_id: int) -> None:
        """The gap that ends with `last_id` is over, filled or not: the next event is its successor."""
        if self._last_id != last_id:
            self._begin_run(last_id + 1)
        self._last_id = self._last_link = last_id

    def _advance(self, event_id: int, previous_id: int) -> None:
        if event_id < self._run_start or previous_id != self._last_id:
            self._begin_run(event_id)
        self._last_id = self._last_link = event_id

    def _begin_run(self, event_id: int) -> None:
        if self._earlier_runs.runs >= MAX_RUNS:
            self._earlier_runs = RangeSet()
        self._earlier_runs.add(max(0, self._run_start), self._last_id)
        self._run_start = event_id

    def disconnected(self, since_ns: int | None = None) -> None:
        """The connection ended; without `since_ns`, right after the last event was sent."""
        if self._disconnected_since_ns is not None:
            return
        if since_ns is not None:
            self._disconnected_since_ns = since_ns
        elif self._last_recv_ns:
            self._disconnected_since_ns = event_time_ns(self._last_payload, self._last_recv_ns)

    def clock_set_back(self, by_ns: int) -> None:
        """Call before what is read by the new clock: the time before it is then covered by both clocks."""
        self._set_back_ns += by_ns
        if self._last_recv_ns:
            self._last_recv_ns -= by_ns
        if self._disconnected_since_ns is not None:
            self._disconnected_since_ns -= by_ns

    def follow(self, event_id: int, link_id: int, recv_ns: int, *, seamless: bool) -> None:
        """Continue after this event of another incarnation; call before anything is accepted.

        Unless it is `seamless`, events may be missing between the two.
        """
        self._run_start = self._last_id = event_id
        self._last_link = link_id
        self._last_recv_ns = recv_ns
        self._disconnected_since_ns = None if seamless else recv_ns or None

    def missing_after_predecessor(self, event_id: int, at_ns: int) -> Gap | Interruption | None:
        """What is missing between this last event of earlier incarnations, sent at `at_ns`, and our first
        one.

        None as well if no event was accepted yet: then the next one is compared with it.
        """
        first = self._first
        if first is None:
            self._disconnected_since_ns = at_ns
            self._run_start = self._last_id = self._last_link = event_id
            return None
        if event_id == NO_EVENT_ID:
            return Interruption(LossCause.DISCONNECT, at_ns, first.recv_ns)
        if first.previous_id <= event_id:
            return None
        return Gap(
            first_id=event_id + 1,
            last_id=first.previous_id,
            cause=LossCause.DISCONNECT,
            from_ns=at_ns,
            to_ns=first.recv_ns,
            sample=first.payload,
        )

    def missing_in_journal(self, loss: JournalLoss, next_previous_id: int) -> Gap | Interruption | None:
        """The gap that damage left, if ids show it.

        `next_previous_id` is the predecessor that the event after the damage names, if there is such an
        event.
        """
        after = loss.after
        last_id = self._last_id if after is None else next_previous_id
        latest_ns = self._last_recv_ns or self._disconnected_since_ns or loss.before_ns
        to_ns = latest_ns if after is None else after.recv_ns
        if NO_EVENT_ID in (last_id, loss.before_id):
            return Interruption(LossCause.JOURNAL, loss.before_ns or to_ns, to_ns)
        if last_id <= loss.before_id:
            return None
        return Gap(
            first_id=loss.before_id + 1,
            last_id=last_id,
            cause=LossCause.JOURNAL,
            from_ns=loss.before_ns,
            to_ns=to_ns,
            sample=self._last_payload if after is None else after.payloads[0],
        )
