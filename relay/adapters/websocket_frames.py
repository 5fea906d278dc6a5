"""The client's side of one WebSocket connection without its socket: bytes in, whole payloads out.

No transport, no event loop, no clock: `FeedProtocol` takes bytes and the time and returns payloads, and what
it wants to send is fetched with `data_to_send`. websockets' sans-I/O layer implements the protocol. Whole
data frames, which nearly all frames are, are cut out here and never reach that library (0.5 us instead of
2.3 us each); the handshake's response, control frames, fragments and everything that breaks the protocol do.
"""

from __future__ import annotations

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from relay.errors import FeedError, HandshakeRefusedError
from relay.model.record_batch import MAX_BATCH_BYTES
from relay.primitives.rate_limit import SlidingWindowLimiter

# Recorded frames reach 35 kB; a NATS server takes 1 MiB by default, envelope included.
MAX_FRAME_BYTES = MAX_BATCH_BYTES // 2
# A frame that goes to the library costs 40 us, whatever its size. Binance sends one now and then; a peer
# that sends thousands a second would use up the actor's time.
SLOW_FRAMES_PER_S = 1000
MAX_RESPONSE_BYTES = 64 * 1024
# The first byte of a text or binary frame that is final and has no extension's bits.
_WHOLE = frozenset({0x81, 0x82})
# By the second byte of a frame: 126 and 127 announce a longer length, and a server must not mask.
_HEAD_BYTES = {126: 4, 127: 10}
_MASKED = 128


class FeedProtocol:
    """Call `send_handshake` first, then `receive` with each read, then `data_to_send` if `responded` is set.

    `accepted` turns true when the exchange accepts the handshake, and stays so; `is_open` is true from then
    to the end of the connection. `responded` turns true when bytes went to the library: it may have an answer
    to send, or the connection may be over. The caller clears it.
    """

    def __init__(self, url: str) -> None:
        self.accepted = False
        self.is_open = False
        self.responded = False
        self._library = ClientProtocol(parse_uri(url), max_size=MAX_FRAME_BYTES)
        self._fragments: list[bytes] = []
        # The bytes of a frame or response that is not complete yet.
        self._rest = b""
        self._slow_frames = SlidingWindowLimiter(SLOW_FRAMES_PER_S, 1.0)
        self._violation = ""

    def send_handshake(self) -> None:
        self._library.send_request(self._library.connect())

    def send_ping(self) -> None:
        self._library.send_ping(b"")

    def send_close(self, code: int) -> None:
        """Does nothing unless the connection is open."""
        if self._library.state is State.OPEN:
            self._library.send_close(code)
        self.is_open = False

    def data_to_send(self) -> list[bytes]:
        """Whole frames, or the handshake's request, in order; each is returned once."""
        return [data for data in self._library.data_to_send() if data]

    def receive(self, data: bytes, now: float) -> list[bytes]:
        """The payloads of the messages that `data` completes, in order; `now` is in monotonic seconds.

        Frames are cut by RFC 6455, 5.2. After an error, `failed` is set and the payloads before it are
        returned.
        """
        payloads: list[bytes] = []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self.is_open:
            data = self._receive_response(data, payloads, now)
            if not self.is_open:
                return payloads
        at, total = 0, len(data)
        while total - at >= 2:
            second = data[at + 1]
            start = at + _HEAD_BYTES.get(second, 2)
            if start > total:
                break
            length = second if start == at + 2 else int.from_bytes(data[at + 2 : start], "big")
            lawful = length <= MAX_FRAME_BYTES and second < _MASKED
            end = start + length if lawful else total
            if end > total:
                break
            if lawful and data[at] in _WHOLE and not self._fragments:
                payloads.append(data[start:end])
            else:
                self._give_to_library(data[at:end], payloads, now)
                if not self.is_open:
                    return payloads
            at = end
        if at < total:
            self._rest = data[at:]
        return payloads

    def _receive_response(self, data: bytes, payloads: list[bytes], now: float) -> bytes:
        """Give the handshake's response to the library, and return the bytes after it."""
        if self._library.state is not State.CONNECTING:
            return b""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 and len(data) < MAX_RESPONSE_BYTES:
            self._rest = data
            return b""
        if end < 4 or not data.startswith(b"HTTP/1.1 101"):
            end = len(data)
        self._give_to_library(data[:end], payloads, now)
        return data[end:]

    def receive_eof(self) -> None:
        self._library.receive_eof()
        self.is_open = self._library.state is State.OPEN

    def _give_to_library(self, data: bytes, payloads: list[bytes], now: float) -> None:
        self.responded = True
        if not self._slow_frames.try_acquire(now):
            self._violation = (
                f"the exchange sent more than {SLOW_FRAMES_PER_S} pings and fragments in a second"
            )
            self.send_close(CloseCode.POLICY_VIOLATION)
            return
        self._library.receive_data(data)
        for event in self._library.events_received():
            if isinstance(event, Frame):
                self._receive_frame(event, payloads)
            elif isinstance(event, Response):
                self.accepted = self._library.handshake_exc is None
        self.is_open = self._library.state is State.OPEN

    def _receive_frame(self, frame: Frame, payloads: list[bytes]) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            if frame.fin:
                payloads.append(bytes(frame.data))
            else:
                self._fragments = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                payloads.append(b"".join(self._fragments))
                self._fragments = []

    @property
    def failed(self) -> bool:
        """The handshake was refused, or the connection is closing or closed."""
        library = self._library
        return library.handshake_exc is not None or library.state in (State.CLOSING, State.CLOSED)

    @property
    def failure(self) -> FeedError:
        """Why the connection is over; HandshakeRefusedError if the exchange answered an HTTP status."""
        library = self._library
        if self._violation:
            return FeedError(self._violation)
        if library.handshake_exc is not None:
            return _refusal(library.handshake_exc)
        if library.parser_exc is not None:
            return FeedError(f"the exchange broke the protocol: {library.parser_exc}")
        if library.close_rcvd is not None:
            return FeedError(f"the exchange closed the connection: {library.close_rcvd}")
        return FeedError("the connection ended without a close frame")


def _refusal(error: Exception) -> FeedError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        after = error.response.headers.get("Retry-After", "")
        retry_after_s = float(after) if after.isdigit() else None
        return HandshakeRefusedError(f"the exchange refused the connection with HTTP {status}", retry_after_s)
    return FeedError(f"the exchange's handshake failed: {error}")
