"""Encodes records for NATS: protocol line, headers, envelope and payload; pure.

Messages are formatted as bytes from a few templates, 1.1 us each; names may have characters beyond ASCII.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.binance.streams import StreamSpec
from relay.model.record_batch import RecordBatch, RecordKind
from relay.publish.chain import Chain
from relay.publish.envelope import TAIL, Envelope
from relay.publish.message_ids import message_ids

_FROM_REST = frozenset({RecordKind.HEALED, RecordKind.REPAIR})
# Its id, the id before it and the sequence of that one, its seq, and what a whole batch shares.
_CHAINED = (
    b"NATS/1.0\r\nNats-Msg-Id: %b\r\nNats-Expected-Last-Msg-Id: %b\r\nNats-Expected-Last-Sequence: %d\r\n"
    b"Sluice-Seq: %d\r\n%b"
)
_BEGINNING = b"NATS/1.0\r\nNats-Msg-Id: %b\r\nNats-Expected-Last-Sequence: %d\r\nSluice-Seq: %d\r\n%b"
_UNCHAINED = b"NATS/1.0\r\nNats-Msg-Id: %b\r\nSluice-Seq: %d\r\n%b"
_WITH_HEADERS = b"HPUB %b %d %d\r\n%b%b%b%b%b%b\r\n"
_WITHOUT = b"PUB %b %d\r\n%b%b%b%b%b\r\n"


@dataclass(frozen=True, slots=True)
class Route:
    """How messages reach NATS in one session. Core delivery has no answers, and no `reply_prefix`."""

    subject: str
    repair_subject: str
    reply_prefix: str
    with_headers: bool
    max_payload: int


class MessageEncoder:
    """For one stream in one session. Each method appends whole messages to `out`."""

    def __init__(self, spec: StreamSpec, route: Route) -> None:
        self._key = spec.key.encode()
        self._envelope = Envelope(spec.name)
        self._with_headers = route.with_headers
        self._subject = route.subject.encode()
        self._side_subjects = {
            RecordKind.REPAIR: route.repair_subject.encode(),
            RecordKind.LOSS: spec.loss_subject.encode(),
            RecordKind.REJECTED: spec.rejected_subject.encode(),
        }

    def events(
        self, batch: RecordBatch, first: int, stop: int, chain: Chain, reply: bytes, out: list[bytes]
    ) -> None:
        """Records `first` to `stop` of a batch of events, each chained to the one before it.

        Only the last asks for an answer, on `reply` unless that is empty; it acknowledges the whole chain.
        """
        identities = message_ids(self._key, batch, first, stop)
        payloads = batch.payloads[first:stop]
        seq, target = batch.seq + first, self._subject
        head, stamp, constant = self._envelope.head, self._envelope.stamp(batch.recv_ns), _constant(batch)
        around_bytes = len(head) + len(stamp) + len(TAIL)
        last, sequence, chained = chain.last_id, chain.expected_sequence, chain.is_chained
        with_headers = self._with_headers
        left = len(payloads)
        for identity, payload in zip(identities, payloads, strict=True):
            left -= 1
            if not left and reply:
                target = b"%b %b" % (target, reply)
            if last:
                block = _CHAINED % (identity, last, sequence, seq, constant)
            elif chained:
                block = _BEGINNING % (identity, sequence, seq, constant)
            else:
                block = _UNCHAINED % (identity, seq, constant)
            if chained:
                last, sequence = identity, sequence + 1
            seq += 1
            size = around_bytes + len(payload) + len(identity)
            if with_headers:
                sizes = len(block), len(block) + size
                out.append(_WITH_HEADERS % (target, *sizes, block, head, payload, stamp, identity, TAIL))
            else:
                out.append(_WITHOUT % (target, size, head, payload, stamp, identity, TAIL))
        chain.expect(sequence, last)

    def side(self, batch: RecordBatch, reply: bytes, out: list[bytes]) -> None:
        """A side record: not part of the chain, on a subject of its own."""
        (identity,) = message_ids(self._key, batch, 0, 1)
        target = self._side_subjects[RecordKind(batch.kind)]
        if reply:
            target = b"%b %b" % (target, reply)
        body = batch.payloads[0]
        if batch.kind == RecordKind.REPAIR:
            body = self._envelope.wrap(body, batch.recv_ns, identity)
        if not self._with_headers:
            out.append(b"PUB %b %d\r\n%b\r\n" % (target, len(body), body))
            return
        block = _UNCHAINED % (identity, batch.seq, _constant(batch))
        out.append(b"HPUB %b %d %d\r\n%b%b\r\n" % (target, len(block), len(block) + len(body), block, body))


def payload_bytes(message: bytes) -> int:
    """What the server compares with its `max_payload`: headers and body."""
    return len(message) - message.index(b"\r\n") - len(b"\r\n\r\n")


def _constant(batch: RecordBatch) -> bytes:
    healed = b"Sluice-Healed: 1\r\n" if batch.kind in _FROM_REST else b""
    return b"Sluice-Epoch: %d\r\nSluice-Recv-Ns: %d\r\n%b\r\n" % (batch.epoch, batch.recv_ns, healed)
