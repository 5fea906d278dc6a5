"""How long a stream that is behind pauses reading, so that its next read brings many events; pure.

Events that are read while earlier ones still wait for NATS have to wait too, so reading them at once gains
nothing, and waking up for each of them takes CPU time from the publishers. A stream that keeps up never
pauses (ADR 12).
"""

from __future__ import annotations

# Publishers collect acknowledgements for this long before they send them (ADR 6).
ACK_BATCHING_S = 0.02
# Beyond that, a stream that is less far behind counts as keeping up.
MIN_LAG_S = 0.005
# A pause adds at most this share of the present lag to it.
MAX_SHARE_OF_LAG = 0.25
# Events of one read; more together cost hardly less each (ADR 10), but block the event loop for longer.
TARGET_READ_EVENTS = 32
# A stream that has this many events sooner gets many in each read without a pause; and a process that sleeps
# for such a short time would be scheduled before those of calmer streams.
MIN_FILL_S = 0.002
# A stream that needs longer to collect them has little to gain.
MAX_FILL_S = 0.03


def read_pause_s(events: int, backlog: int, waited_s: float) -> float:
    """Seconds until the next read, 0 for at once.

    `events` were just read, `backlog` events are not acknowledged, and the oldest has waited `waited_s`.
    """
    lag_s = waited_s - ACK_BATCHING_S
    if lag_s < MIN_LAG_S or events >= TARGET_READ_EVENTS or not backlog:
        return 0.0
    filled_in_s = TARGET_READ_EVENTS * waited_s / backlog
    if not MIN_FILL_S <= filled_in_s <= MAX_FILL_S:
        return 0.0
    return min(filled_in_s, lag_s * MAX_SHARE_OF_LAG)
