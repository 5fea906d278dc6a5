"""Where one stream stands in JetStream, and how a new incarnation of its actor takes it over.

A fence is a message on the stream's fence subject. It is published on condition that no other fence came in
between, and it moves the stream's last message id, so that an older writer's next event is refused.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from uuid import uuid4

import orjson

from relay.adapters.nats.jetstream_api import Requests, ask
from relay.binance.event_time import event_time_ns
from relay.binance.streams import StreamSpec
from relay.errors import BusError, FencedError, RefusedError
from relay.model.position import digest_of
from relay.model.record_batch import NO_EVENT_ID
from relay.publish.chain import Refusal, read_reply
from relay.publish.envelope import payload_of
from relay.publish.message_ids import fence_id, natural_id

NO_MESSAGE = 10037
# One puts the fence, the next finds it.
FENCE_TRIES = 3


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored message: its place in the JetStream stream, what its headers tell, and of its payload the
    digest, 0 if it has none, and when that was sent."""

    sequence: int
    message_id: str
    epoch: int
    seq: int
    recv_ns: int
    digest: int
    sent_ns: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """`last_sequence` is where the next message must find the JetStream stream; `epoch` and `seq` name the
    last event, 0 and 0 if none is stored; `event_id` is that event's id on the exchange, where it has one,
    `recv_ns` when it was read, `sent_ns` when sent, and `digest` that of its payload. `subject` is where they
    are stored."""

    subject: str
    last_sequence: int
    epoch: int = 0
    seq: int = 0
    event_id: int = NO_EVENT_ID
    recv_ns: int = 0
    digest: int = 0
    sent_ns: int = 0


async def read_position(bus: Requests, spec: StreamSpec, template: str) -> Standing:
    """Without the last event; raises BusError if NATS does not answer or stores no such events.

    JetStream itself is asked for the subject: whether several streams share one is known to the controller.
    """
    info = await ask(bus, f"STREAM.INFO.{spec.jetstream_name}")
    captured = info["config"].get("subjects", [])
    for subject in (spec.subject(template), spec.stored_subject):
        if subject in captured:
            return Standing(subject, int(info["state"]["last_seq"]))
    raise BusError(
        f"{spec.jetstream_name} does not store {spec.subject(template)}; apply the configuration again"
    )


async def fence_and_read(bus: Requests, spec: StreamSpec, template: str, epoch: int) -> Standing:
    """Fence older epochs out, then read where the stream stands: nobody else can add to it from then on.

    Raises FencedError if a later epoch was here, BusError if NATS does not answer or refuses.
    """
    for _ in range(FENCE_TRIES):
        # In this order: whatever another writer adds after the first look fails the next condition.
        standing = await read_position(bus, spec, template)
        fence = await _last(bus, spec, spec.fence_subject)
        last = await _last(bus, spec, standing.subject)
        for found in (fence, last):
            if found is not None and found.epoch > epoch:
                raise FencedError(spec.key, found.epoch)
        if fence is not None and fence.epoch == epoch:
            return standing if last is None else _behind(standing, spec, last)
        await _put_fence(bus, spec, epoch, fence.sequence if fence else 0)
    raise BusError(f"{spec.jetstream_name} does not keep the fence of {spec.key}; look at its limits")


def _behind(standing: Standing, spec: StreamSpec, last: Stored) -> Standing:
    return replace(
        standing,
        epoch=last.epoch,
        seq=last.seq,
        event_id=natural_id(spec, last.message_id),
        recv_ns=last.recv_ns,
        digest=last.digest,
        sent_ns=last.sent_ns,
    )


async def _put_fence(bus: Requests, spec: StreamSpec, epoch: int, after_sequence: int) -> None:
    name = fence_id(spec, epoch)
    # A repeat was stored and purged since, but the server still knows its id: only another id is stored.
    for message_id in (name, f"{name}:{uuid4().hex}"):
        conditions = {
            "Nats-Msg-Id": message_id,
            "Nats-Expected-Last-Subject-Sequence": str(after_sequence),
            "Sluice-Epoch": str(epoch),
        }
        reply = read_reply(await bus.request(spec.fence_subject, b"", conditions), 0)
        if isinstance(reply, Refusal):
            raise RefusedError(f"the fence of {spec.key} was refused", reply.code, reply.text)
        if reply is False:
            return


async def _last(bus: Requests, spec: StreamSpec, subject: str) -> Stored | None:
    query = orjson.dumps({"last_by_subj": subject})
    try:
        found = await ask(bus, f"STREAM.MSG.GET.{spec.jetstream_name}", query)
    except RefusedError as error:
        if error.code == NO_MESSAGE:
            return None
        raise
    message = found["message"]
    fields = _read_headers(base64.b64decode(message.get("hdrs", "")))
    payload = payload_of(base64.b64decode(message.get("data", "")))
    recv_ns = _number(fields, "Sluice-Recv-Ns")
    return Stored(
        sequence=message["seq"],
        message_id=fields.get("Nats-Msg-Id", ""),
        epoch=_number(fields, "Sluice-Epoch"),
        seq=_number(fields, "Sluice-Seq"),
        recv_ns=recv_ns,
        digest=digest_of(payload) if payload else 0,
        sent_ns=event_time_ns(payload, recv_ns),
    )


def _read_headers(block: bytes) -> dict[str, str]:
    lines = block.decode(errors="replace").split("\r\n")[1:]
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines) if name}


def _number(fields: dict[str, str], name: str) -> int:
    """0 for a message that somebody else wrote."""
    text = fields.get(name, "")
    return int(text) if text.isdecimal() else 0
