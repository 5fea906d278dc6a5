"""The link's codec: the messages between a stream actor and its publisher, as bytes; pure.

A message is `length u32 | type u8 | body`, little endian; `length` counts type and body. The publisher sends
a Challenge, the stream actor answers with a Hello, and the publisher with a Resume, which names the stored
position. From then on the stream actor sends batches and the publisher acknowledgements. Nothing but these
fixed layouts and one small JSON object is ever decoded, and a length is checked before anything is allocated
for it.

The instances of a critical stream open a second kind of connection, to every publisher: they answer the
Challenge with a Join, and the publisher forwards their statuses to each other (see
relay/standby/peer_status.py).

Each Resume opens a new session. The stream actor then treats everything after the stored position as unsent;
both sides drop what still arrives for an earlier session.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from struct import Struct
from struct import error as StructError

import orjson

from relay.errors import LinkError
from relay.model.position import StoredPosition
from relay.model.record_batch import (
    EVENT_KINDS,
    MAX_BATCH_BYTES,
    RecordBatch,
    RecordKind,
    decode,
)

VERSION = 3
NONCE_BYTES = 32
# The first message may come from anybody: nothing larger than a Hello is read before its sender has proved
# that it knows the secret.
MAX_HELLO_BYTES = 4096
MAX_MESSAGE_BYTES = 2 * MAX_BATCH_BYTES

HELLO, BATCHES, BYE, JOIN, STATUS = 1, 2, 3, 4, 5
CHALLENGE, RESUME, ACK, FENCED, ALIVE, REFUSED, PEER_STATUS, PEER_LEFT = 16, 17, 18, 19, 20, 21, 22, 23

_FRAME = Struct("<IB")
_BATCHES = Struct("<II")
_BATCHES_HEAD = Struct("<IBII")
_RESUME = Struct("<IQQIIqQQQ")
_ACK = Struct("<IQ")
_MARK = Struct("<QII")
_REFUSED = Struct("<IQ")
_FENCED = Struct("<Q")
_ALIVE = Struct("<B")
_KINDS = frozenset(RecordKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Names the stream and its incarnation. `tip` is the message id that the stream actor knows to be stored
    last. If it is empty, the publisher fences out older epochs and reads the stored position from NATS."""

    stream: str
    epoch: int
    tip: str
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Resume:
    """Send what comes after `stored`, within these bounds of what may be unacknowledged at a time."""

    session: int
    stored: StoredPosition
    max_messages: int
    max_bytes: int


# `(offset, waited_us, answered_us)`: every record up to `offset` was acknowledged by NATS, `waited_us` before
# this message left, and `answered_us` after it was sent to NATS. A plain tuple, as struct returns it: a named
# one costs 0.4 us more for each mark that is read and 0.26 us for each that is written.
AckMark = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Ack:
    """Acknowledgements of a session, in order. They are sent together after a while, so each mark has its own
    times, and latency is measured without that wait. `sent_ns` is when the message left, by the publisher's
    clock, in ns since 1970."""

    session: int
    sent_ns: int
    marks: tuple[AckMark, ...]


@dataclass(frozen=True, slots=True)
class Fenced:
    epoch: int


@dataclass(frozen=True, slots=True)
class Alive:
    """Sent twice a second, with the state of the NATS connection; a publisher that sends none is stopped."""

    connected: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """NATS can never store the record at `offset`, for this reason; the record counts as handled."""

    session: int
    offset: int
    reason: str


def proof(secret: bytes, nonce: bytes) -> str:
    """HMAC-SHA256 of the challenge's nonce with the cluster's secret, in hex."""
    return hmac.new(secret, nonce, hashlib.sha256).hexdigest()


def frame(kind: int, body: bytes = b"") -> bytes:
    return _FRAME.pack(len(body) + 1, kind) + body


def hello(message: Hello, secret: bytes, nonce: bytes) -> bytes:
    return frame(HELLO, _proved(message, secret, nonce))


def join(message: Hello, secret: bytes, nonce: bytes) -> bytes:
    """In place of `hello`, for a connection between instances; its epoch is the instance's id."""
    return frame(JOIN, _proved(message, secret, nonce))


def _proved(message: Hello, secret: bytes, nonce: bytes) -> bytes:
    return orjson.dumps({**asdict(message), "proof": proof(secret, nonce)})


def batches(session: int, skip: int, encoded: bytes) -> bytes:
    """`encoded` is batches, end to end; the first `skip` records of the first one are stored already."""
    return _BATCHES_HEAD.pack(len(encoded) + _BATCHES.size + 1, BATCHES, session, skip) + encoded


def resume(message: Resume) -> bytes:
    stored = message.stored
    return frame(
        RESUME,
        _RESUME.pack(
            message.session,
            stored.epoch,
            stored.seq,
            message.max_messages,
            message.max_bytes,
            stored.event_id,
            stored.recv_ns,
            stored.digest,
            stored.sent_ns,
        ),
    )


def ack(session: int, sent_ns: int, marks: Iterable[AckMark]) -> bytes:
    return frame(ACK, _ACK.pack(session, sent_ns) + b"".join([_MARK.pack(*mark) for mark in marks]))


def fenced(epoch: int) -> bytes:
    return frame(FENCED, _FENCED.pack(epoch))


def alive(connected: bool) -> bytes:
    return frame(ALIVE, _ALIVE.pack(connected))


def refused(message: Refused) -> bytes:
    return frame(REFUSED, _REFUSED.pack(message.session, message.offset) + message.reason.encode()[:512])


class MessageDecoder:
    """Cuts a byte stream into messages. `limit_bytes` may be raised once the peer is authenticated."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        # The beginning of a message, and how long it must be before decoding can continue.
        self._rest = bytearray()
        self._wanted_bytes = _FRAME.size

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields `(type, body)`; raises LinkError for a length over the limit, and then reads no further."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted_bytes:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, total = 0, len(data)
        self._wanted_bytes = _FRAME.size
        while total - at >= _FRAME.size:
            length, kind = _FRAME.unpack_from(data, at)
            if not 1 <= length <= self.limit_bytes:
                raise LinkError(f"a message of {length} bytes is over the limit of {self.limit_bytes}")
            end = at + 4 + length
            if total < end:
                self._wanted_bytes = end - at
                break
            yield kind, data[at + _FRAME.size : end]
            at = end
        self._rest += data[at:]


def read_hello(body: bytes, secret: bytes, nonce: bytes) -> Hello:
    """Raises LinkError unless the peer proves the cluster's secret and speaks this version."""
    try:
        fields = orjson.loads(body)
        given = str(fields.pop("proof")).encode()
        message = Hello(**fields)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise LinkError("the peer's hello is malformed") from error
    if not _is_sound(message):
        raise LinkError("the peer's hello names no stream, epoch or tip")
    if not hmac.compare_digest(given, proof(secret, nonce).encode()):
        raise LinkError("the peer does not know the cluster's secret")
    if message.version != VERSION:
        raise LinkError(f"the peer speaks version {message.version} of the link, this side speaks {VERSION}")
    return message


def _is_sound(message: Hello) -> bool:
    """Even a peer that proves the secret may not write into headers or overflow a field."""
    if type(message.stream) is not str or type(message.tip) is not str or type(message.epoch) is not int:
        return False
    printable = (message.stream + message.tip).isprintable() and " " not in message.tip
    return printable and 0 < message.epoch < 2**64


def read_batches(body: bytes) -> tuple[int, int, list[RecordBatch]]:
    """Session, number of records to skip and batches.

    Raises DamagedBatchError or LinkError for anything cut off, left over or impossible.
    """
    if len(body) <= _BATCHES.size:
        raise LinkError("there is no batch")
    session, skip = _BATCHES.unpack_from(body)
    found = []
    at = _BATCHES.size
    while at < len(body):
        batch, at = decode(body, at, check=False)
        if batch.kind not in EVENT_KINDS and (batch.kind not in _KINDS or len(batch) > 1):
            raise LinkError(f"a batch of {len(batch)} records of kind {batch.kind}")
        found.append(batch)
    if skip >= len(found[0]):
        raise LinkError("a batch of which nothing is left")
    return session, skip, found


def read_down(kind: int, body: bytes) -> Resume | Ack | Fenced | Alive | Refused:
    """A message of a publisher, by its type; raises LinkError for an unknown type or a malformed body."""
    try:
        return _read_down(kind, body)
    except StructError as error:
        raise LinkError(f"the publisher's message of type {kind} is malformed") from error


def _read_down(kind: int, body: bytes) -> Resume | Ack | Fenced | Alive | Refused:
    if kind == ACK:
        session, sent_ns = _ACK.unpack_from(body)
        return Ack(session, sent_ns, tuple(_MARK.iter_unpack(body[_ACK.size :])))
    if kind == ALIVE:
        return Alive(bool(_ALIVE.unpack(body)[0]))
    if kind == RESUME:
        session, epoch, seq, max_messages, max_bytes, *rest = _RESUME.unpack(body)
        return Resume(session, StoredPosition(epoch, seq, *rest), max_messages, max_bytes)
    if kind == FENCED:
        return Fenced(*_FENCED.unpack(body))
    if kind == REFUSED:
        session, offset = _REFUSED.unpack_from(body)
        return Refused(session, offset, body[_REFUSED.size :].decode(errors="replace"))
    raise LinkError(f"the publisher sent a message of unknown type {kind}")
