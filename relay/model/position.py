"""The last event of a stream that NATS has stored, passed as one value wherever it is needed; pure.

A publisher reads it from NATS when it fences out older epochs (relay/adapters/nats/fencing.py), sends it with
Resume (relay/delivery/link_codec.py), and the stream then sends what comes after it. The instances of a
critical stream also send it to each other (relay/standby/peer_status.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from relay.model.record_batch import NO_EVENT_ID, RecordBatch

# Two sockets deliver the same event at times, by two clocks, that differ by less than this. Event ids may be
# compared only within it, since ids start low again after a restart of the exchange.
SAME_TIME_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StoredPosition:
    """Identifies one event for every incarnation and instance of its stream.

    `epoch` and `seq` are 0 where no event is known to be stored. `event_id` is the exchange's id, NO_EVENT_ID
    where the event has none; `recv_ns` is when it was read from the exchange and `sent_ns` when the exchange
    sent it, both in ns since 1970; `digest` is `digest_of` its payload. Each of these three is 0 where it is
    not known.
    """

    epoch: int = 0
    seq: int = 0
    event_id: int = NO_EVENT_ID
    recv_ns: int = 0
    digest: int = 0
    sent_ns: int = 0

    @property
    def epoch_seq(self) -> tuple[int, int]:
        return self.epoch, self.seq


NOTHING_STORED = StoredPosition()


def digest_of(payload: bytes) -> int:
    """63 bits of BLAKE2b, which fit into the signed 64-bit fields that event ids take."""
    return int.from_bytes(blake2b(payload, digest_size=8).digest(), "little") >> 1


def position_of(event: RecordBatch) -> StoredPosition:
    """Of the first event of a batch; `sent_ns` stays 0, since only the exchange's format tells it."""
    return StoredPosition(
        event.epoch, event.seq, event.event_ids[0], event.recv_ns, digest_of(event.payloads[0])
    )
