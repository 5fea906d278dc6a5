"""An active instance that lost its connection, and what it reads until it decides whether to step down."""

from __future__ import annotations

import logging
import time

from actors.stream.relay import StreamRelay
from relay.errors import SteppedDown
from relay.standby.peer_status import STATUS_INTERVAL_S

_log = logging.getLogger(__name__)

# By then the peer has sent a status, late enough that its own connection would have ended for the same cause.
DECISION_DELAY_S = STATUS_INTERVAL_S + 0.1


class StepDown:
    """Made when the connection ended. Nothing that the next one brings is accepted before the decision:
    the peer may have the events of the gap, and they could not be stored before events that were accepted
    already."""

    def __init__(self, relay: StreamRelay) -> None:
        self._relay = relay
        self._since = time.monotonic()
        # What was read since, in order; None where a connection ended.
        self._held: list[tuple[list[bytes], int] | None] = [None]

    def hold(self, payloads: list[bytes], recv_ns: int) -> None:
        self._held.append((payloads, recv_ns))

    def mark_discontinuity(self) -> None:
        """A later connection has ended as well."""
        self._held.append(None)

    def is_due(self, now: float) -> bool:
        return now - self._since >= DECISION_DELAY_S

    def step_down(self) -> None:
        """Raises SteppedDown, which ends this instance; Ray starts it again, as the standby of its peer."""
        stream = self._relay.settings.spec.key
        _log.warning("the connection of %s ended and its standby has one: stepping down", stream)
        raise SteppedDown(stream)

    def resume(self) -> None:
        """Continue with a gap, as a stream without a standby instance does."""
        for read in self._held:
            if read is None:
                self._relay.intake.disconnected()
            else:
                self._relay.accept(*read)
