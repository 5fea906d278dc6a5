"""What one stream has sent to NATS and has not seen acknowledged, in order, and what NATS answers.

With JetStream every event names the one before it (`Nats-Expected-Last-Msg-Id`) and the place where that
one must be (`Nats-Expected-Last-Sequence`), so the server stores a prefix of what was sent and nothing else:
after a hole, and for a writer that another one has overtaken, it refuses the whole rest (10070, 10071). It
takes both: messages of another writer fill the places that a stale one counts on, and a stale writer of the
same ids would catch up by repeats, which the server answers before it looks at the id that is expected.

So the answer to one event is an answer for all before it, and only the last of those that go out together
asks for one. Any refusal ends the session: the publisher asks NATS where the stream stands and has the rest
sent again. Side records travel in the same window without a condition, each with an answer of its own.
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
class Refusal:
    """`code` is the server's err_code where there is one, else its status."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.code})"


class Chain:
    """The window of one session. What one answer is asked for has a number, from 1 in the order of sending.

    `last_id` and `place` are what the next event must find stored last, and where; with an empty `last_id`
    the place alone counts, and nothing does until the chain has `begun`. Answers may come in any order; what
    counts is the prefix.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.last_id = b""
        self.place = -1
        self.progressed_at = 0.0
        self.messages = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._window: deque[InFlightGroup] = deque()
        self._first = 1
        self._bytes = 0

    @property
    def is_chained(self) -> bool:
        return self.place >= 0

    @property
    def room_messages(self) -> int:
        """How many more may be sent; one that is larger than the whole window goes out alone."""
        return max(0, self._max_messages - self.messages) if self._bytes < self._max_bytes else 0

    @property
    def oldest_sent_at(self) -> float | None:
        """None while nothing is on its way."""
        return self._window[0].sent_at if self._window else None

    @property
    def last_number(self) -> int:
        return self._first + len(self._window) - 1

    def expect(self, expected_sequence: int, last_id: bytes = b"") -> None:
        """The next event must find the JetStream stream's last message at `place`, with this id if given."""
        self.place, self.last_id = expected_sequence, last_id

    def send(self, offset: int, messages: int, size_bytes: int, now: float) -> int:
        """The number of what is sent together; its answer comes back under it."""
        if not self._window:
            self.progressed_at = now
        self._window.append(InFlightGroup(offset, messages, size_bytes, now))
        self.messages += messages
        self._bytes += size_bytes
        return self._first + len(self._window) - 1

    def acknowledge(self, number: int, now: float) -> InFlightGroup | None:
        """None for a number that was answered before."""
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
        """All up to `number` that was not answered before."""
        for index in range(self._first, number + 1):
            if (sent := self.acknowledge(index, now)) is not None:
                yield sent

    def advance(self) -> InFlightGroup | None:
        """Drop the acknowledged prefix and return the last of it; None if there is none."""
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


def read_reply(data: bytes, status: int) -> Refusal | bool:
    """What the server said to one message: stored, True if it was stored before, or refused."""
    if status:
        return Refusal(status, "nobody stores this subject" if status == NO_RESPONDERS else "refused")
    try:
        answer = orjson.loads(data)
        if (error := answer.get("error")) is None:
            return answer["seq"] > 0 and answer.get("duplicate") is True
        return Refusal(int(error.get("err_code") or error["code"]), str(error.get("description", "refused")))
    except (KeyError, TypeError, ValueError, AttributeError):
        return Refusal(0, f"the answer cannot be read: {data[:100]!r}")
