"""A stream that is linked to a publisher, and the acknowledgements that have not been sent to it yet."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from relay.adapters.link_server import LinkServerConnection
from relay.delivery import link_codec
from relay.publish.lane import Lane

# The stored position of one stream is read from NATS once a second at most, in bursts of up to three.
RETRY_S, RETRY_BURST = 1.0, 3


# `(offset, acknowledged_at, sent_at)`: every record up to `offset` was acknowledged by NATS, and the last of
# them was sent to NATS, at these times, in monotonic seconds.
UnsentAck = tuple[int, float, float]


@dataclass(eq=False, slots=True)
class StreamSession:
    """`tip` is the message id that the stream knows to be stored last, empty once it is used or not known.
    `opening` runs while the stored position is read from NATS. `is_active`: events came since the last
    `PublisherSessions.measure`."""

    link: LinkServerConnection
    lane: Lane
    tip: str
    opening: asyncio.Task[None] | None = None
    # When the next attempt would be due if all so far had been RETRY_S apart; monotonic seconds.
    paced_until: float = 0.0
    # Acknowledged by NATS and not sent to the stream yet; `acked_offset` is the last one sent before.
    unsent_acks: list[UnsentAck] = field(default_factory=list)
    acked_offset: int = 0
    is_active: bool = False

    def send_ack(self, now: float) -> None:
        """Send all unsent acknowledgements in one message."""
        if self.unsent_acks:
            marks = [(offset, _us(now - at), _us(at - sent_at)) for offset, at, sent_at in self.unsent_acks]
            self.link.send(link_codec.ack(self.lane.session, time.time_ns(), marks))
            self.acked_offset = marks[-1][0]
            self.unsent_acks.clear()

    def next_try_s(self, now: float) -> float:
        """Seconds to wait before the next attempt, which this call counts."""
        wait_s = max(0.0, self.paced_until - (RETRY_BURST - 1) * RETRY_S - now)
        self.paced_until = max(self.paced_until, now) + RETRY_S
        return wait_s


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
