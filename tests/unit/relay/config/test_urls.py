"""Addresses of the exchange and of NATS servers: one form for all spellings, no password in messages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.binance.hosts import official_venue, rest_url_of
from relay.binance.streams import Venue
from relay.config.urls import parse_exchange_url, parse_rest_url, parse_server, split_credentials
from relay.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "base"),
    [
        (None, None),
        ("", None),
        ("wss://fstream.binance.com", "wss://fstream.binance.com"),
        ("wss://fstream.binance.com/ws", "wss://fstream.binance.com"),
        ("wss://fstream.binance.com/stream/", "wss://fstream.binance.com"),
        ("wss://fstream.binance.com/market/ws", "wss://fstream.binance.com"),
        ("wss://stream.binance.com:9443/", "wss://stream.binance.com:9443"),
        ("WSS://proxy.example.com/binance//ws/", "wss://proxy.example.com/binance"),
        ("wss://proxy.example.com/ws/eu", "wss://proxy.example.com/ws/eu"),
        ("ws://127.0.0.1:9001", "ws://127.0.0.1:9001"),
        ("ws://[::1]:9001/ws", "ws://[::1]:9001"),
        ("ws://10.0.0.7", "ws://10.0.0.7"),
        ("ws://localhost:9001", "ws://localhost:9001"),
        ("ws://exchange", "ws://exchange"),
        ("ws://exchange.sluice.svc.cluster.local:80", "ws://exchange.sluice.svc.cluster.local:80"),
    ],
)
def test_the_base_of_the_exchange_has_no_stream_path(written: object, base: str | None) -> None:
    assert parse_exchange_url(written) == base


@pytest.mark.parametrize(
    "written",
    [
        "fstream.binance.com",
        "https://fstream.binance.com",
        "ws://fstream.binance.com",
        "ws://8.8.8.8",
        "wss://",
        "wss://host:port",
        "wss://host:99999",
        "wss://host:0",
        "wss://me@host",
        "wss://host?streams=a",
        "wss://host#a",
        "wss://host/a b",
        "wss://ho st",
        "wss://host/%2e%2e",
        "wss://[::1",
        "wss://ho\nst",
        "wss://host/\ud800",
        5,
        [],
    ],
)
def test_what_is_no_base_is_refused_with_an_example(written: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_exchange_url(written)
    assert "wss://" in caught.value.remedy


@pytest.mark.parametrize(
    ("written", "base"),
    [
        (None, None),
        ("", None),
        ("https://fapi.binance.com/", "https://fapi.binance.com"),
        ("http://127.0.0.1:9001", "http://127.0.0.1:9001"),
        ("https://proxy.example/binance/", "https://proxy.example/binance"),
    ],
)
def test_the_base_of_rest_is_kept_as_it_is(written: str | None, base: str | None) -> None:
    assert parse_rest_url(written) == base


@pytest.mark.parametrize(
    "written", ["http://fapi.binance.com", "wss://h", "https://u:p@h", "https://h?x=1", "https://", 5]
)
def test_what_is_no_base_of_rest_is_refused_with_an_example(written: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rest_url(written)
    assert "https://" in caught.value.remedy


def test_rest_is_where_the_sockets_are_and_at_binance_on_hosts_of_its_own() -> None:
    assert rest_url_of("ws://127.0.0.1:9001/x", Venue.USDM) == "http://127.0.0.1:9001/x"
    assert rest_url_of("wss://proxy.example", Venue.SPOT) == "https://proxy.example"
    assert rest_url_of("wss://dstream.binance.com", Venue.COINM) == "https://dapi.binance.com"
    assert rest_url_of("wss://data-stream.binance.vision", Venue.SPOT) == "https://api.binance.com"


def test_binances_hosts_are_known_by_venue() -> None:
    assert official_venue("wss://stream.binance.com:443") is Venue.SPOT
    assert official_venue("wss://FSTREAM.binance.com") is Venue.USDM
    assert official_venue("ws://127.0.0.1:9001") is None


@pytest.mark.parametrize(
    ("written", "server"),
    [
        ("nats://h", "nats://h:4222"),
        ("nats://h:4223/", "nats://h:4223"),
        ("tls://h", "tls://h:4222"),
        ("h", "nats://h:4222"),
        ("h:5", "nats://h:5"),
        ("nats://[::1]", "nats://[::1]:4222"),
    ],
)
def test_servers_get_a_scheme_and_a_port(written: str, server: str) -> None:
    assert parse_server(written) == server


@pytest.mark.parametrize(
    "written", ["http://h", "nats://", "nats://h/x", "nats://h?x", "nats://u@h", "", None]
)
def test_what_is_no_server_is_refused(written: object) -> None:
    with pytest.raises(ConfigError):
        parse_server(written)


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        ("nats://h:4222", ("nats://h:4222", "", "")),
        ("nats://me:pa%40ss@h", ("nats://h", "me", "pa@ss")),
        ("nats://me:p@ss@h", ("nats://h", "me", "p@ss")),
        ("me:pass@h", ("h", "me", "pass")),
        ("nats://token@h", ("nats://h", "token", "")),
    ],
)
def test_credentials_are_split_off(written: str, parts: tuple[str, str, str]) -> None:
    assert split_credentials(written) == parts


@settings(deadline=None)
@given(
    st.sampled_from([parse_exchange_url, parse_server]), st.text(), st.sampled_from(["", "wss://", "nats://"])
)
def test_no_message_shows_what_stands_before_an_at_sign(parse: object, noise: str, scheme: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"{scheme}{noise}hunter2@host")  # type: ignore[operator]
    assert "hunter2" not in str(caught.value)
