"""Writes streams' records to NATS in fair turns, and sends acknowledgements back.

A stream's records pass through callbacks and no task. The first ones after a pause are written at once.
Others are written in a turn in the next iteration of the event loop, those of all streams together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from actors.publisher.gauges import PublisherGauges
from actors.publisher.session import StreamSession
from relay.adapters.nats.connection import NatsConnection
from relay.delivery import link_codec
from relay.primitives.deficit_round_robin import DeficitRoundRobin
from relay.publish.chain import InFlightGroup, PublishRefusal, read_reply


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatcherLimits:
    """A quantum is about forty small events, or 0.2 ms: that long a stream waits for each busy one."""

    quantum_bytes: int = 16 * 1024
    turn_bytes: int = 64 * 1024
    # After a pause of this length other streams rarely have records, so new ones are written at once.
    pause_s: float = 0.0005
    # What the kernel has not accepted yet is ahead of every stream's turn, so it is kept short.
    unsent_bytes: int = 256 * 1024
    # Waking a stream for each acknowledgement costs too much CPU time: they are sent together after this
    # long, or when there are this many (ADR 6).
    ack_delay_s: float = 0.02
    max_unacked_messages: int = 128
    # Without progress for this long a stream's messages, or the connection, count as lost.
    stall_s: float = 2.0


class Dispatcher:
    """Over one NATS connection at a time. `on_doubt` is called with a session that must end, an error code
    and a text.

    With `confirms` (core delivery) a PONG acknowledges all that was written before its PING; otherwise
    JetStream answers.
    """

    def __init__(
        self,
        limits: DispatcherLimits,
        gauges: PublisherGauges,
        *,
        confirms: bool,
        on_doubt: Callable[[StreamSession, str, str], None],
    ) -> None:
        self._limits = limits
        self._gauges = gauges
        self._confirms = confirms
        self._on_doubt = on_doubt
        self._connection: NatsConnection | None = None
        self._sessions: dict[int, StreamSession] = {}
        self._scheduler = DeficitRoundRobin[StreamSession](limits.quantum_bytes)
        self._unacked_sessions: dict[StreamSession, None] = {}
        self._acks_are_due = False
        self._turn_is_due = False
        self._turned_at = 0.0
        self._is_confirming = False
        self._acknowledged_at = 0.0

    def connected(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._is_confirming = False
        self._acknowledged_at = time.monotonic()

    def disconnected(self) -> None:
        """Every session must have been ended."""
        self._connection = None

    def begin(self, session: StreamSession) -> None:
        """The lane's session has begun."""
        self._sessions[session.lane.session] = session

    def end(self, session: StreamSession) -> None:
        """Forget the lane's session; answers that come for it later are ignored."""
        self._sessions.pop(session.lane.session, None)
        self._scheduler.discard(session)
        self._send_ack(session, time.monotonic())
        session.lane.end()

    def offer(self, session: StreamSession) -> None:
        """The lane has new records."""
        if not session.lane.ready:
            return
        now, connection = time.monotonic(), self._connection
        if connection is None or self._turn_is_due or now - self._turned_at <= self._limits.pause_s:
            self._scheduler.add(session)
            self._call_turn()
            return
        self._turned_at = now
        out: list[bytes] = []
        session.lane.publish(self._limits.quantum_bytes, out, now)
        self._write(connection, out)
        self._after(session, now)

    def on_reply(self, subject: bytes, data: bytes, header_block: bytes | None) -> None:
        """An answer to `<inbox>.<session>.<number>`."""
        _, session_number, number = subject.rsplit(b".", 2)
        if not (session_number.isdigit() and number.isdigit()):
            return
        session = self._sessions.get(int(session_number))
        if session is None:
            return
        reply = read_reply(data, _status(header_block))
        if isinstance(reply, PublishRefusal):
            self._on_doubt(session, str(reply.code), str(reply))
            return
        now = time.monotonic()
        sent = session.lane.chain.acknowledge(int(number), now)
        if sent is not None:
            self._gauges.duplicates += reply
            self._count(sent, now)
            self._advance(session, now)

    def watch(self, now: float) -> None:
        """Call a few times a second: ends sessions, or the connection, that make no progress."""
        if self._connection is None:
            return
        limit_s = self._limits.stall_s
        self._connection.watch(now, limit_s)
        stalled = [session for session in self._sessions.values() if session.lane.chain.stalled(now, limit_s)]
        reason = f"no acknowledgement for {limit_s:g} s"
        if stalled and now - self._acknowledged_at > limit_s:
            # No stream gets answers. This server answers pings, but may be cut off from the cluster's others.
            self._connection.abort(reason)
            return
        for session in stalled:
            self._on_doubt(session, "timeout", reason)
        self._call_turn()

    def _call_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._run_turn)

    def _run_turn(self) -> None:
        self._turn_is_due = False
        self._turned_at = now = time.monotonic()
        connection = self._connection
        if connection is None:
            return
        out: list[bytes] = []
        if self._scheduler and connection.unsent_bytes <= self._limits.unsent_bytes:
            self._take_turns(out, now)
        self._write(connection, out)
        if self._scheduler:
            self._call_turn()

    def _take_turns(self, out: list[bytes], now: float) -> None:
        room_bytes = self._limits.turn_bytes
        while room_bytes > 0 and self._scheduler:
            session, budget_bytes = self._scheduler.turn()
            used_bytes = session.lane.publish(budget_bytes, out, now)
            self._scheduler.end_turn(used_bytes, more=session.lane.ready)
            room_bytes -= used_bytes
            if session.lane.refused:
                self._refuse(session, now)

    def _after(self, session: StreamSession, now: float) -> None:
        """After a lane has published outside of a turn."""
        if session.lane.refused:
            self._refuse(session, now)
        if session.lane.ready:
            self._scheduler.add(session)
            self._call_turn()

    def _write(self, connection: NatsConnection, out: list[bytes]) -> None:
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            self._gauges.written_bytes += len(data)
            connection.write(data)
        if self._confirms and not self._is_confirming:
            self._confirm(connection)

    def _refuse(self, session: StreamSession, now: float) -> None:
        lane = session.lane
        for offset, reason in lane.refused:
            self._gauges.error("max_payload", f"{lane.spec.key}: {reason}")
            session.link.send(link_codec.refused(link_codec.Refused(lane.session, offset, reason)))
        lane.refused.clear()
        self._advance(session, now)

    def _confirm(self, connection: NatsConnection) -> None:
        """Send a PING behind all that was written; the next one follows after its PONG."""
        marks = [
            (session, session.lane.session, session.lane.chain.last_number)
            for session in self._sessions.values()
            if session.lane.chain.messages
        ]
        if marks:
            self._is_confirming = True
            connection.ping(lambda: self._confirmed(connection, marks))

    def _confirmed(self, connection: NatsConnection, marks: list[tuple[StreamSession, int, int]]) -> None:
        if self._connection is not connection:
            return
        self._is_confirming = False
        now = time.monotonic()
        for session, session_number, last_number in marks:
            if session.lane.session == session_number:
                for sent in session.lane.chain.acknowledge_through(last_number, now):
                    self._count(sent, now)
                self._advance(session, now)
        # What was written behind the PING waits for one of its own.
        self._call_turn()

    def _count(self, sent: InFlightGroup, now: float) -> None:
        self._acknowledged_at = now
        self._gauges.acknowledged += sent.messages
        self._gauges.latency.add_many(int((now - sent.sent_at) * 1e9), sent.messages)

    def _advance(self, session: StreamSession, now: float) -> None:
        """After acknowledgements: the stream will be sent them, and there may be room for more messages."""
        lane = session.lane
        last = lane.chain.advance()
        if last is not None:
            session.unsent_acks.append((last.offset, now, last.sent_at))
            self._unacked_sessions[session] = None
            if last.offset - session.acked_offset >= self._limits.max_unacked_messages:
                self._send_ack(session, now)
            elif not self._acks_are_due:
                self._acks_are_due = True
                asyncio.get_running_loop().call_later(self._limits.ack_delay_s, self._send_acks)
        if lane.ready:
            self._scheduler.add(session)
            self._call_turn()

    def _send_acks(self) -> None:
        self._acks_are_due = False
        now = time.monotonic()
        for session in tuple(self._unacked_sessions):
            self._send_ack(session, now)

    def _send_ack(self, session: StreamSession, now: float) -> None:
        if session in self._unacked_sessions:
            del self._unacked_sessions[session]
            session.send_ack(now)


def _status(header_block: bytes | None) -> int:
    """The number in `NATS/1.0 503`; 0 if there is none."""
    if not header_block:
        return 0
    words = header_block.split(b"\r\n", 1)[0].split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
