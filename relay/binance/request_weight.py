"""When the next REST request may be sent: Binance limits the weight of an address in each minute; pure.

This stream's own requests are kept within a rolling window. Besides, Binance's answers count: how much
the whole address has used, and how long to send nothing.
"""

from __future__ import annotations

from collections import deque

from relay.binance.streams import Venue

WINDOW_S = 60.0
# Binance counts the weight of an address in two pools: USD-M and COIN-M share one, spot has its own.
_POOLS = {Venue.SPOT: "spot", Venue.USDM: "futures", Venue.COINM: "futures"}
POOL_WEIGHTS = {"spot": 6000, "futures": 2400}
# The share of the pool for all streams of a relay; the rest is for other programs behind the same address.
SHARE = 0.5
# How long to wait after a refusal without `Retry-After`: Binance's window.
REFUSED_S = 60.0


def weight_pool(venue: Venue) -> str:
    """Venues with the same pool share one limit on the weight of REST requests."""
    return _POOLS[venue]


class RequestWeight:
    """`streams` share the pool evenly. A call heavier than that share is sent alone and counts for longer."""

    def __init__(self, venue: Venue, streams: int) -> None:
        self._pool = POOL_WEIGHTS[weight_pool(venue)]
        self._limit = max(1, int(self._pool * SHARE) // max(1, streams))
        self._spent: deque[tuple[float, int]] = deque()
        self._closed_until = 0.0

    def wait_s(self, weight: int, now: float) -> float:
        """Seconds until a call of this weight may be sent; 0 for now."""
        self._forget(now)
        wait_s = max(0.0, self._closed_until - now)
        room = self._limit - sum(each for _, each in self._spent)
        for until, spent in self._spent:
            if room >= weight:
                break
            room += spent
            wait_s = max(wait_s, until - now)
        return wait_s

    def spend(self, weight: int, now: float) -> None:
        """A call of this weight is sent."""
        until = now + WINDOW_S * max(1.0, weight / self._limit)
        self._spent.append((max(until, self._spent[-1][0]) if self._spent else until, weight))

    def report_used(self, weight: int, now: float) -> None:
        """The weight that the address has used in the present minute, as the exchange says."""
        if weight > self._pool * SHARE:
            self.close_for(WINDOW_S / 2, now)

    def close_for(self, seconds: float, now: float) -> None:
        """Send nothing for so long."""
        self._closed_until = max(self._closed_until, now + seconds)

    def _forget(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now:
            self._spent.popleft()
