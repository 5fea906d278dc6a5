"""One stream inside a publisher: what the stream handed over and what is on its way to NATS. Pure.

A lane is open for one session at a time. Ending a session forgets everything: it all belongs to the stream
actor, which hears where to go on when the next session begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from relay.binance.streams import StreamSpec
from relay.errors import LinkError
from relay.model.record_batch import EVENT_KINDS, MAX_BATCH_BYTES, MAX_RECORDS, RecordBatch
from relay.publish.chain import Chain
from relay.publish.encoder import MessageEncoder, Route, payload_bytes

# Headers and envelope: what a message costs its stream's turn beside its payload.
OVERHEAD_BYTES = 400
# No headers and envelope are larger, whatever the stream is called.
_MOST_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """`credit_*` is what a stream may have unacknowledged here, `window_*` the part of it that NATS has, and
    `together` how many messages one answer is asked for at the most.

    With a window of 32 a calm stream's p99 is 3 ms beside one that floods NATS, 22 ms with 128; ten busy
    streams reach 60,000 msg/s and more with either (JetStream on file, loopback, 2 shared cores). One stream
    alone gets its window once in every acknowledgement's latency, so a distant NATS may want a wider one.
    """

    credit_messages: int = 1024
    credit_bytes: int = 4 * 1024 * 1024
    window_messages: int = 32
    window_bytes: int = 1024 * 1024
    max_messages_per_reply: int = 16


class Lane:
    """Use from one event loop. `refused` collects offsets and reasons of what NATS can never take."""

    def __init__(self, spec: StreamSpec, epoch: int, limits: LaneLimits) -> None:
        self.spec = spec
        self.epoch = epoch
        self.session = 0
        self.chain = Chain(limits.window_messages, limits.window_bytes)
        self.refused: list[tuple[int, str]] = []
        self.queued = 0
        self._limits = limits
        self._queue: deque[RecordBatch] = deque()
        # How many records of the oldest batch have gone out.
        self._gone = 0
        self._queued_bytes = 0
        self._route: Route | None = None
        self._messages: MessageEncoder | None = None
        self._reply_prefix = b""
        # What costs no more is never over the server's limit.
        self._surely_taken_bytes = 0

    def __repr__(self) -> str:
        return f"Lane({self.spec.key}, queued={self.queued}, in_flight={self.chain.messages})"

    @property
    def open(self) -> bool:
        return self.session != 0

    @property
    def ready(self) -> bool:
        """There is something to send and room to send it."""
        return self.queued > 0 and self.chain.room_messages > 0

    def begin(self, session: int, route: Route) -> None:
        """Say then to the chain what the first event must find stored before it."""
        self.end()
        self.session = session
        self._route = route
        self._reply_prefix = route.reply_prefix.encode()
        self._surely_taken_bytes = route.max_payload - _MOST_OVERHEAD_BYTES
        self._messages = MessageEncoder(self.spec, route)

    def end(self) -> None:
        self.session = 0
        self._queue.clear()
        self.queued = self._gone = self._queued_bytes = 0
        self.refused.clear()
        self.chain = Chain(self._limits.window_messages, self._limits.window_bytes)

    def accept(self, batches: Sequence[RecordBatch], skip: int) -> None:
        """The first `skip` records have been stored before. Raises LinkError for more than the credit."""
        if not self._queue:
            self._gone = skip
        elif skip:
            raise LinkError(f"{self.spec.key} began anew within its session")
        self._queue.extend(batches)
        for batch in batches:
            self.queued += len(batch.payloads)
            self._queued_bytes += batch.size_bytes
        self.queued -= skip
        held, held_bytes = self.queued + self.chain.messages, self._queued_bytes
        # A stream sends as long as it has any credit, so one batch may be too much, as large as they get.
        limits = self._limits
        too_many = held >= limits.credit_messages + MAX_RECORDS
        if too_many or held_bytes >= limits.credit_bytes + MAX_BATCH_BYTES:
            raise LinkError(f"{self.spec.key} sent more than its credit")

    def publish(self, budget_bytes: int, out: list[bytes], now: float) -> int:
        """Append the next messages to `out`, as protocol bytes; how much of the budget they used."""
        used_bytes = 0
        while self._queue:
            batch, first = self._queue[0], self._gone
            most = min(
                len(batch.payloads) - first, self.chain.room_messages, self._limits.max_messages_per_reply
            )
            payloads = batch.payloads[first : first + most]
            cost_bytes = sum(map(len, payloads)) + most * OVERHEAD_BYTES
            if cost_bytes > budget_bytes - used_bytes or cost_bytes > self._surely_taken_bytes:
                most, cost_bytes = self._fitting(payloads, budget_bytes - used_bytes)
            if not most:
                break
            used_bytes += cost_bytes
            self._emit(batch, first, first + most, cost_bytes, out, now)
            self._gone += most
            self.queued -= most
            if self._gone == len(batch.payloads):
                self._queue.popleft()
                self._queued_bytes -= batch.size_bytes
                self._gone = 0
        return used_bytes

    def _fitting(self, payloads: Sequence[bytes], budget_bytes: int) -> tuple[int, int]:
        """How many of these may go out together, and what they cost; what may be too large goes alone."""
        count = cost_bytes = 0
        for payload in payloads:
            more_bytes = len(payload) + OVERHEAD_BYTES
            is_large = more_bytes > self._surely_taken_bytes
            if cost_bytes + more_bytes > budget_bytes or (count and is_large):
                break
            count += 1
            cost_bytes += more_bytes
            if is_large:
                break
        return count, cost_bytes

    def _emit(
        self, batch: RecordBatch, first: int, stop: int, cost_bytes: int, out: list[bytes], now: float
    ) -> None:
        route, messages, chain = self._route, self._messages, self.chain
        assert route is not None
        assert messages is not None
        number = chain.send(batch.offset + stop - 1, stop - first, cost_bytes, now)
        reply = b"%b%d" % (self._reply_prefix, number) if self._reply_prefix else b""
        before, place = len(out), (chain.place, chain.last_id)
        if batch.kind in EVENT_KINDS:
            messages.events(batch, first, stop, chain, reply, out)
        else:
            messages.side(batch, reply, out)
        if cost_bytes <= self._surely_taken_bytes or stop - first > 1:
            return
        size = payload_bytes(out[before])
        if size > route.max_payload:
            del out[before:]
            chain.expect(*place)
            chain.acknowledge(number, now)
            reason = f"{size} bytes are more than the server's {route.max_payload}"
            self.refused.append((batch.offset + first, reason))
