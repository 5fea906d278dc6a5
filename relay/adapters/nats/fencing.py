"""Fencing: how a new incarnation acquires the right to store a stream's events, and learns what is stored.

A fence is a message on the stream's fence subject. It is published on condition that no other fence came in
between. It becomes the stream's last message, so NATS refuses the next event of an older writer, which names
another message as the last one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import uuid4

import orjson

from relay.adapters.nats.jetstream_api import Requests, ask
from relay.binance.streams import StreamSpec
from relay.errors import BusError, FencedError, RefusedError
from relay.model.position import NOTHING_STORED, StoredPosition, digest_of
from relay.publish.chain import PublishRefusal, read_reply
from relay.publish.envelope import payload_of
from relay.publish.message_ids import fence_id, natural_id

NO_MESSAGE = 10037
# The first try publishes the fence, the second finds it; the third is for a fence that came in between.
FENCE_TRIES = 3


# When the exchange sent an event, from its payload and the time it was read; both in Unix time, in ns.
EventTime = Callable[[bytes, int], int]


@dataclass(frozen=True, slots=True)
class SubjectState:
    """Where the events of one stream go. `subject` is where they are stored, `last_sequence` the JetStream
    sequence that the next message must find to be the last, and `stored` the last event there."""

    subject: str
    last_sequence: int
    stored: StoredPosition = NOTHING_STORED


class _Message(NamedTuple):
    """A stored message: its JetStream sequence, and the position that its headers and payload give."""

    sequence: int
    position: StoredPosition


async def read_position(connection: Requests, spec: StreamSpec, template: str) -> SubjectState:
    """The state without `stored`; raises BusError if NATS does not answer or stores no such events.

    JetStream itself is asked for the subject, since only the controller knows whether streams share one.
    """
    info = await ask(connection, f"STREAM.INFO.{spec.jetstream_name}")
    captured = info["config"].get("subjects", [])
    for subject in (spec.subject(template), spec.stored_subject):
        if subject in captured:
            return SubjectState(subject, int(info["state"]["last_seq"]))
    raise BusError(
        f"{spec.jetstream_name} does not store {spec.subject(template)}; apply the configuration again"
    )


async def fence_and_read(
    connection: Requests, spec: StreamSpec, template: str, epoch: int, event_time: EventTime
) -> SubjectState:
    """Fence out older epochs, then read the stored position, which no older writer can change any more.

    Raises FencedError if a later epoch has left a fence or an event, and BusError if NATS does not answer or
    refuses.
    """
    for _ in range(FENCE_TRIES):
        # `last_sequence` is read first: if another writer stores a message afterwards, NATS refuses ours.
        state = await read_position(connection, spec, template)
        fence = await _last(connection, spec, spec.fence_subject, event_time)
        last = await _last(connection, spec, state.subject, event_time)
        for found in (fence, last):
            if found is not None and found.position.epoch > epoch:
                raise FencedError(spec.key, found.position.epoch)
        if fence is not None and fence.position.epoch == epoch:
            return state if last is None else replace(state, stored=last.position)
        await _put_fence(connection, spec, epoch, fence.sequence if fence else 0)
    raise BusError(f"{spec.jetstream_name} does not keep the fence of {spec.key}; look at its limits")


async def _put_fence(connection: Requests, spec: StreamSpec, epoch: int, after_sequence: int) -> None:
    name = fence_id(spec, epoch)
    # After a purge the server still knows the id and treats the fence as a duplicate: try a second id.
    for message_id in (name, f"{name}:{uuid4().hex}"):
        conditions = {
            "Nats-Msg-Id": message_id,
            "Nats-Expected-Last-Subject-Sequence": str(after_sequence),
            "Sluice-Epoch": str(epoch),
        }
        reply = read_reply(await connection.request(spec.fence_subject, b"", conditions), 0)
        if isinstance(reply, PublishRefusal):
            raise RefusedError(f"the fence of {spec.key} was refused", reply.code, reply.text)
        if reply is False:
            return


async def _last(
    connection: Requests, spec: StreamSpec, subject: str, event_time: EventTime
) -> _Message | None:
    query = orjson.dumps({"last_by_subj": subject})
    try:
        found = await ask(connection, f"STREAM.MSG.GET.{spec.jetstream_name}", query)
    except RefusedError as error:
        if error.code == NO_MESSAGE:
            return None
        raise
    message = found["message"]
    fields = _read_headers(base64.b64decode(message.get("hdrs", "")))
    payload = payload_of(base64.b64decode(message.get("data", "")))
    recv_ns = _number(fields, "Sluice-Recv-Ns")
    position = StoredPosition(
        epoch=_number(fields, "Sluice-Epoch"),
        seq=_number(fields, "Sluice-Seq"),
        event_id=natural_id(spec, fields.get("Nats-Msg-Id", "")),
        recv_ns=recv_ns,
        digest=digest_of(payload) if payload else 0,
        sent_ns=event_time(payload, recv_ns),
    )
    return _Message(message["seq"], position)


def _read_headers(block: bytes) -> dict[str, str]:
    lines = block.decode(errors="replace").split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


def _number(fields: dict[str, str], name: str) -> int:
    """0 for a message that the relay did not write."""
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else 0
