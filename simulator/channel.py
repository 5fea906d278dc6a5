"""One stream of the simulated exchange: makes events when they are due and hands them to its subscribers."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from relay.binance.streams import StreamKind
from simulator.payloads import Source
from simulator.report import Sent, SentTally
from simulator.traffic import Arrivals, Uniform

NS_PER_MS, NS_PER_US = 1_000_000, 1000
# Called with stream, payloads and send time in ns for everything that is sent.
Tap = Callable[[str, list[bytes], int], None]


class Listener(Protocol):
    """A connection that has subscribed."""

    @property
    def paused(self) -> bool:
        """True while it cannot take bytes; a push is then queued."""
        ...

    def push(self, channel: Channel, payloads: list[bytes]) -> bool:
        """Write or queue; False if the connection is ending."""
        ...


class Channel:
    """Makes the events that are due and hands each to every listener.

    While every listener is paused, no events are made, and events that stay due longer than `max_owed_s` are
    never made. Without listeners events are still made, unseen, so that a client that was away finds a
    real gap in the ids. `stamp_ns` is the unit of the events' times. `due_s` is when the next event is due,
    and `has_listeners` whether a connection would get it. Both are plain fields, because the pump reads them
    for every channel in every pass.
    """

    def __init__(
        self,
        name: str,
        kind: StreamKind | None,
        source: Source,
        max_owed_s: float,
        tap: Tap | None = None,
        stamp_ns: int = NS_PER_MS,
    ) -> None:
        self.name = name
        self.wire_name = name.encode()
        self.tally = SentTally(name, kind)
        self.due_s = inf
        self.has_listeners = False
        self._source = source
        self._max_owed_s = max_owed_s
        self._tap = tap
        self._stamp_ns = stamp_ns
        self._arrivals: Arrivals = Uniform(0.0, 0.0)
        self._regular_arrivals: Arrivals = self._arrivals
        self._extra = 0
        self._skipped = 0
        self._listeners: list[Listener] = []
        self._muted: list[Listener] = []
        self._mute_all = False

    @property
    def subscribers(self) -> int:
        return len(self._listeners) + len(self._muted)

    @property
    def stalled(self) -> bool:
        """Every listener is paused, so events wait until one of them resumes."""
        return self.has_listeners and all(listener.paused for listener in self._listeners)

    def start(self, arrivals: Arrivals) -> None:
        self._regular_arrivals = arrivals
        self._set_arrivals(arrivals)

    def flood(self, rate_per_s: float, now_s: float) -> None:
        self._set_arrivals(Uniform(rate_per_s, now_s))

    def follow(self, arrivals: Arrivals) -> None:
        """Use these arrivals instead of the regular ones."""
        self._set_arrivals(arrivals)

    def calm(self, now_s: float) -> None:
        """Return to the regular arrivals, without the events that they would have sent meanwhile."""
        self._regular_arrivals.take_due(now_s, inf)
        self._set_arrivals(self._regular_arrivals)

    def emit(self, count: int) -> None:
        """Make `count` more events due at once."""
        self._extra += count
        self._update_due()

    def skip(self, count: int) -> None:
        """Make the next `count` events and send them to no listener: a gap that REST can still fill."""
        self._skipped += count

    def stop(self) -> None:
        self._extra = 0
        self.start(Uniform(0.0, 0.0))

    def _set_arrivals(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._update_due()

    def _update_due(self) -> None:
        self.due_s = -inf if self._extra else self._arrivals.next_s

    def add(self, listener: Listener) -> None:
        if listener not in self._listeners and listener not in self._muted:
            self._listeners.append(listener)
            self._count_listeners()

    def remove(self, listener: Listener) -> None:
        for listeners in (self._listeners, self._muted):
            if listener in listeners:
                listeners.remove(listener)
        self._count_listeners()

    def silence(self, *, everybody: bool) -> None:
        """Send nothing more to the present subscribers; with `everybody`, to later ones neither."""
        self._muted += self._listeners
        self._listeners = []
        self._mute_all = everybody
        self._count_listeners()

    def unsilence(self) -> None:
        self._listeners += self._muted
        self._muted = []
        self._mute_all = False
        self._count_listeners()

    def _count_listeners(self) -> None:
        self.has_listeners = bool(self._listeners) and not self._mute_all

    def step(self, now_s: float, now_ns: int, quantum: int) -> bool:
        """Make and deliver at most `quantum` events; True if some are still due."""
        if self.stalled:
            return False
        if self._arrivals.next_s < now_s - self._max_owed_s:
            self.tally.withheld += self._arrivals.take_due(now_s - self._max_owed_s, inf)
        extra = min(self._extra, quantum)
        self._extra -= extra
        count = extra + self._arrivals.take_due(now_s, quantum - extra)
        self._update_due()
        if count:
            self._deliver(self._source.make(count, now_ns // self._stamp_ns), now_ns)
        return count == quantum

    def _deliver(self, payloads: list[bytes], now_ns: int) -> None:
        if self._skipped:
            unseen, payloads = payloads[: self._skipped], payloads[self._skipped :]
            self._skipped -= len(unseen)
            self.tally.add_unseen(unseen)
            if not payloads:
                return
        listeners = tuple(self._listeners) if self.has_listeners else ()
        accepted = [listener.push(self, payloads) for listener in listeners]
        if not any(accepted):
            self.tally.add_unseen(payloads)
            return
        self.tally.add_sent(payloads, now_ns)
        if self._tap is not None:
            self._tap(self.name, payloads, now_ns)

    def sent(self) -> Sent:
        return self.tally.sent(self.subscribers)
