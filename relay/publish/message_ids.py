"""The message ids of events and fences, as NATS and consumers see them; pure."""

from __future__ import annotations

from relay.binance.streams import StreamSpec
from relay.model.record_batch import EVENT_KINDS, NO_EVENT_ID, RecordBatch, RecordKind


def message_ids(key: bytes, batch: RecordBatch, first: int, stop: int) -> list[bytes]:
    """One for each record from `first` up to but without `stop`, of the stream with this key.

    An id names the record and not its delivery. With the exchange's id in it, it is the same from every
    connection and incarnation.
    """
    if batch.kind not in EVENT_KINDS and batch.kind != RecordKind.REPAIR:
        kind = RecordKind(batch.kind).name.lower().encode()
        prefix, number = b"%b:%b:%d-" % (key, kind, batch.epoch), batch.offset
    elif batch.event_ids[first] != NO_EVENT_ID:
        return [b"%b:%d" % (key, event_id) for event_id in batch.event_ids[first:stop]]
    else:
        prefix, number = b"%b:%d-" % (key, batch.epoch), batch.seq
    return [b"%b%d" % (prefix, each) for each in range(number + first, number + stop)]


def natural_id(spec: StreamSpec, message: str) -> int:
    """The exchange's id in the message id of an event; NO_EVENT_ID where there is none."""
    text = message.removeprefix(f"{spec.key}:")
    return int(text) if spec.id_key and text.isdecimal() else NO_EVENT_ID


def fence_id(spec: StreamSpec, epoch: int) -> str:
    return f"fence:{spec.key}:{epoch}"
