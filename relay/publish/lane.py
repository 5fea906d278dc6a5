"""One stream inside a publisher: what the stream has sent and what is in flight to NATS; pure.

A lane is open for one session at a time. Ending a session forgets all records: the stream actor still has
them, and learns the stored position when the next session begins.
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

# Headers and envelope, as they are charged to the stream's turn in addition to the payload.
OVERHEAD_BYTES = 400
# Headers and envelope are never larger, whatever the stream's name.
_MOST_OVERHEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """`credit_*` is what a stream may have unacknowledged here, `window_*` the part of it in flight to NATS;
    `max_messages_per_reply` bounds how many messages one answer acknowledges.

    While another stream floods NATS, a calm stream's p99 is 3 ms with a window of 32, and 22 ms with 128; ten
    busy streams reach 60,000 msg/s and more with either (JetStream on file, loopback, 2 shared cores). A
    single stream sends one window in each round trip to NATS, so a distant NATS may need a wider one.
    """

    credit_messages: int = 1024
    credit_bytes: int = 4 * 1024 * 1024
    window_messages: int = 32
    window_bytes: int = 1024 * 1024
    max_messages_per_reply: int = 16


class Lane:
    """Use from one event loop. `refused` collects `(offset, reason)` of records that NATS can never store."""

    def __init__(self, spec: StreamSpec, epoch: int, limits: LaneLimits) -> None:
        self.spec = spec
        self.epoch = epoch
        self.session = 0
        self.chain = Chain(limits.window_messages, limits.window_bytes)
        self.refused: list[tuple[int, str]] = []
        self.queued = 0
        self._limits = limits
        self._queue: deque[RecordBatch] = deque()
        # How many records of the oldest batch are sent.
        self._sent_records = 0
        self._queued_bytes = 0
        self._route: Route | None = None
        self._encoder: MessageEncoder | None = None
        self._reply_prefix = b""
        # A message that costs no more than this is never over the server's limit.
        self._safe_bytes = 0

    def __repr__(self) -> str:
        return f"Lane({self.spec.key}, queued={self.queued}, in_flight={self.chain.messages})"

    @property
    def open(self) -> bool:
        return self.session != 0

    @property
    def ready(self) -> bool:
        """There are records to send, and room in the window."""
        return self.queued > 0 and self.chain.room_messages > 0

    def begin(self, session: int, route: Route) -> None:
        """Open a session; then call `chain.expect` with what the first event must find stored before it."""
        self.end()
        self.session = session
        self._route = route
        self._reply_prefix = route.reply_prefix.encode()
        self._safe_bytes = route.max_payload - _MOST_OVERHEAD_BYTES
        self._encoder = MessageEncoder(self.spec, route)

    def end(self) -> None:
        self.session = 0
        self._queue.clear()
        self.queued = self._sent_records = self._queued_bytes = 0
        self.refused.clear()
        self.chain = Chain(self._limits.window_messages, self._limits.window_bytes)

    def accept(self, batches: Sequence[RecordBatch], skip: int) -> None:
        """The first `skip` records are stored already. Raises LinkError for more than the credit."""
        if not self._queue:
            self._sent_records = skip
        elif skip:
            raise LinkError(f"{self.spec.key} began again within its session")
        self._queue.extend(batches)
        for batch in batches:
            self.queued += len(batch.payloads)
            self._queued_bytes += batch.size_bytes
        self.queued -= skip
        held, held_bytes = self.queued + self.chain.messages, self._queued_bytes
        # A stream sends while it has any credit left, so it may exceed the credit by one batch of full size.
        limits = self._limits
        too_many = held >= limits.credit_messages + MAX_RECORDS
        if too_many or held_bytes >= limits.credit_bytes + MAX_BATCH_BYTES:
            raise LinkError(f"{self.spec.key} sent more than its credit")

    def publish(self, budget_bytes: int, out: list[bytes], now: float) -> int:
        """Append the next messages to `out` as protocol bytes; returns how much of the budget they used."""
        used_bytes = 0
        while self._queue:
            batch, first = self._queue[0], self._sent_records
            most = min(
                len(batch.payloads) - first, self.chain.room_messages, self._limits.max_messages_per_reply
            )
            payloads = batch.payloads[first : first + most]
            cost_bytes = sum(map(len, payloads)) + most * OVERHEAD_BYTES
            if cost_bytes > budget_bytes - used_bytes or cost_bytes > self._safe_bytes:
                most, cost_bytes = self._fitting(payloads, budget_bytes - used_bytes)
            if not most:
                break
            used_bytes += cost_bytes
            self._emit(batch, first, first + most, cost_bytes, out, now)
            self._sent_records += most
            self.queued -= most
            if self._sent_records == len(batch.payloads):
                self._queue.popleft()
                self._queued_bytes -= batch.size_bytes
                self._sent_records = 0
        return used_bytes

    def _fitting(self, payloads: Sequence[bytes], budget_bytes: int) -> tuple[int, int]:
        """`(count, bytes)` of these that may be sent together; what may be too large is sent alone."""
        count = cost_bytes = 0
        for payload in payloads:
            more_bytes = len(payload) + OVERHEAD_BYTES
            is_large = more_bytes > self._safe_bytes
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
        route, messages, chain = self._route, self._encoder, self.chain
        assert route is not None
        assert messages is not None
        number = chain.send(batch.offset + stop - 1, stop - first, cost_bytes, now)
        reply = b"%b%d" % (self._reply_prefix, number) if self._reply_prefix else b""
        before, expected = len(out), (chain.expected_sequence, chain.last_id)
        if batch.kind in EVENT_KINDS:
            messages.events(batch, first, stop, chain, reply, out)
        else:
            messages.side(batch, reply, out)
        if cost_bytes <= self._safe_bytes or stop - first > 1:
            return
        size = payload_bytes(out[before])
        if size > route.max_payload:
            del out[before:]
            chain.expect(*expected)
            chain.acknowledge(number, now)
            reason = f"{size} bytes are more than the server's {route.max_payload}"
            self.refused.append((batch.offset + first, reason))
