"""Our nkeys against the real server's, which is the reference for the encoding and the signature."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats.errors
import pytest
from nats.aio.client import Client

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.nats.nkey import UserKey, credentials, new_user_seed, user_key
from relay.errors import ConfigError


async def connect_with(url: str, key: UserKey) -> bool:
    client = Client()
    # nats-py sends the public key only if it read the seed itself with the package that we avoid.
    client._public_nkey = key.public
    try:
        await client.connect(url, signature_cb=key.sign, allow_reconnect=False, connect_timeout=2)
        return client.is_connected
    finally:
        await client.close()


def only_for(key: UserKey) -> str:
    return f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}"


def test_the_server_lets_the_listed_key_in(tmp_path: Path) -> None:
    key = user_key(new_user_seed())
    with EmbeddedNats(tmp_path, extra_config=only_for(key)) as server:
        assert asyncio.run(connect_with(server.url, key))


def test_the_server_keeps_another_key_out(tmp_path: Path) -> None:
    listed, other = user_key(new_user_seed()), user_key(new_user_seed())
    with (
        EmbeddedNats(tmp_path, extra_config=only_for(listed)) as server,
        pytest.raises(nats.errors.Error, match="Authorization"),
    ):
        asyncio.run(connect_with(server.url, other))


def test_a_credentials_file_yields_its_token_and_its_key() -> None:
    seed = new_user_seed()
    text = (
        f"-----BEGIN NATS USER JWT-----\ntoken\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    token, key = credentials(text)
    assert (token, key.public) == ("token", user_key(seed).public)


@pytest.mark.parametrize(
    "damage", [lambda s: s[:-1], lambda s: s.lower(), lambda s: "SA" + s[2:], lambda s: ""]
)
def test_a_damaged_seed_is_refused_without_being_shown(damage) -> None:
    seed = damage(new_user_seed())
    with pytest.raises(ConfigError) as refused:
        user_key(seed)
    assert not seed or seed not in str(refused.value)
