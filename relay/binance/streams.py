"""What Sluice knows of one stream: what its frames promise, where it flows, and its names on NATS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from relay.binance.grammar import SYMBOLLESS, WITH_SYMBOL, StreamKind, Venue, suggestion
from relay.errors import ConfigError
from relay.primitives.text import quoted

__all__ = [
    "ALL_SYMBOLS",
    "StreamKind",
    "StreamSpec",
    "Venue",
    "parse_stream",
    "split_contract",
]

ALL_SYMBOLS = "all"
# Binance's own limit; with four bytes a character the longest JetStream name stays below NATS's 255 bytes.
MAX_SYMBOL_CHARACTERS = 50
CONTRACT_TYPES = ("tradifi_perpetual", "perpetual", "current_quarter", "next_quarter")
_K = StreamKind

# Only these ids are unique and rise without repeats, so that the same id from any socket is the same event.
_ID_KEYS = {_K.TRADE: "t", _K.AGG_TRADE: "a", _K.BLOCK_TRADE: "t", _K.DEPTH_DIFF: "u"}
# Each of these is a change and not a state: the next one does not make up for it.
_LOSSLESS = frozenset(
    {_K.TRADE, _K.AGG_TRADE, _K.BLOCK_TRADE, _K.DEPTH_DIFF, _K.RPI_DEPTH, _K.FORCE_ORDER, _K.CONTRACT_INFO}
)
_PAIR_KINDS = frozenset({_K.INDEX_PRICE, _K.INDEX_PRICE_KLINE})


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream: Binance's name for it, what its frames promise, and its names on NATS.

    `symbol` is `all` where the name has none. `event_type` is the payload's `e`, empty where it has none or
    several. `id_key` is empty where no field is a unique id. `route` is empty off USD-M. `silence_limit_s` is
    None where days may pass without an event. `array` payloads are lists.
    """

    venue: Venue
    name: str
    symbol: str
    channel: str
    kind: StreamKind
    event_type: str
    id_key: str
    route: str
    silence_limit_s: float | None
    array: bool = False

    @property
    def snapshot(self) -> bool:
        """Each event is the full state, so the latest makes the earlier ones needless.

        Never so for streams of all symbols: one event holds the changed symbols alone.
        """
        return self.kind not in _LOSSLESS and self.symbol != ALL_SYMBOLS

    @property
    def lossless(self) -> bool:
        return not self.snapshot

    @property
    def interval(self) -> str:
        """`1m` of `kline_1m`; empty for kinds without klines."""
        found = re.search(r"[kK]line_(\d+\w)", self.channel)
        return found[1] if found else ""

    @property
    def key(self) -> str:
        return f"{self.venue}:{self.name}"

    @property
    def path(self) -> str:
        route = f"/{self.route}" if self.route else ""
        return f"{route}/ws/{quote(self.name, safe='@!+:')}"

    @property
    def jetstream_name(self) -> str:
        return f"SLUICE_{self.venue}_{self.symbol}_{self.channel}"

    @property
    def fence_subject(self) -> str:
        return f"sluice.fence.{self._tokens}"

    @property
    def stored_subject(self) -> str:
        return f"sluice.stored.{self._tokens}"

    @property
    def loss_subject(self) -> str:
        return f"sluice.loss.{self._tokens}"

    @property
    def rejected_subject(self) -> str:
        return f"sluice.rejected.{self._tokens}"

    @property
    def _tokens(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.channel}"

    @property
    def healable(self) -> bool:
        """REST gives events of this kind by their ids."""
        return self.kind in (_K.TRADE, _K.AGG_TRADE)

    @property
    def counts_by_ids(self) -> bool:
        """Each id is one event, so that the size of a gap is a count of events.

        Not so for depth updates, whose ids number changes of price levels.
        """
        return self.kind in (_K.TRADE, _K.AGG_TRADE)

    @property
    def may_skip_ids(self) -> bool:
        """The exchange may use ids for which it sends no event, as futures do; spot numbers trades in
        succession."""
        return self.venue is not Venue.SPOT

    def subject(self, template: str) -> str:
        """`template` has passed `relay.config.subjects.parse_template`."""
        return template.format(venue=self.venue.value, symbol=self.symbol, channel=self.channel)

    def repair_subject(self, template: str) -> str:
        """Where events go that were healed too late for their place."""
        return f"{self.subject(template)}.repair"


def parse_stream(venue: Venue, name: str) -> StreamSpec:
    """Raises ConfigError, without a path, for a name that is no stream of `venue`."""
    row = SYMBOLLESS[venue].get(name)
    symbol, form = "", name
    if row is None:
        symbol, _, form = name.partition("@")
        row = WITH_SYMBOL[venue].get(form)
        if row is None or not symbol:
            problem = f"{quoted(name)} is not a stream of {venue}"
            advised = symbol.lower() if _is_symbol(symbol.lower()) else ""
            raise ConfigError("", problem, suggestion(venue, name, advised, form))
        _check_symbol(venue, name, symbol, form, row.kind)
    return StreamSpec(
        venue=venue,
        name=name,
        symbol=symbol or ALL_SYMBOLS,
        channel=form.removeprefix("!").replace("@", "_"),
        kind=row.kind,
        event_type=row.event_type,
        id_key=_ID_KEYS.get(row.kind, ""),
        route=row.route if venue is Venue.USDM else "",
        silence_limit_s=row.silence_limit_s,
        array=row.array or _is_pair_array(venue, symbol, row.kind),
    )


def split_contract(symbol: str) -> tuple[str, str]:
    """`btcusdt_next_quarter` as pair and contract type; the type is empty if there is none."""
    for contract in CONTRACT_TYPES:
        if symbol.endswith(f"_{contract}"):
            return symbol.removesuffix(f"_{contract}"), contract
    return symbol, ""


def _check_symbol(venue: Venue, name: str, symbol: str, form: str, kind: StreamKind) -> None:
    if not _is_symbol(symbol.lower()):
        raise ConfigError("", f"{quoted(symbol)} is no symbol", "write one that Binance lists, in lower case")
    if symbol != symbol.lower():
        remedy = f"write {symbol.lower()}@{form}; Binance stays silent on upper case"
        raise ConfigError("", f"{quoted(name)} has an upper-case symbol", remedy)
    if kind is _K.CONTINUOUS_KLINE and not all(split_contract(symbol)):
        remedy = f"write <pair>_<contract type>, such as {symbol.partition('_')[0]}_perpetual@{form}"
        raise ConfigError("", f"{quoted(name)} names no contract type", remedy)
    if venue is Venue.COINM:
        _check_contract(name, symbol, form, kind)


def _check_contract(name: str, symbol: str, form: str, kind: StreamKind) -> None:
    """COIN-M names a contract `btcusd_perp` and a pair `btcusd`, and each stream takes one of the two."""
    contract = "_" in symbol
    if kind in _PAIR_KINDS and contract:
        remedy = f"write {symbol.partition('_')[0]}@{form}"
        raise ConfigError("", f"{quoted(name)} names a contract where a pair belongs", remedy)
    if kind not in _PAIR_KINDS and kind is not _K.MARK_PRICE and not contract:
        remedy = f"write a contract, such as btcusd_perp@{form}"
        raise ConfigError("", f"{quoted(name)} names no contract of coinm", remedy)


def _is_symbol(symbol: str) -> bool:
    """No character that NATS forbids, and one upper-case spelling, the one that payloads carry."""
    plain = re.fullmatch(rf"[\w-]{{1,{MAX_SYMBOL_CHARACTERS}}}", symbol) and symbol.upper().lower() == symbol
    return bool(plain) and symbol != ALL_SYMBOLS


def _is_pair_array(venue: Venue, symbol: str, kind: StreamKind) -> bool:
    return venue is Venue.COINM and kind is _K.MARK_PRICE and "_" not in symbol
