"""Binance's own hosts, and which venue each serves."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from relay.binance.streams import Venue

OFFICIAL_URLS = {
    Venue.SPOT: "wss://stream.binance.com:9443",
    Venue.USDM: "wss://fstream.binance.com",
    Venue.COINM: "wss://dstream.binance.com",
}


OFFICIAL_REST_URLS = {
    Venue.SPOT: "https://api.binance.com",
    Venue.USDM: "https://fapi.binance.com",
    Venue.COINM: "https://dapi.binance.com",
}


_VENUE_OF_HOST = {
    "stream.binance.com": Venue.SPOT,
    "data-stream.binance.vision": Venue.SPOT,
    "fstream.binance.com": Venue.USDM,
    "dstream.binance.com": Venue.COINM,
}


def rest_url_of(url: str, venue: Venue) -> str:
    """Where the REST side of the exchange at `url` is: Binance's own, else the same host and port."""
    if official_venue(url) is not None:
        return OFFICIAL_REST_URLS[venue]
    return re.sub(r"^ws", "http", url)


def official_venue(url: str) -> Venue | None:
    """Whose host it is; None if it is not one of Binance's."""
    return _VENUE_OF_HOST.get(urlsplit(url).hostname or "")
