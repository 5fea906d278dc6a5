"""How a gap in the ids of trades is filled over REST: what to ask, and what the answers mean; pure.

Binance's calls by id, their weights and keys are those of its documentation of 2026. Asked from an id on,
REST lists rising ids from there. A fill asks from the last known id on: an answer that begins with that id
proves that REST reaches back far enough, so ids that such an answer leaves out do not exist. For futures,
single trades by id need an API key, but the newest thousand need none, which is enough for a gap of seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from relay.binance.streams import StreamKind, StreamSpec, Venue
from relay.errors import UnfitAnswerError
from relay.model.gap import FillOutcome, FillRange, Gap, coalesce

MAX_ROWS = 1000
# REST shows a trade some time after the stream does. After so many answers without progress the rest is given
# up.
MAX_STALLS = 12
_PREFIXES = {Venue.SPOT: "/api/v3", Venue.USDM: "/fapi/v1", Venue.COINM: "/dapi/v1"}
_AGG_WEIGHTS = {Venue.SPOT: 4, Venue.USDM: 20, Venue.COINM: 20}
_TRADE_WEIGHTS = {Venue.SPOT: 25, Venue.USDM: 200, Venue.COINM: 200}
_RECENT_WEIGHT = 5
# The names in a REST row for the fields of a `trade` event; rows of aggTrade have the event's own names.
_TRADE_ROW = {"t": "id", "p": "price", "q": "qty", "T": "time", "m": "isBuyerMaker", "M": "isBestMatch"}
# The same in every event of a stream.
_CONSTANT = frozenset({"e", "s", "ps", "st"})
_MAX_ID = 2**63 - 1


class RestQuery(NamedTuple):
    """One GET.

    A call `with_key` must send the API key in the header `key_header`. The header `used_weight_header` of the
    answer says what weight the address has used in the present minute.
    """

    path: str
    parameters: dict[str, str]
    weight: int
    with_key: bool
    key_header: str = "X-MBX-APIKEY"
    used_weight_header: str = "X-MBX-USED-WEIGHT-1M"


class GapFill:
    """The work on one gap: send `query` and give the rows of its answer to `answered`, until `done`."""

    def __init__(self, spec: StreamSpec, gap: Gap, *, has_key: bool) -> None:
        self.gap = gap
        self.next_id = gap.first_id
        self._spec = spec
        self._has_key = has_key
        self._sample: dict[str, Any] = orjson.loads(gap.sample)
        single = spec.kind is StreamKind.TRADE and spec.venue is not Venue.SPOT
        fits = gap.last_id - gap.first_id + 1 < MAX_ROWS
        self._recent = single and (fits or not has_key)
        self._stalls = 0

    @property
    def done(self) -> bool:
        return self.next_id > self.gap.last_id

    @property
    def stalled(self) -> bool:
        """REST has answered MAX_STALLS times without the next id."""
        return self._stalls >= MAX_STALLS

    @property
    def shortage(self) -> str:
        """Why UNREACHED ids are out of reach."""
        if self._recent:
            return f"without exchange.api_key_file REST lists the newest {MAX_ROWS:,} trades alone"
        return "REST does not have these ids"

    def query(self) -> RestQuery:
        spec = self._spec
        parameters = {"symbol": spec.symbol.upper(), "limit": str(MAX_ROWS)}
        prefix = _PREFIXES[spec.venue]
        if self._recent:
            return RestQuery(f"{prefix}/trades", parameters, _RECENT_WEIGHT, with_key=False)
        parameters["fromId"] = str(max(0, self.next_id - 1))
        if spec.kind is StreamKind.AGG_TRADE:
            return RestQuery(f"{prefix}/aggTrades", parameters, _AGG_WEIGHTS[spec.venue], with_key=False)
        with_key = spec.venue is not Venue.SPOT
        return RestQuery(f"{prefix}/historicalTrades", parameters, _TRADE_WEIGHTS[spec.venue], with_key)

    def answered(self, answer: object) -> list[FillRange]:
        """What the answer to the last query says of the next ids, in order; raises UnfitAnswerError."""
        rows = self._read(answer)
        ids = list(rows)
        if not ids or ids[-1] < self.next_id:
            self._stalls += 1
            return []
        if self._recent and ids[0] > self.next_id and self._has_key:
            self._recent = False
            return []
        end = min(ids[-1], self.gap.last_id)
        ranges = list(self._ranges(rows, self.next_id, end))
        # The list of the newest trades may not reach the end of the gap yet. The next answer may, so this
        # counts as a stall although ids were found.
        self._stalls = self._stalls + 1 if self._recent and end < self.gap.last_id else 0
        self.next_id = end + 1
        return ranges

    def _ranges(self, rows: Mapping[int, bytes], start: int, end: int) -> list[FillRange]:
        begin = next(iter(rows))
        ranges: list[FillRange] = []
        for event_id in (*(each for each in rows if start <= each <= end), end + 1):
            if event_id > start:
                ranges += self._skipped(start, event_id - 1, begin)
            if event_id <= end:
                ranges.append(FillRange(event_id, event_id, FillOutcome.FOUND, (rows[event_id],)))
            start = event_id + 1
        return coalesce(ranges)

    def _skipped(self, first: int, last: int, begin: int) -> list[FillRange]:
        """Ids that the answer leaves out. Spot leaves no id unused, so there they are only out of reach."""
        if not self._spec.may_skip_ids or last < begin:
            return [FillRange(first, last, FillOutcome.UNREACHED)]
        if first < begin:
            return [
                FillRange(first, begin - 1, FillOutcome.UNREACHED),
                FillRange(begin, last, FillOutcome.ABSENT),
            ]
        return [FillRange(first, last, FillOutcome.ABSENT)]

    def _read(self, answer: object) -> dict[int, bytes]:
        """The rows as payloads of the stream, by id."""
        if not isinstance(answer, list):
            raise UnfitAnswerError("the answer is no list")
        single = self._spec.kind is StreamKind.TRADE
        rows: dict[int, bytes] = {}
        last_id = -1
        for row in answer:
            event_id = row.get("id" if single else "a") if isinstance(row, dict) else None
            if type(event_id) is not int or not last_id < event_id <= _MAX_ID:
                raise UnfitAnswerError("the ids of its rows do not rise")
            wanted = self.next_id <= event_id <= self.gap.last_id
            rows[event_id] = (
                event_from_row(self._sample, row, _TRADE_ROW if single else {}) if wanted else b""
            )
            last_id = event_id
        return rows


def event_from_row(sample: Mapping[str, Any], row: Mapping[str, Any], names: Mapping[str, str]) -> bytes:
    """A row of REST in the form of the stream's own events; raises UnfitAnswerError for a row without one.

    REST gives no event time, so `E` is the time of the trade. It lists trades of the order book alone, which
    are `X: MARKET`. A field of the stream that REST does not tell is left out and never guessed.
    """
    found: dict[str, Any] = {key: row[name] for key in sample if (name := names.get(key, key)) in row}
    texts, time, maker = (found.get("p"), found.get("q")), found.get("T", row.get("time")), found.get("m")
    if not all(isinstance(text, str) for text in texts) or type(time) is not int or type(maker) is not bool:
        raise UnfitAnswerError("a row lacks price, quantity, time or side")
    fields: dict[str, Any] = {}
    for key, value in sample.items():
        if key in _CONSTANT:
            fields[key] = value
        elif key == "E":
            fields[key] = time
        elif key == "X":
            fields[key] = "MARKET"
        elif key in found:
            fields[key] = found[key]
    return orjson.dumps(fields)
