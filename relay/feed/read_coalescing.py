"""How long a stream that is behind reads nothing, so that its next read brings many events. Pure.

What is read while earlier events still wait for NATS waits with them, so reading it at once gains nothing,
and waking up for each event takes the cores from those who publish. A stream that keeps up never lulls
(ADR 12).
"""

from __future__ import annotations

# A stream hears of an answer so much later (ADR 6).
ACK_BATCHING_S = 0.02
# What an answer may take beyond that without the stream being behind.
MIN_LAG_S = 0.005
# A lull adds to the lag by this part of it at the most.
MAX_SHARE_OF_LAG = 0.25
# Events of one read; more together cost hardly less each (ADR 10), and take longer at a stretch.
TARGET_READ_EVENTS = 32
# A stream that fills a read in less reads many at once anyway, and if it slept the kernel would let it run
# before the calm ones.
MIN_FILL_S = 0.002
# One that takes longer to fill it has little to gain.
MAX_FILL_S = 0.03


def read_pause_s(events: int, backlog: int, waited_s: float) -> float:
    """Seconds until the next read, 0 for at once.

    `events` were just read, `backlog` are unanswered, and the oldest of them has waited so long.
    """
    lag_s = waited_s - ACK_BATCHING_S
    if lag_s < MIN_LAG_S or events >= TARGET_READ_EVENTS or not backlog:
        return 0.0
    filled_in_s = TARGET_READ_EVENTS * waited_s / backlog
    if not MIN_FILL_S <= filled_in_s <= MAX_FILL_S:
        return 0.0
    return min(filled_in_s, lag_s * MAX_SHARE_OF_LAG)
