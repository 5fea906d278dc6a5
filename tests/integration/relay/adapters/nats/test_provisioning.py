"""The JetStream streams of a configuration, created on and fitted to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.nats.connection import NatsConnection, connect
from relay.adapters.nats.jetstream_api import ask
from relay.adapters.nats.provisioning import SIDE_NAME, ensure_streams
from relay.config import Config, NatsConfig, parse_config
from relay.errors import BusError, RefusedError
from tests.support.scripted_nats import INFO, scripted_server

T = TypeVar("T")
BOOK, TRADE = "SLUICE_usdm_btcusdt_depth20_100ms", "SLUICE_usdm_btcusdt_trade"


def a_config(server: EmbeddedNats, nats_lines: str = "") -> Config:
    text = f"""
nats:
  servers: ["{server.url}"]
  {nats_lines}
journal: {{directory: /tmp/unused}}
shards:
  - stream: btcusdt@trade
  - stream: btcusdt@depth20@100ms
"""
    return parse_config(text, {})


def ensure(config: Config) -> tuple[str, ...]:
    return asyncio.run(ensure_streams(config.nats, config.streams))


def on_server(config: Config, action: Callable[[NatsConnection], Awaitable[T]]) -> T:
    async def run() -> T:
        connection = await connect(config.nats, config.nats.servers[0], "test", lambda _: None)
        try:
            return await action(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def config_of(config: Config, name: str) -> dict[str, Any]:
    return on_server(config, lambda bus: ask(bus, f"STREAM.INFO.{name}"))["config"]


def create(config: Config, **fields: object) -> None:
    on_server(config, lambda bus: ask(bus, f"STREAM.CREATE.{fields['name']}", orjson.dumps(fields)))


def test_each_stream_gets_its_own_and_all_share_one_for_side_records(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server)
    assert set(ensure(config)) == {SIDE_NAME, TRADE, BOOK}
    assert config_of(config, TRADE)["subjects"] == [
        "binance.usdm.btcusdt.trade",
        "sluice.fence.usdm.btcusdt.trade",
    ]
    assert config_of(config, SIDE_NAME)["subjects"] == [
        "sluice.loss.>",
        "sluice.rejected.>",
        "binance.usdm.btcusdt.trade.repair",
    ]


def test_two_relays_keep_their_repairs_in_one_stream(nats_server: EmbeddedNats) -> None:
    ensure(a_config(nats_server, "subject: 'one.{symbol}.{channel}'"))
    config = a_config(nats_server, "subject: 'two.{symbol}.{channel}'")
    ensure(config)
    subjects = config_of(config, SIDE_NAME)["subjects"]
    assert {"one.btcusdt.trade.repair", "two.btcusdt.trade.repair"} < set(subjects)
    assert ensure(config) == ()


def test_limits_are_what_the_configuration_says(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server, "stream: {max_bytes: 10MiB, max_age_s: 1h, duplicate_window_s: 30s}")
    ensure(config)
    found = config_of(config, TRADE)
    expected = {
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_bytes": 10 * 1024 * 1024,
        "max_age": 3600 * 10**9,
        "duplicate_window": 30 * 10**9,
        "num_replicas": 1,
        "allow_direct": True,
    }
    assert {name: found[name] for name in expected} == expected


def test_doing_it_twice_changes_nothing(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server)
    ensure(config)
    assert ensure(config) == ()


def test_changed_limits_are_brought_to_existing_streams_and_nothing_stored_is_lost(
    nats_server: EmbeddedNats,
) -> None:
    before = a_config(nats_server)
    ensure(before)
    on_server(before, lambda bus: bus.request("binance.usdm.btcusdt.trade", b"{}"))
    after = a_config(nats_server, "stream: {max_bytes: 64MiB, duplicate_window_s: 60s}")
    assert set(ensure(after)) == {SIDE_NAME, TRADE, BOOK}
    assert config_of(after, TRADE)["max_bytes"] == 64 * 1024 * 1024
    info = on_server(after, lambda bus: ask(bus, f"STREAM.INFO.{TRADE}"))
    assert info["state"]["messages"] == 1


def test_a_shared_subject_is_stored_apart_and_republished(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server, "subject: binance.websocket.data")
    ensure(config)
    found = config_of(config, TRADE)
    assert found["subjects"][0] == "sluice.stored.usdm.btcusdt.trade"
    assert found["republish"]["src"] == "sluice.stored.usdm.btcusdt.trade"
    assert found["republish"]["dest"] == "binance.websocket.data"
    assert ensure(config) == ()


def test_another_subject_template_moves_existing_streams(nats_server: EmbeddedNats) -> None:
    ensure(a_config(nats_server, "subject: binance.websocket.data"))
    config = a_config(nats_server, "subject: 'md.{symbol}.{channel}'")
    assert set(ensure(config)) == {TRADE, BOOK, SIDE_NAME}
    found = config_of(config, TRADE)
    assert found["subjects"][0] == "md.btcusdt.trade"
    assert "republish" not in found


def test_core_delivery_needs_no_streams(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server, "delivery: core")
    assert ensure(config) == ()
    with pytest.raises(RefusedError, match="10059"):
        config_of(config, TRADE)


def test_a_foreign_stream_on_our_subject_is_named(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server)
    create(config, name="ARCHIVE", subjects=["binance.>"], storage="file")
    with pytest.raises(BusError, match=r"ARCHIVE stores binance\.usdm\.btcusdt\.trade .*nats\.subject"):
        ensure(config)


def test_what_the_server_will_not_change_is_said_with_a_remedy(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server)
    subjects = ["binance.usdm.btcusdt.trade", "sluice.fence.usdm.btcusdt.trade"]
    create(config, name=TRADE, subjects=subjects, storage="memory")
    with pytest.raises(BusError, match=f"refuses to change its stream {TRADE}.*nats stream rm {TRADE}"):
        ensure(config)


def test_settings_that_would_lose_events_or_answers_are_taken_back(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server)
    subjects = ["binance.usdm.btcusdt.trade", "sluice.fence.usdm.btcusdt.trade"]
    wrong = {"max_msgs": 5, "max_msgs_per_subject": 3, "max_msg_size": 100, "no_ack": True, "discard": "new"}
    create(config, name=TRADE, subjects=subjects, **wrong)
    assert TRADE in ensure(config)
    found = config_of(config, TRADE)
    assert (found["max_msgs"], found["max_msgs_per_subject"], found["max_msg_size"]) == (-1, -1, -1)
    assert not found.get("no_ack") and found["discard"] == "old"
    assert ensure(config) == ()


def test_too_little_room_is_said_with_a_remedy(nats_server: EmbeddedNats) -> None:
    with pytest.raises(BusError, match=r"no room for SLUICE_\w+ of \d+ bytes.*nats\.stream\.max_bytes"):
        ensure(a_config(nats_server, "stream: {max_bytes: 100GiB}"))


def test_copies_without_a_cluster_are_said_with_a_remedy(nats_server: EmbeddedNats) -> None:
    with pytest.raises(BusError, match=r"3 copies.*nats\.stream\.replicas"):
        ensure(a_config(nats_server, "stream: {replicas: 3}"))


def test_no_server_is_one_sentence(nats_server: EmbeddedNats) -> None:
    config = a_config(nats_server)
    nats_server.stop()
    with pytest.raises(BusError, match=rf"cannot connect to NATS at 127\.0\.0\.1:{nats_server.port}: "):
        ensure(config)


def test_an_account_without_jetstream_is_one_sentence(tmp_path: Path) -> None:
    account = "accounts { A { users: [{user: a, password: a}] } }\nno_auth_user: a"
    with EmbeddedNats(tmp_path / "plain", extra_config=account) as server:
        config = a_config(server)
        with pytest.raises(BusError, match="JetStream"):
            ensure(config)


def test_a_server_that_may_lose_streams_is_refused() -> None:
    info = orjson.dumps(INFO | {"version": "2.9.10", "auth_required": False})
    with scripted_server(b"INFO " + info + b"\r\nPONG\r\n") as (url, _):
        nats = NatsConfig(servers=(url,))
        with pytest.raises(BusError, match=r"is 2\.9\.10; use 2\.10\.23 or later"):
            asyncio.run(ensure_streams(nats, ()))
