"""Settings of the simulated exchange: what is refused, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from relay.binance.streams import Venue
from relay.errors import ConfigError
from simulator.settings import ExchangeSettings


@pytest.mark.parametrize(
    ("wrong", "path", "text"),
    [
        ({"streams": ("!ticker@arr",)}, "streams", "simulated exchange has no"),
        ({"streams": ("btcusdt@fundingRate@1s",)}, "streams", "not a stream"),
        ({"streams": ("dogeusdt@trade",)}, "streams", "does not list"),
        ({"rates": {"dogeusdt@trade": 1.0}}, "rates", "does not list"),
        ({"rates": {"*": -1.0}}, "rates.*", "negative"),
        ({"expected": ("ethusdt@nothing",)}, "expected", "not a stream"),
        ({"speed": 0.0}, "speed", "above 0"),
        ({"rate_scale": 1e-9}, "rate_scale", "too small"),
        ({"quantum": 0}, "quantum", "above 0"),
    ],
)
def test_wrong_settings_are_refused_at_the_start(wrong: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as refused:
        ExchangeSettings(**wrong)
    assert refused.value.path == path


@pytest.mark.parametrize("venue", list(Venue))
def test_settings_left_out_are_the_venues_own(venue: Venue) -> None:
    of = ExchangeSettings(venue=venue)
    spot = venue is Venue.SPOT
    assert (of.ping_s, of.pong_s) == ((20.0, 60.0) if spot else (180.0, 600.0))
    assert of.message_limit == (5 if spot else 10)
    assert of.weight_limit == (6000 if spot else 2400)
    assert len(of.shown_symbols) == 2
