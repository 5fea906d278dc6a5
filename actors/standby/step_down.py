"""A hot leg whose socket ended, and what it reads until it knows whether the other one has its own still."""

from __future__ import annotations

import logging
import time

from actors.stream.relay import StreamRelay
from relay.errors import SteppedDown
from relay.standby.peer_status import STATUS_INTERVAL_S

_log = logging.getLogger(__name__)

# The other leg has said a word since, and said it after its own socket would have ended with this one.
DECISION_DELAY_S = STATUS_INTERVAL_S + 0.1


class StepDown:
    """Made when the socket ended. Nothing that the next one brings is accepted before it is decided: accepted
    behind a hole, it could not be stored behind what the other leg remembers of that hole."""

    def __init__(self, relay: StreamRelay) -> None:
        self._relay = relay
        self._since = time.monotonic()
        # In order; None where a connection ended.
        self._held: list[tuple[list[bytes], int] | None] = [None]

    def hold(self, payloads: list[bytes], recv_ns: int) -> None:
        self._held.append((payloads, recv_ns))

    def mark_discontinuity(self) -> None:
        """The next connection has ended as well."""
        self._held.append(None)

    def settled(self, now: float) -> bool:
        return now - self._since >= DECISION_DELAY_S

    def step_down(self) -> None:
        """Raises SteppedDown, which ends the leg; the other one goes on, and it comes back as warm."""
        stream = self._relay.settings.spec.key
        _log.warning("the socket of %s ended and the warm leg has one: stepping aside for it", stream)
        raise SteppedDown(stream)

    def resume(self) -> None:
        """Go on with a hole, as a stream with one leg does."""
        for read in self._held:
            if read is None:
                self._relay.intake.disconnected()
            else:
                self._relay.accept(*read)
