"""Credentials files (JWT) on a real server in operator mode: the right one, a wrong one, and none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.nats.connection import connect
from relay.adapters.nats.nkey import new_user_seed
from relay.adapters.nats.provisioning import ensure_streams
from relay.config import NatsConfig
from relay.errors import BusError
from tests.support.nats_operator import Operator

MAKES_STREAMS = ["$JS.API.STREAM.INFO.*", "$JS.API.STREAM.CREATE.*"]
OURS = Operator()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    with EmbeddedNats(tmp_path_factory.mktemp("nats"), extra_config=OURS.settings) as one:
        yield one


def to(server: EmbeddedNats, tmp_path: Path, creds: str | None) -> NatsConfig:
    path = tmp_path / "user.creds"
    if creds is None:
        return NatsConfig(servers=(server.url,))
    path.write_text(creds)
    return NatsConfig(servers=(server.url,), creds_file=path)


def ensure(nats: NatsConfig) -> tuple[str, ...]:
    return asyncio.run(ensure_streams(nats, ()))


def test_a_user_of_the_account_makes_the_streams(server: EmbeddedNats, tmp_path: Path) -> None:
    assert ensure(to(server, tmp_path, OURS.creds(MAKES_STREAMS))) == ("SLUICE_SIDE",)


WRONG = {
    "another operator's": lambda: Operator().creds(MAKES_STREAMS),
    "a key that does not fit": lambda: OURS.creds(MAKES_STREAMS, seed=new_user_seed()),
    "none": lambda: None,
}


@pytest.mark.parametrize("creds", WRONG.values(), ids=WRONG)
def test_others_are_kept_out_in_one_sentence(server: EmbeddedNats, tmp_path: Path, creds) -> None:
    with pytest.raises(BusError, match=r"(?i)^cannot connect to NATS at \S+: .*authorization") as refused:
        ensure(to(server, tmp_path, creds()))
    assert "SU" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_file_names_the_setting(server: EmbeddedNats, tmp_path: Path) -> None:
    nats = NatsConfig(servers=(server.url,), creds_file=tmp_path / "none.creds")
    with pytest.raises(BusError, match=r"nats\.creds_file: .*none\.creds cannot be read"):
        ensure(nats)


def test_a_user_without_the_permission_makes_none(server: EmbeddedNats, tmp_path: Path) -> None:
    heard: list[str] = []
    nats = to(server, tmp_path, OURS.creds(["binance.>"]))

    async def ask() -> None:
        connection = await connect(nats, server.url, "test", heard.append)
        try:
            with pytest.raises(BusError, match="no answer"):
                await connection.request("$JS.API.STREAM.DELETE.SLUICE_SIDE", timeout_s=0.3)
        finally:
            await connection.close()

    asyncio.run(ask())
    assert "permissions violation" in heard[0].lower()
