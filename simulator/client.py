"""One client's connection: writes blocks of frames, queues while the client reads too slowly, sends pings and
enforces Binance's limits.
"""

from __future__ import annotations

import asyncio
import socket as sockets
from collections import deque
from collections.abc import Callable
from struct import pack

from websockets.asyncio.server import ServerConnection
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from simulator.channel import Channel
from simulator.framing import combined, combined_block, ping_frame, raw_block, text_frame
from simulator.settings import ExchangeSettings
from simulator.subscriptions import Subscriptions, Target

_POLICY_VIOLATION = 1008
_ABNORMAL = 1006
_LIMITED_OPCODES = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG})


class Socket(ServerConnection):
    """The library's connection, which reports to its `Client` when writing may go on and which frames
    arrive.
    """

    client: Client | None = None

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.client is not None:
            self.client.flush()

    def process_event(self, event: Request | Frame) -> None:  # type: ignore[override]
        super().process_event(event)
        if self.client is not None and isinstance(event, Frame):
            self.client.frame_received(event)


class Client:
    """A subscriber of channels, from the handshake until `end`.

    Whole frames are written to the transport directly; the library does the same with its own, so frames
    never interleave. Nothing here waits.
    """

    def __init__(
        self, socket: Socket, target: Target, settings: ExchangeSettings, resumed: Callable[[], None]
    ) -> None:
        self.target = target
        self.subscriptions = Subscriptions(
            settings.venue,
            target,
            settings.streams_per_connection,
            wrapped_errors=settings.wrapped_errors,
        )
        self._socket = socket
        self._settings = settings
        self._resumed = resumed
        self._loop = asyncio.get_running_loop()
        self._channels: dict[str, Channel] = {}
        self._queue: deque[tuple[Channel, list[bytes]]] = deque()
        self._queued_bytes = 0
        self._received_s: deque[float] = deque()
        self._pings: dict[bytes, asyncio.TimerHandle] = {}
        self._timers = [
            self._loop.call_later(settings.ping_s, self._ping),
            self._loop.call_later(settings.lifetime_s, self.close, 1001, "connection lifetime is over"),
        ]
        self._lingering = False
        socket.client = self

    @property
    def paused(self) -> bool:
        return self._socket.paused or bool(self._queue)

    @property
    def idle(self) -> bool:
        """Everything written has left this process."""
        return not self._queue and not self._socket.transport.get_write_buffer_size()

    @property
    def open(self) -> bool:
        ending = self._lingering or self._socket.transport.is_closing()
        return self._socket.protocol.state is State.OPEN and not ending

    def subscribe(self, channel: Channel) -> None:
        self._channels[channel.name] = channel
        channel.add(self)

    def unsubscribe(self, name: str) -> None:
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.remove(self)

    def push(self, channel: Channel, payloads: list[bytes]) -> bool:
        if not self.open:
            return False
        if not self.paused:
            self._write(channel, payloads)
            return True
        self._queue.append((channel, payloads))
        self._queued_bytes += sum(map(len, payloads))
        if self._queued_bytes > self._settings.queue_max_bytes:
            # Binance closes connections whose client reads too slowly; what is queued is too old to be
            # useful.
            self.abort()
        return True

    def flush(self) -> None:
        """Write what was queued, until the transport's buffer is full."""
        while self._queue and not self._socket.paused and self.open:
            channel, payloads = self._queue.popleft()
            self._queued_bytes -= sum(map(len, payloads))
            self._write(channel, payloads)
        self._resumed()

    def _write(self, channel: Channel, payloads: list[bytes]) -> None:
        wrapped = self.subscriptions.combined
        block = combined_block(channel.wire_name, payloads) if wrapped else raw_block(payloads)
        self._socket.transport.write(block)
        channel.tally.add_written(len(payloads), sum(map(len, payloads)))

    def send_text(self, text: bytes) -> None:
        """Send one text frame that is no event."""
        self.write_raw(text_frame(text))

    def send_payload(self, stream: bytes, payload: bytes) -> None:
        """Send a payload in the connection's form, raw or combined, without counting it in any report."""
        self.send_text(combined(stream, payload) if self.subscriptions.combined else payload)

    def write_raw(self, data: bytes) -> None:
        if self.open:
            self._socket.transport.write(data)

    def frame_received(self, frame: Frame) -> None:
        """Count a client's frame against its limit; a pong answers its ping and all earlier ones."""
        if frame.opcode is Opcode.CLOSE:
            self._detach()
        if frame.opcode not in _LIMITED_OPCODES:
            return
        now_s = self._loop.time()
        self._received_s.append(now_s)
        while self._received_s[0] <= now_s - 1.0:
            self._received_s.popleft()
        if len(self._received_s) > self._settings.message_limit:
            self.close(_POLICY_VIOLATION, "Too many requests")
        elif frame.opcode is Opcode.PONG:
            self._pong_received(bytes(frame.data))

    def _pong_received(self, payload: bytes) -> None:
        if payload in self._pings:
            for ping in list(self._pings):
                self._pings.pop(ping).cancel()
                if ping == payload:
                    return

    def _ping(self) -> None:
        payload = b"%d" % int(self._loop.time() * 1e6)
        self.write_raw(ping_frame(payload))
        self._pings[payload] = self._loop.call_later(
            self._settings.pong_s, self.close, _POLICY_VIOLATION, "pong timeout"
        )
        self._timers[0] = self._loop.call_later(self._settings.ping_s, self._ping)

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Send a Close frame, and reset the connection if the client does not answer it; 1006 resets
        at once.
        """
        if code == _ABNORMAL or self._socket.paused:
            self.abort()
            return
        self._detach()
        if self.open:
            self._socket.protocol.send_close(code, reason)
            self._socket.send_data()
        self._timers.append(self._loop.call_later(self._settings.close_timeout_s, self.abort))

    def linger(self, code: int, reason: str) -> None:
        """Send a Close frame, then neither read nor end the TCP connection."""
        self._detach()
        self.write_raw(Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False))
        self._lingering = True
        self._socket.transport.pause_reading()

    def abort(self) -> None:
        """End the TCP connection with a reset, without a Close frame."""
        self._detach()
        connection = self._socket.transport.get_extra_info("socket")
        if connection is not None and not self._socket.transport.is_closing():
            connection.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, pack("ii", 1, 0))
        self._socket.transport.abort()

    def end(self) -> None:
        """The connection is over."""
        self._detach()
        for timer in (*self._timers, *self._pings.values()):
            timer.cancel()
        self._socket.client = None

    def _detach(self) -> None:
        for channel in self._channels.values():
            channel.remove(self)
        self._channels.clear()
        for channel, payloads in self._queue:
            channel.tally.cut += len(payloads)
        self._queue.clear()
        self._resumed()
