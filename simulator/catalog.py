"""All channels of one exchange: which streams have data, at which rates, and when traffic starts and ends."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from relay.binance.streams import StreamSpec, parse_stream
from relay.errors import ConfigError, UsageError
from simulator.channel import NS_PER_MS, NS_PER_US, Channel, Tap
from simulator.payloads import TAPE_KINDS, Markets, simulated
from simulator.replay import Recording, Replay
from simulator.rest import History
from simulator.settings import EVERY, ExchangeSettings
from simulator.subscriptions import flows
from simulator.traffic import Listed, arrivals, evenly

# Phases spread by the golden ratio keep streams of one rate from falling due together.
_GOLDEN = 0.6180339887498949


class Catalog:
    """Opens a channel at its first subscription; from then on its ids rise until traffic stops.

    Traffic waits until every expected stream has a subscriber. A recording starts all its streams at once.
    """

    def __init__(
        self, settings: ExchangeSettings, recording: Recording | None, tap: Tap | None = None
    ) -> None:
        self.channels: dict[str, Channel] = {}
        self.markets = Markets(
            settings.venue, settings.shown_symbols, settings.seed, settings.id_offset, settings.history
        )
        self.started = False
        self.stopped = False
        self._settings = settings
        self._recording = recording
        self._tap = tap
        self._replays: dict[str, Replay] = {}
        self._floods: dict[str, float] = {}
        self._waiting = self._expected()

    def _expected(self) -> set[str]:
        expected = set(self._settings.expected)
        if EVERY in expected:
            expected.discard(EVERY)
            expected.update(self._recording.tracks if self._recording else self._settings.streams)
        return expected

    @property
    def finished(self) -> bool:
        """Nothing more will be sent: the recording is over, or traffic was stopped."""
        over = bool(self._replays) and all(replay.finished for replay in self._replays.values())
        return self.stopped or (self._recording is not None and over)

    def spec(self, name: str) -> StreamSpec | None:
        try:
            return parse_stream(self._settings.venue, name)
        except ConfigError:
            return None

    def has_data(self, name: str, route: str) -> bool:
        """Whether a subscriber on `route` gets data; on Binance a wrong route is acknowledged and stays
        silent.
        """
        spec = self.spec(name)
        if self._recording is not None:
            return name in self._recording.tracks and (spec is None or flows(route, spec))
        return spec is not None and self.markets.shows(spec) and flows(route, spec)

    def ensure(self, name: str, now_s: float) -> Channel:
        """The channel of a name that `has_data`; opened if it is new."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = self._open_channel(name, now_s)
        return channel

    def _open_channel(self, name: str, now_s: float) -> Channel:
        spec = self.spec(name)
        kind = spec.kind if spec else None
        if self._recording is not None:
            replay = self._replays[name] = Replay(self._recording.tracks[name], kind, self._settings.speed)
            return Channel(name, kind, replay, inf, self._tap)
        assert spec is not None and simulated(spec), name
        stamp_ns = NS_PER_US if self._settings.stamp_us and spec.kind in TAPE_KINDS else NS_PER_MS
        source, max_owed_s = self.markets.source(spec), self._settings.max_owed_s
        channel = Channel(name, kind, source, max_owed_s, self._tap, stamp_ns)
        if self.started and not self.stopped:
            self._start_channel(channel, spec, len(self.channels), now_s)
        return channel

    def _start_channel(self, channel: Channel, spec: StreamSpec, index: int, now_s: float) -> None:
        phase = index * _GOLDEN % 1.0
        rate = self._settings.rates.get(spec.name, self._settings.rates.get(EVERY))
        if rate is not None:
            channel.start(evenly(rate, now_s, phase))
        else:
            channel.start(arrivals(spec, self._settings.seed, now_s, self._settings.rate_scale, phase))
        if spec.name in self._floods:
            channel.flood(self._floods[spec.name], now_s)

    def subscribed(self, name: str, now_s: float) -> None:
        """A socket has subscribed to `name`; starts traffic once all expected streams are subscribed."""
        self._waiting.discard(name)
        if not self._waiting:
            self.start(now_s)

    def start(self, now_s: float) -> None:
        """Start traffic now, whether all expected streams are subscribed or not."""
        if self.started or self.stopped:
            return
        self.started = True
        for name in self._recording.tracks if self._recording else ():
            self.ensure(name, now_s)
        for name, replay in self._replays.items():
            replay.begin(now_s)
            self.channels[name].start(replay)
        for index, (name, channel) in enumerate(self.channels.items() if not self._recording else ()):
            spec = self.spec(name)
            assert spec is not None, name
            self._start_channel(channel, spec, index, now_s)

    def stop(self) -> None:
        """Make no more events on any stream. Final."""
        self.stopped = True
        for channel in self.channels.values():
            channel.stop()

    def flood(self, name: str, rate_per_s: float, now_s: float) -> None:
        """Replace a stream's arrivals by `rate_per_s` evenly spaced ones; also before its first
        subscription.
        """
        self._check_generated(name)
        if rate_per_s < 0:
            raise UsageError(f"{rate_per_s} is negative; write 0 for a halt")
        self._floods[name] = rate_per_s
        if name in self.channels and self.started and not self.stopped:
            self.channels[name].flood(rate_per_s, now_s)

    def follow(self, name: str, times_s: Sequence[float], now_s: float) -> None:
        """Replace a subscribed stream's arrivals by these ascending times, in seconds from now."""
        self._check_generated(name)
        if name not in self.channels:
            raise UsageError(f"nobody has subscribed to {name}")
        self.channels[name].follow(Listed([now_s + at_s for at_s in times_s]))

    def calm(self, name: str | None, now_s: float) -> None:
        """End the flood of one stream, or of all."""
        for flooded in [name] if name else list(self._floods):
            if self._floods.pop(flooded, None) is not None and flooded in self.channels:
                self.channels[flooded].calm(now_s)

    def emit(self, name: str, count: int, now_s: float) -> None:
        """Send `count` additional events on a stream, as fast as they are read."""
        self._check_generated(name)
        self.ensure(name, now_s).emit(count)

    def history(self, name: str) -> History | None:
        return self._replays.get(name) or self.markets.tapes.get(name)

    def _check_generated(self, name: str) -> None:
        if self._recording is not None:
            raise UsageError("a recording is sent as it is; no stream of it can be flooded")
        spec = self.spec(name)
        if spec is None or not self.markets.shows(spec):
            raise UsageError(f"{name} is no stream of this exchange")
