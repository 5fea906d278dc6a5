"""The embedded nats-server: readiness, restarts with the same store, and no process left behind."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from relay.adapters.local.nats_server import BINARY_VARIABLE, EmbeddedNats, find_binary
from relay.errors import BusError, UsageError


async def store_one(url: str, body: bytes) -> None:
    client = await nats.connect(url, allow_reconnect=False)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="S", subjects=["s"])
        await stream.publish("s", body)
    finally:
        await client.close()


async def first_stored(url: str) -> bytes | None:
    client = await nats.connect(url, allow_reconnect=False)
    try:
        return (await client.jetstream().get_msg("S", 1)).data
    finally:
        await client.close()


def test_a_client_connects_as_soon_as_start_returns(nats_server: EmbeddedNats) -> None:
    asyncio.run(store_one(nats_server.url, b"x"))
    assert asyncio.run(first_stored(nats_server.url)) == b"x"


def test_what_was_stored_survives_sigkill_on_the_same_port(nats_server: EmbeddedNats) -> None:
    asyncio.run(store_one(nats_server.url, b"kept"))
    before = nats_server.url
    nats_server.kill()
    assert not nats_server.running
    nats_server.start()
    assert nats_server.url == before
    assert asyncio.run(first_stored(nats_server.url)) == b"kept"


def test_what_was_stored_survives_a_restart(nats_server: EmbeddedNats) -> None:
    asyncio.run(store_one(nats_server.url, b"kept"))
    nats_server.restart()
    assert asyncio.run(first_stored(nats_server.url)) == b"kept"


def test_it_works_in_a_directory_with_a_space_and_a_quote(tmp_path: Path) -> None:
    with EmbeddedNats(tmp_path / 'a "strange" place') as server:
        asyncio.run(store_one(server.url, b"x"))


def test_a_taken_port_is_reported_in_the_servers_own_words(nats_server: EmbeddedNats, tmp_path: Path) -> None:
    with pytest.raises(BusError, match="address already in use"):
        EmbeddedNats(tmp_path / "second", port=nats_server.port).start()


def test_a_store_in_use_is_refused_until_its_server_ends(tmp_path: Path) -> None:
    with EmbeddedNats(tmp_path) as first:
        with pytest.raises(UsageError, match="another nats-server uses"):
            EmbeddedNats(tmp_path).start()
        first.kill()
        with EmbeddedNats(tmp_path) as second:
            assert second.running


def test_a_wrong_binary_is_refused_with_the_name_of_the_variable() -> None:
    with pytest.raises(UsageError, match=BINARY_VARIABLE):
        find_binary({BINARY_VARIABLE: "/nonexistent/nats-server"})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel ends the child on Linux alone")
def test_the_server_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from relay.adapters.local.nats_server import EmbeddedNats\n"
        "server = EmbeddedNats(Path(sys.argv[1])); server.start()\n"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "nats")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None and owner.stdin is not None
    with owner.stdout, owner.stdin:
        server = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()
        owner.wait()
    ended, _, _ = select.select([server], [], [], 10.0)
    os.close(server)
    assert ended
