"""What one stream has sent to NATS and NATS has not acknowledged, in order; pure.

With JetStream every event names the one before it (`Nats-Expected-Last-Msg-Id`) and the sequence of that one
(`Nats-Expected-Last-Sequence`), so the server stores a prefix of what was sent and nothing else: after a
missing event, and for a writer that has been fenced out, it refuses all the rest (10070, 10071). Both
conditions are needed. A stale writer that sends the same ids as the current one would catch up by repeats,
which the server answers before it compares the expected id: the sequence prevents that. Messages of another
writer may reach the sequence that a stale writer expects: the id prevents that.

So the answer to one event is an answer for all events before it, and of those that are sent together only the
last asks for one. Any refusal ends the session: the publisher reads the stored position from NATS, and the
stream sends the rest again. Side records are sent in the same window without a condition, each with its own
answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

NO_RESPONDERS = 503


@dataclass(slots=True)
class InFlightGroup:
    """Messages that one answer acknowledges, up to the record at `offset`."""

    offset: int
    messages: int
    size_bytes: int
    sent_at: float
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class PublishRefusal:
    """`code` is the server's err_code where there is one, else its status."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.code})"


class Chain:
    """The window of one session. Each group that one answer acknowledges has a number, from 1
    in the order of sending. Answers may come in any order; what counts is the acknowledged prefix.

    The next event must find the message `last_id` stored last, at `expected_sequence`. With an empty
    `last_id` the sequence alone is a condition, and there is none before `expect`.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.last_id = b""
        self.expected_sequence = -1
        self.progressed_at = 0.0
        self.messages = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._window: deque[InFlightGroup] = deque()
        self._first = 1
        self._bytes = 0

    @property
    def is_chained(self) -> bool:
        return self.expected_sequence >= 0

    @property
    def room_messages(self) -> int:
        """How many more may be sent; a message that is larger than the whole window is sent alone."""
        return max(0, self._max_messages - self.messages) if self._bytes < self._max_bytes else 0

    @property
    def oldest_sent_at(self) -> float | None:
        """Monotonic seconds; None while nothing is in flight."""
        return self._window[0].sent_at if self._window else None

    @property
    def last_number(self) -> int:
        return self._first + len(self._window) - 1

    def expect(self, expected_sequence: int, last_id: bytes = b"") -> None:
        """What the next event must find stored last: its JetStream sequence, and its id unless empty."""
        self.expected_sequence, self.last_id = expected_sequence, last_id

    def send(self, offset: int, messages: int, size_bytes: int, now: float) -> int:
        """Add a group up to the record at `offset`; returns its number, under which the answer comes back."""
        if not self._window:
            self.progressed_at = now
        self._window.append(InFlightGroup(offset, messages, size_bytes, now))
        self.messages += messages
        self._bytes += size_bytes
        return self._first + len(self._window) - 1

    def acknowledge(self, number: int, now: float) -> InFlightGroup | None:
        """The group with this number; None if it was answered before."""
        index = number - self._first
        if not 0 <= index < len(self._window):
            return None
        sent = self._window[index]
        if sent.acknowledged:
            return None
        sent.acknowledged = True
        self.progressed_at = now
        return sent

    def acknowledge_through(self, number: int, now: float) -> Iterator[InFlightGroup]:
        """The groups up to `number` that were not answered before."""
        for index in range(self._first, number + 1):
            if (sent := self.acknowledge(index, now)) is not None:
                yield sent

    def advance(self) -> InFlightGroup | None:
        """Remove the acknowledged prefix and return its last group; None if there is none."""
        last = None
        window = self._window
        while window and window[0].acknowledged:
            last = window.popleft()
            self.messages -= last.messages
            self._bytes -= last.size_bytes
            self._first += 1
        return last

    def stalled(self, now: float, limit_s: float) -> bool:
        return bool(self._window) and now - self.progressed_at > limit_s


def read_reply(data: bytes, status: int) -> PublishRefusal | bool:
    """JetStream's answer to one message: False for stored, True if it was stored before, or its refusal."""
    if status:
        return PublishRefusal(status, "nobody stores this subject" if status == NO_RESPONDERS else "refused")
    try:
        answer = orjson.loads(data)
        if (error := answer.get("error")) is None:
            return answer["seq"] > 0 and answer.get("duplicate") is True
        return PublishRefusal(
            int(error.get("err_code") or error["code"]), str(error.get("description", "refused"))
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return PublishRefusal(0, f"the answer cannot be read: {data[:100]!r}")
