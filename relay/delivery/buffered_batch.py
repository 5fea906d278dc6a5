"""A batch in the memory of its stream; pure."""

from __future__ import annotations

from dataclasses import dataclass

from relay.model.record_batch import EVENT_KINDS, head, slice_records


@dataclass(slots=True)
class BufferedBatch:
    """A batch in memory, encoded; its first `done` records have left already.

    `conflatable` says that a later full state makes its records worthless, `vital` that no policy may drop it
    though it holds no event.
    """

    offset: int
    count: int
    recv_ns: int
    encoded: bytes
    is_event: bool
    conflatable: bool
    undroppable: bool = False
    done: int = 0

    @property
    def last_offset(self) -> int:
        return self.offset + self.count - 1

    def part(self, first: int, stop: int) -> BufferedBatch:
        """Its records from number `first` up to `stop`."""
        encoded = slice_records(self.encoded, first, stop)
        flags = self.is_event, self.conflatable, self.undroppable
        return BufferedBatch(self.offset + first, stop - first, self.recv_ns, encoded, *flags)

    def without(self, number: int) -> list[BufferedBatch]:
        """What is left when its record `number` leaves."""
        bounds = ((self.done, number), (number + 1, self.count))
        return [self.part(first, stop) for first, stop in bounds if first < stop]


def from_journal(encoded: bytes, after: int) -> BufferedBatch:
    """A batch that was read back, whose records up to offset `after` have left already."""
    first = head(encoded)
    is_event = first.kind in EVENT_KINDS
    done = max(0, after + 1 - first.offset)
    return BufferedBatch(first.offset, first.records, first.recv_ns, encoded, is_event, False, done=done)
