"""The settings of a simulated exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from relay.binance.streams import Venue
from relay.errors import ConfigError
from simulator.payloads import checked

_SYMBOLS = {
    Venue.SPOT: ("btcusdt", "ethusdt"),
    Venue.USDM: ("btcusdt", "ethusdt"),
    Venue.COINM: ("btcusd_perp", "ethusd_perp"),
}
# Binance's figures: ping interval and pong deadline, client messages a second, request weight a minute.
_PINGS_S = {Venue.SPOT: (20.0, 60.0), Venue.USDM: (180.0, 600.0), Venue.COINM: (180.0, 600.0)}
_MESSAGES_PER_S = {Venue.SPOT: 5, Venue.USDM: 10, Venue.COINM: 10}
_WEIGHTS = {Venue.SPOT: 6000, Venue.USDM: 2400, Venue.COINM: 2400}
# Below this the traffic model would search hours of empty seconds for its next event.
_MIN_SCALE = 0.001
# A rate for every stream that has none of its own.
EVERY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSettings:
    """None stands for Binance's own figure of the venue.

    `rates` replaces the traffic model by exact, evenly spaced rates: by stream name, or `*` for all others.
    `expected` streams must each have a subscriber before any event is sent; with a recording, `*` means all
    of its streams. Ids start `id_offset` above the seed's, so that a later run need not repeat an earlier
    one's. A socket that is read too slowly stops its streams; while others read them, it queues up to
    `queue_max_bytes` and is then reset. An event that could not be sent for `max_owed_s` is never made.
    `record` is a file that gets every event sent, in the format that `recording` reads. With `stamp_us`
    trades carry their times in microseconds, as Binance's spot streams do on `timeUnit=MICROSECOND`.
    """

    venue: Venue = Venue.USDM
    symbols: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    seed: int = 1
    id_offset: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    rate_scale: float = 1.0
    rates: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    expected: tuple[str, ...] = ()
    recording: Path | None = None
    speed: float = 1.0
    record: Path | None = None
    stamp_us: bool = False
    ping_interval_s: float | None = None
    pong_deadline_s: float | None = None
    lifetime_s: float = 24 * 3600.0
    messages_per_s: int | None = None
    connects_per_5min: int = 300
    streams_per_connection: int = 1024
    weight_per_minute: int | None = None
    wrapped_errors: bool = True
    queue_max_bytes: int = 64 * 1024 * 1024
    max_owed_s: float = 1.0
    history: int = 200_000
    tick_s: float = 0.002
    quantum: int = 128
    write_high_bytes: int = 256 * 1024
    close_timeout_s: float = 2.0

    def __post_init__(self) -> None:
        _positive(
            self, "rate_scale", "speed", "lifetime_s", "tick_s", "quantum", "history", "write_high_bytes"
        )
        if self.rate_scale < _MIN_SCALE:
            raise ConfigError(
                "rate_scale", f"{self.rate_scale} is too small", "give exact slow rates in `rates`"
            )
        self._check_streams()

    def _check_streams(self) -> None:
        for path, names in (
            ("streams", self.streams),
            ("expected", self.expected),
            ("rates", tuple(self.rates)),
        ):
            for name in names if self.recording is None else ():
                if name != EVERY or path == "streams":
                    _check_shown(self, path, name)
        for name, rate in self.rates.items():
            if rate < 0:
                raise ConfigError(
                    f"rates.{name}", f"{rate} is negative", "write 0 for a stream that stays silent"
                )

    @property
    def shown_symbols(self) -> tuple[str, ...]:
        return self.symbols or _SYMBOLS[self.venue]

    @property
    def ping_s(self) -> float:
        return self.ping_interval_s if self.ping_interval_s is not None else _PINGS_S[self.venue][0]

    @property
    def pong_s(self) -> float:
        return self.pong_deadline_s if self.pong_deadline_s is not None else _PINGS_S[self.venue][1]

    @property
    def message_limit(self) -> int:
        return self.messages_per_s if self.messages_per_s is not None else _MESSAGES_PER_S[self.venue]

    @property
    def weight_limit(self) -> int:
        return self.weight_per_minute if self.weight_per_minute is not None else _WEIGHTS[self.venue]


def _positive(settings: ExchangeSettings, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value <= 0:
            raise ConfigError(name, f"{value} is not above 0")


def _check_shown(settings: ExchangeSettings, path: str, name: str) -> None:
    try:
        spec = checked(settings.venue, name)
    except ConfigError as error:
        raise ConfigError(path, error.problem, error.remedy) from None
    pairs = {symbol.partition("_")[0] for symbol in settings.shown_symbols}
    if spec.symbol not in settings.shown_symbols and spec.symbol.partition("_")[0] not in pairs:
        listed = ", ".join(settings.shown_symbols)
        raise ConfigError(
            path, f"{name} is of a symbol that this exchange does not list", f"it lists {listed}"
        )
