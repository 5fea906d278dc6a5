"""A stream that is linked to a publisher."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from relay.adapters.link_server import LinkServerConnection
from relay.delivery import link_codec
from relay.publish.lane import Lane

# NATS is asked where one stream stands once a second at most, but a few times at once after a calm.
RETRY_S, RETRY_BURST = 1.0, 3


@dataclass(eq=False, slots=True)
class StreamSession:
    """`tip` is the stream's own word of what is stored last, empty once it was used; `opening` runs while
    NATS is asked where the stream stands. `heard` says that events came since that was asked last."""

    link: LinkServerConnection
    lane: Lane
    tip: str
    opening: asyncio.Task[None] | None = None
    # When the tries made so far would be due at an even pace.
    paced_until: float = 0.0
    # What NATS acknowledged and the stream has not heard of: offsets, when that was, and when the last of the
    # messages was sent. `told` came before.
    unsent_acks: list[tuple[int, float, float]] = field(default_factory=list)
    told: int = 0
    heard: bool = False

    def send_ack(self, now: float) -> None:
        """Everything that is untold, in one message."""
        if self.unsent_acks:
            marks = [(offset, _us(now - at), _us(at - sent_at)) for offset, at, sent_at in self.unsent_acks]
            self.link.send(link_codec.ack(self.lane.session, time.time_ns(), marks))
            self.told = marks[-1][0]
            self.unsent_acks.clear()

    def next_try_s(self, now: float) -> float:
        """How long to wait for the next try, which is counted by this call."""
        wait_s = max(0.0, self.paced_until - (RETRY_BURST - 1) * RETRY_S - now)
        self.paced_until = max(self.paced_until, now) + RETRY_S
        return wait_s


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
