"""A batch in the memory of its stream; pure."""

from __future__ import annotations

from dataclasses import dataclass

from relay.model.record_batch import EVENT_KINDS, head, slice_records

# What a batch takes in memory besides its encoded bytes: the object, its integers and the bytes header.
BATCH_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFlags:
    """What the window may do with the records of a batch.

    `is_event` is false for side records, `conflatable` says that a later full state supersedes the records,
    and `undroppable` that no overflow policy may drop them though they are no events.
    """

    is_event: bool = False
    conflatable: bool = False
    undroppable: bool = False


EVENTS = BatchFlags(is_event=True)
FULL_STATES = BatchFlags(is_event=True, conflatable=True)
SIDE_RECORD = BatchFlags()
UNDROPPABLE_SIDE_RECORD = BatchFlags(undroppable=True)


@dataclass(slots=True)
class BufferedBatch:
    """An encoded batch, of which the first `done` records are stored already; `recv_ns` is when its records
    were read. Made once for each read, so its arguments are positional: keywords cost 250 ns more.
    """

    offset: int
    count: int
    recv_ns: int
    encoded: bytes
    flags: BatchFlags
    done: int = 0

    @property
    def last_offset(self) -> int:
        return self.offset + self.count - 1

    def part(self, first: int, stop: int) -> BufferedBatch:
        """Its records from number `first` up to but without `stop`."""
        encoded = slice_records(self.encoded, first, stop)
        return BufferedBatch(self.offset + first, stop - first, self.recv_ns, encoded, self.flags)

    def without(self, number: int) -> list[BufferedBatch]:
        """What is left without record `number`, in at most two batches."""
        bounds = ((self.done, number), (number + 1, self.count))
        return [self.part(first, stop) for first, stop in bounds if first < stop]


def from_journal(encoded: bytes, after: int) -> BufferedBatch:
    """A batch that was read back; its records up to offset `after` are done."""
    first = head(encoded)
    # The other flags are for new batches: events that the journal holds are never superseded.
    flags = EVENTS if first.kind in EVENT_KINDS else SIDE_RECORD
    done = max(0, after + 1 - first.offset)
    return BufferedBatch(first.offset, first.records, first.recv_ns, encoded, flags, done)
