"""Which queued events NATS has stored already, once a publisher has sent the stored position; pure.

A stored event of this incarnation, or of an earlier one whose journal it claimed, is known by its epoch and
its seq. An earlier incarnation that was believed to be dead may also have read and stored the same events as
this one: only the exchange's event ids show that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import replace
from typing import NamedTuple

from relay.delivery.buffered_batch import BATCH_BYTES, BufferedBatch
from relay.model.position import SAME_TIME_NS, StoredPosition
from relay.model.record_batch import NO_EVENT_ID, RecordKind, decode, head


class StoredEvents(NamedTuple):
    """What was found to be stored: so many `events`; `freed_bytes` of memory, for the batches that left the
    queue; and `last`, the newest of the events, as an encoded batch and the number of its record."""

    events: int
    freed_bytes: int
    last: tuple[bytes, int] | None


def advanced(known: StoredPosition, stored: StoredPosition) -> StoredPosition:
    """`stored`, or the event of this stream's own sequence that is known to be stored, if that is later."""
    epoch, seq = max(known.epoch_seq, stored.epoch_seq)
    return replace(stored, epoch=epoch, seq=seq)


def remove_stored(queued: deque[BufferedBatch], stored: StoredPosition) -> StoredEvents:
    """Remove the stored events from the front of the queue.

    Side records stay: a later stored event does not prove that they are stored, and their message ids make a
    repeat harmless.
    """
    count = freed_bytes = 0
    last = None
    side_records: list[BufferedBatch] = []
    while queued:
        oldest = queued[0]
        if oldest.flags.is_event:
            newly_stored = mark_stored(oldest, stored)
            count += newly_stored
            last = (oldest.encoded, oldest.done - 1) if newly_stored else last
            if oldest.done < oldest.count:
                break
            freed_bytes += BATCH_BYTES + len(oldest.encoded)
        else:
            side_records.append(oldest)
        queued.popleft()
    queued.extendleft(reversed(side_records))
    return StoredEvents(count, freed_bytes, last)


def remove_stored_newest(queued: deque[BufferedBatch], stored: StoredPosition) -> StoredEvents:
    """The same for the last batch of the queue alone, which must be a batch of events."""
    newest = queued[-1]
    count = mark_stored(newest, stored)
    last = (newest.encoded, newest.done - 1) if count else None
    if newest.done < newest.count:
        return StoredEvents(count, 0, last)
    queued.pop()
    return StoredEvents(count, BATCH_BYTES + len(newest.encoded), last)


def mark_stored(batch: BufferedBatch, stored: StoredPosition) -> int:
    """Count the stored records of a batch of events as done; how many were not done before."""
    newly_stored = max(0, stored_records(batch, stored) - batch.done)
    batch.done += newly_stored
    return newly_stored


def stored_records(batch: BufferedBatch, stored: StoredPosition) -> int:
    """How many records at the front of a batch of events are stored."""
    first = head(batch.encoded)
    if (first.epoch, first.seq) <= stored.epoch_seq:
        return batch.count if first.epoch < stored.epoch else min(batch.count, stored.seq - first.seq + 1)
    # Ids are compared only for events read at about the same time as the stored one, or asked of REST behind
    # a known id: after a restart of the exchange ids begin low again, so that a low id alone does not prove
    # that an event is stored.
    comparable = first.kind == RecordKind.HEALED or first.recv_ns <= stored.recv_ns + SAME_TIME_NS
    if first.epoch == stored.epoch or not comparable:
        return 0
    event_ids = decode(batch.encoded, 0, check=False)[0].event_ids
    return 0 if event_ids[0] == NO_EVENT_ID else bisect_right(event_ids, stored.event_id)
