"""How many ids are missing between two neighbours of a stream; pure."""

from __future__ import annotations

from typing import Any

from relay.binance.streams import StreamKind, Venue, parse_stream
from relay.model.gap import GapRule


def gap_rule(key: str) -> GapRule | None:
    """The rule of the stream with this key; None if it has no ids."""
    venue, _, name = key.partition(":")
    spec = parse_stream(Venue(venue), name)
    if not spec.id_key:
        return None
    if spec.kind is StreamKind.DEPTH_DIFF:
        return GapRule(_broken_links, contiguous=False)
    return GapRule(_skipped_ids, contiguous=True)


def _skipped_ids(last: int, number: int, _payload: Any) -> int:
    return number - last - 1


def _broken_links(last: int, _number: int, payload: Any) -> int:
    """Futures name the previous `u` as `pu`; spot continues with `U` one above it."""
    previous = payload["pu"] if "pu" in payload else payload["U"] - 1
    return int(previous != last)
