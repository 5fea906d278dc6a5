"""When a stream has been silent for too long; pure.

The silence limit of the stream's kind is the upper bound. Below it the stream's own rhythm decides, so that a
busy stream is suspected after seconds. After a silence that a probe connection shared, the market was quiet,
and the next silence may last twice as long.
"""

from __future__ import annotations

from relay.feed.timing import DEFAULT_TIMING

# The limit is three times the longest pause of the last five to ten minutes, once ten seconds are known.
SAFETY_FACTOR = 3.0
SPAN_S = 300.0
LEARN_S = 10.0
FLOOR_S = 2.0
# After three limits without an event a quiet market is unlikely, and the probe connection cannot wait.
URGENT_FACTOR = 3.0
# Trading has halted for hours before. Each probe costs a connection: one every 15 minutes at most.
MAX_LIMIT_S = 900.0


class SilenceDetector:
    """`limit_s` is the kind's limit, None where days may pass without an event; `now` is monotonic
    seconds."""

    def __init__(self, limit_s: float | None, subscribed_s: float = DEFAULT_TIMING.subscribed_s) -> None:
        self._kind_limit_s = self._max_limit_s = limit_s
        self._subscribed_s = subscribed_s
        self._waiting_since: float | None = None
        # The last event since `_waiting_since`, and the last one before it.
        self._last: float | None = None
        self._earlier = 0.0
        self._learning_since: float | None = None
        self._span_ends = 0.0
        self._longest_s = 0.0
        self._longest_before_s = 0.0

    def begin(self, now: float) -> None:
        """Data can be expected from now on: a connection opened, or reading resumed after a pause."""
        self._waiting_since = now
        if self._last is not None:
            self._earlier, self._last = self._last, None

    def stop(self) -> None:
        """No data can be expected: there is no connection, or reading is paused."""
        self._waiting_since = None

    def event_received(self, now: float) -> None:
        """Called for every read, so it does as little as it can."""
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
        """A probe connection was silent too: the market is quiet, and the rhythm is measured again."""
        limit_s = self.limit_s()
        if limit_s is not None and self._kind_limit_s is not None:
            self._max_limit_s = max(self._kind_limit_s, min(2 * limit_s, MAX_LIMIT_S))
        self._learning_since = None
        self._longest_s = self._longest_before_s = self._span_ends = 0.0
        self.begin(now)

    def limit_s(self) -> float | None:
        """How long the stream may be silent now; None for ever."""
        if self._max_limit_s is None:
            return None
        latest = self._earlier if self._last is None else self._last
        if self._learning_since is None or latest - self._learning_since < LEARN_S:
            return self._max_limit_s
        learned_s = SAFETY_FACTOR * max(self._longest_s, self._longest_before_s)
        return min(max(learned_s, FLOOR_S), self._max_limit_s)

    def overdue_s(self, now: float) -> float | None:
        """The length of the silence, if it is too long; else None."""
        limit_s = self.limit_s()
        if limit_s is None or self._waiting_since is None:
            return None
        if self._last is None:
            silent_s = now - self._waiting_since
            limit_s = max(limit_s, self._subscribed_s)
        else:
            silent_s = now - self._last
        return silent_s if silent_s > limit_s else None

    def is_urgent(self, now: float) -> bool:
        """The subscription has most probably failed, even if the connection still answers."""
        silent_s, limit_s = self.overdue_s(now), self.limit_s()
        return silent_s is not None and limit_s is not None and silent_s > URGENT_FACTOR * limit_s
