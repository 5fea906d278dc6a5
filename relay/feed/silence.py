"""When a stream has been silent for too long; pure.

The kind's own limit is the ceiling. Below it the stream's own rhythm decides: a busy stream is suspected
after seconds. A silence that a second socket shared was the market's, and the next may last twice as long.
"""

from __future__ import annotations

# Three times the longest pause of the last five to ten minutes; known after ten seconds.
SAFETY_FACTOR = 3.0
SPAN_S = 300.0
LEARN_S = 10.0
FLOOR_S = 2.0
# So many limits without an event are hardly a quiet market's any more: then a second look cannot wait.
URGENT_FACTOR = 3.0
# After a handshake the exchange has to look up the stream first.
FIRST_DATA_S = 5.0
# Trading was seen to halt for hours; asking every 15 minutes costs a connection each time.
MAX_LIMIT_S = 900.0


class SilenceDetector:
    """`limit_s` is the kind's limit, None where days may pass without an event."""

    def __init__(self, limit_s: float | None) -> None:
        self._kind_s = self._ceiling_s = limit_s
        self._waiting_since: float | None = None
        # The last event since then, and the last one before.
        self._last: float | None = None
        self._earlier = 0.0
        self._learning_since: float | None = None
        self._span_ends = 0.0
        self._longest_s = 0.0
        self._longest_before_s = 0.0

    def begin(self, now: float) -> None:
        """Data can be expected from now on: a connection opened, or reading went on after a pause."""
        self._waiting_since = now
        if self._last is not None:
            self._earlier, self._last = self._last, None

    def stop(self) -> None:
        """Nothing can be expected: there is no connection, or nobody reads."""
        self._waiting_since = None

    def event_received(self, now: float) -> None:
        """An event came. Called for every read, so it does as little as it can."""
        if self._last is not None and now - self._last > self._longest_s:
            self._longest_s = now - self._last
        self._last = now
        if now >= self._span_ends:
            self._begin_span(now)

    def _begin_span(self, now: float) -> None:
        if self._learning_since is None:
            self._learning_since = now
        self._longest_before_s, self._longest_s = self._longest_s, 0.0
        self._span_ends = now + SPAN_S

    def confirm_quiet(self, now: float) -> None:
        """A second socket was silent too: the market is quiet, and what was learned of its rhythm is over."""
        limit_s = self.limit_s()
        if limit_s is not None and self._kind_s is not None:
            self._ceiling_s = max(self._kind_s, min(2 * limit_s, MAX_LIMIT_S))
        self._learning_since = None
        self._longest_s = self._longest_before_s = self._span_ends = 0.0
        self.begin(now)

    def limit_s(self) -> float | None:
        if self._ceiling_s is None:
            return None
        latest = self._earlier if self._last is None else self._last
        if self._learning_since is None or latest - self._learning_since < LEARN_S:
            return self._ceiling_s
        learned_s = SAFETY_FACTOR * max(self._longest_s, self._longest_before_s)
        return min(max(learned_s, FLOOR_S), self._ceiling_s)

    def overdue_s(self, now: float) -> float | None:
        """For how long nothing came, if that is too long; else None."""
        limit_s = self.limit_s()
        if limit_s is None or self._waiting_since is None:
            return None
        if self._last is None:
            silent_s = now - self._waiting_since
            limit_s = max(limit_s, FIRST_DATA_S)
        else:
            silent_s = now - self._last
        return silent_s if silent_s > limit_s else None

    def is_urgent(self, now: float) -> bool:
        """The stream has most probably lost its data, whatever its connection looks like."""
        silent_s, limit_s = self.overdue_s(now), self.limit_s()
        return silent_s is not None and limit_s is not None and silent_s > URGENT_FACTOR * limit_s
