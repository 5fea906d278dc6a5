"""Where a stream stands in NATS: the last event that is stored; pure."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from relay.model.record_batch import NO_EVENT_ID, RecordBatch


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """One event, as any leg can recognise it. `seq` is 0 where there is no event; `digest` is 0 where the
    payload is not known."""

    epoch: int = 0
    seq: int = 0
    event_id: int = NO_EVENT_ID
    recv_ns: int = 0
    digest: int = 0

    @property
    def epoch_seq(self) -> tuple[int, int]:
        return self.epoch, self.seq


def digest_of(payload: bytes) -> int:
    """63 bits, so that it fits wherever an id does."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "little") >> 1


def position_of(event: RecordBatch) -> StoredPosition:
    """Of an event that is alone in its batch."""
    return StoredPosition(
        event.epoch, event.seq, event.event_ids[0], event.recv_ns, digest_of(event.payloads[0])
    )
