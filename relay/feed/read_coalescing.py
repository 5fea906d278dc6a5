"""How long a stream that is behind reads nothing, so that its next read brings many events. Pure.

What is read while earlier events still wait for NATS waits with them, so reading it at once gains nothing,
and waking up for each event takes the cores from those who publish. A stream that keeps up never lulls
(ADR 12).
"""

from __future__ import annotations

# A stream hears of an answer so much later (ADR 6).
TOLD_WITHIN_S = 0.02
# What an answer may take beyond that without the stream being behind.
BEHIND_S = 0.005
# A lull adds to the lag by this part of it at the most.
PART_OF_LAG = 0.25
# Events of one read; more together cost hardly less each (ADR 10), and take longer at a stretch.
ENOUGH = 32
# A stream that fills a read in less reads many at once anyway, and if it slept the kernel would let it run
# before the calm ones.
LEAST_S = 0.002
# One that takes longer to fill it has little to gain.
MOST_S = 0.03


def lull_s(events: int, backlog: int, waited_s: float) -> float:
    """Seconds until the next read, 0 for at once.

    `events` were just read, `backlog` are unanswered, and the oldest of them has waited so long.
    """
    lag_s = waited_s - TOLD_WITHIN_S
    if lag_s < BEHIND_S or events >= ENOUGH or not backlog:
        return 0.0
    filled_in_s = ENOUGH * waited_s / backlog
    if not LEAST_S <= filled_in_s <= MOST_S:
        return 0.0
    return min(filled_in_s, lag_s * PART_OF_LAG)
