"""When the next REST request may go: Binance counts the weight of each minute by address; pure.

The strict part is a rolling window over what this stream spends. Beside it stands what the exchange says: how
much the whole address has used, and how long to stay away.
"""

from __future__ import annotations

from collections import deque

from relay.binance.streams import Venue

WINDOW_S = 60.0
# Binance counts the weight of an address in two pools: USD-M and COIN-M share one, spot has its own.
_POOLS = {Venue.SPOT: "spot", Venue.USDM: "futures", Venue.COINM: "futures"}
POOL_WEIGHTS = {"spot": 6000, "futures": 2400}
# What all streams of a relay may use together; the rest is for whoever else is behind the address.
SHARE = 0.5
# For a refusal that does not say how long: Binance's window.
REFUSED_S = 60.0


def weight_pool(venue: Venue) -> str:
    """Venues with the same pool share one limit on the weight of REST requests."""
    return _POOLS[venue]


class RequestWeight:
    """`streams` share the pool evenly. A call heavier than the share goes alone, and its window is longer."""

    def __init__(self, venue: Venue, streams: int) -> None:
        self._pool = POOL_WEIGHTS[weight_pool(venue)]
        self._limit = max(1, int(self._pool * SHARE) // max(1, streams))
        self._spent: deque[tuple[float, int]] = deque()
        self._closed_until = 0.0

    def wait_s(self, weight: int, now: float) -> float:
        """How long before a call of this weight may go; 0 is now."""
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
        """A call of this weight goes."""
        until = now + WINDOW_S * max(1.0, weight / self._limit)
        self._spent.append((max(until, self._spent[-1][0]) if self._spent else until, weight))

    def report_used(self, weight: int, now: float) -> None:
        """What the exchange says that the address has used in the present minute."""
        if weight > self._pool * SHARE:
            self.close_for(WINDOW_S / 2, now)

    def close_for(self, seconds: float, now: float) -> None:
        """The exchange wants to be left alone for so long."""
        self._closed_until = max(self._closed_until, now + seconds)

    def _forget(self, now: float) -> None:
        while self._spent and self._spent[0][0] <= now:
            self._spent.popleft()
