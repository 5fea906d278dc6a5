"""Decodes one message as consumers receive it, envelope and headers; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from relay.errors import MalformedError


@dataclass(frozen=True, slots=True)
class ConsumedEvent:
    """One decoded message: `number` is the end of its id, `data` the payload's bytes, `payload` its JSON."""

    key: str
    number: str
    message_id: str
    data: bytes
    payload: Any


class Marks(NamedTuple):
    """From the headers; without headers `epoch` is 0 unless the message id contains it."""

    epoch: int
    seq: int
    recv_ns: int | None
    healed: bool = False


def open_envelope(body: bytes) -> ConsumedEvent:
    """Raises MalformedError unless `body` is the envelope to the byte, ValueError or KeyError if no JSON."""
    fields = orjson.loads(body)
    stream, identity, timestamp = fields["stream"], fields["message_id"], fields["timestamp"]
    head = f'{{"stream":"{stream}","data":'.encode()
    tail = (
        f',"timestamp":"{timestamp}","message_id":"{identity}","source":"binance-websocket","version":"1.0"}}'
    ).encode()
    key, _, number = str(identity).rpartition(":")
    if not (body.startswith(head) and body.endswith(tail) and key.endswith(f":{stream}")):
        raise MalformedError("the envelope has other fields or another order")
    data = body[len(head) : len(body) - len(tail)]
    return ConsumedEvent(key, number, identity, data, fields["data"])


def read_marks(headers: Mapping[str, str] | None, event: ConsumedEvent) -> Marks:
    if headers is None:
        epoch, dash, seq = event.number.partition("-")
        return Marks(int(epoch), int(seq), None) if dash else Marks(0, 0, None)
    if headers.get("Nats-Msg-Id") != event.message_id:
        raise MalformedError(f"the headers name another id than the envelope's {event.message_id}")
    return Marks(
        int(headers["Sluice-Epoch"]),
        int(headers["Sluice-Seq"]),
        int(headers["Sluice-Recv-Ns"]),
        headers.get("Sluice-Healed") == "1",
    )
