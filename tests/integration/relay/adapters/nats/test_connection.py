"""Connections to a real nats-server, and the places of nats-py that they are built on."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import nats
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.nats.connection import ConnectionKeeper, NatsConnection, connect
from relay.adapters.nats.nkey import new_user_seed, user_key
from relay.config.models import NatsConfig
from relay.errors import BusError
from tests.support.freezing import frozen
from tests.support.scripted_nats import INFO, scripted_server


def run(test: Coroutine[Any, Any, object]) -> None:
    asyncio.run(test)


def to(*servers: str, **login: Any) -> NatsConfig:
    return NatsConfig(servers=servers, **login)


async def a_connection(
    config: NatsConfig, on_error: Callable[[str], None] = lambda _: None
) -> NatsConnection:
    return await connect(config, config.servers[0], "test", on_error)


async def ponged(connection: NatsConnection) -> None:
    """Until the server has read all that was written."""
    heard = asyncio.Event()
    connection.ping(heard.set)
    async with asyncio.timeout(5):
        await heard.wait()


def test_the_adapter_is_written_for_the_installed_nats_py() -> None:
    assert version("nats-py").startswith("2.16."), (
        "read relay/adapters/nats/client.py against the new version first"
    )


def test_written_bytes_arrive_in_order_and_a_ping_follows_them(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        reader = await nats.connect(nats_server.url)
        seen = await reader.subscribe("a.b")
        await reader.flush()
        connection = await a_connection(to(nats_server.url))
        for n in range(1000):
            connection.write(b"PUB a.b %d\r\n%d\r\n" % (len(str(n)), n))
        async with asyncio.timeout(5):
            await ponged(connection)
        assert [int((await seen.next_msg(5)).data) for _ in range(1000)] == list(range(1000))
        await connection.close()
        await reader.close()

    run(test())


def test_a_ping_is_answered_after_everything_before_it(tmp_path: Path) -> None:
    """A server that records what it reads sees the PING last, which nats-py's own flush does not give."""
    info = b"INFO " + json.dumps(INFO | {"auth_required": False}).encode() + b"\r\n"

    async def test(url: str) -> None:
        connection = await a_connection(to(url))
        connection.write(b"PUB a 1\r\nx\r\n")
        connection.write(b"PUB a 1\r\ny\r\n")
        connection.ping()
        await asyncio.sleep(0)
        connection.abort("enough")

    with scripted_server(info, b"PONG\r\n") as (url, heard):
        run(test(url))
    assert b"".join(heard).endswith(b"PUB a 1\r\nx\r\nPUB a 1\r\ny\r\nPING\r\n")


def test_replies_come_synchronously_with_subject_and_status(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        got: list[tuple[bytes, bytes, bytes | None]] = []
        connection = await a_connection(to(nats_server.url))
        await connection.take_replies(lambda *reply: got.append(reply))
        connection.write(f"PUB nobody.there {connection.inbox}.3.14 0\r\n\r\n".encode())
        connection.write(f"PUB {connection.inbox}.3.15 2\r\nhi\r\n".encode())
        await ponged(connection)
        assert [subject.rsplit(b".", 2)[1:] for subject, _, _ in got] == [[b"3", b"14"], [b"3", b"15"]]
        assert got[0][2] is not None
        assert got[0][2].startswith(b"NATS/1.0 503")
        assert got[1][1] == b"hi"
        await connection.close()

    run(test())


def test_a_request_without_anybody_there_is_one_sentence(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        connection = await a_connection(to(nats_server.url))
        with pytest.raises(BusError, match=r"nobody answers no\.such\.thing"):
            await connection.request("no.such.thing")
        await connection.close()

    run(test())


def test_the_end_of_the_server_is_noticed_and_later_writes_are_harmless(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        connection = await a_connection(to(nats_server.url))
        nats_server.kill()
        async with asyncio.timeout(5):
            assert await connection.closed
        connection.write(b"PUB a 1\r\nx\r\n")
        connection.ping()
        assert connection.unsent_bytes == 0
        with pytest.raises(BusError):
            await connection.request("$JS.API.INFO")
        await connection.close()

    run(test())


def test_a_write_between_the_end_of_a_socket_and_its_notice_is_harmless(nats_server: EmbeddedNats) -> None:
    """uvloop raises for it, and an exception in a turn would end the publisher's process."""

    async def test() -> None:
        connection = await a_connection(to(nats_server.url))
        connection._client._raw.abort()
        await asyncio.sleep(0)
        connection.write(b"PUB a 1\r\nx\r\n")
        connection.ping()
        assert connection.unsent_bytes == 0
        connection.abort("done")

    uvloop.run(test())


def test_a_frozen_server_is_left_although_bytes_are_unsent(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        connection = await a_connection(to(nats_server.url))
        with frozen(nats_server.pid):
            payload = b"PUB a 1000000\r\n" + b"x" * 1_000_000 + b"\r\n"
            while connection.unsent_bytes < 10_000_000:
                connection.write(payload)
            connection.ping()
            now = asyncio.get_running_loop().time()
            connection.watch(now + 1, 2.0)
            assert not connection.closed.done()
            connection.watch(now + 3, 2.0)
            assert connection.closed.result() == "no answer for 2 s"
            async with asyncio.timeout(5):
                await connection.close()

    run(test())


def test_watching_a_quiet_server_pings_it(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        connection = await a_connection(to(nats_server.url))
        start = asyncio.get_running_loop().time()
        for second in range(1, 30):
            connection.watch(start + second, 2.0)
            await ponged(connection)
            start -= 0.001
        assert not connection.closed.done()
        await connection.close()

    run(test())


def test_no_server_is_one_sentence_with_the_cause() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(
        BusError, match=rf"^cannot connect to NATS at 127\.0\.0\.1:{port}: Connection refused$"
    ):
        run(a_connection(to(f"nats://127.0.0.1:{port}")))


def test_a_server_that_says_nothing_is_given_up() -> None:
    with scripted_server() as (url, _), pytest.raises(BusError, match="cannot connect"):
        run(connect(to(url), url, "test", lambda _: None, deadline_s=0.2))


@contextmanager
def a_locked_server(directory: Path, users: str) -> Iterator[EmbeddedNats]:
    with EmbeddedNats(directory / "locked", extra_config=f"authorization {{ {users} }}") as server:
        yield server


def a_file(directory: Path, text: str) -> Path:
    path = directory / "secret"
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_user_and_password_are_read_from_a_file(tmp_path: Path) -> None:
    async def test(config: NatsConfig) -> None:
        connection = await a_connection(config)
        await ponged(connection)
        await connection.close()

    with a_locked_server(tmp_path, "user: u, password: secret") as server:
        run(test(to(server.url, user="u", password_file=a_file(tmp_path, "secret"))))


def test_a_wrong_password_is_said_without_the_password(tmp_path: Path) -> None:
    with a_locked_server(tmp_path, "user: u, password: secret") as server:
        config = to(server.url, user="u", password_file=a_file(tmp_path, "canary"))
        with pytest.raises(BusError, match=r"(?i)authorization violation") as caught:
            run(a_connection(config))
        assert "canary" not in str(caught.value)


def test_a_missing_secret_names_the_setting(tmp_path: Path) -> None:
    config = to("nats://127.0.0.1:1", user="u", password_file=tmp_path / "none")
    with pytest.raises(BusError, match=r"nats\.password_file: .*none cannot be read"):
        run(a_connection(config))


def test_an_nkey_signs_in(tmp_path: Path) -> None:
    seed = new_user_seed()

    async def test(config: NatsConfig) -> None:
        connection = await a_connection(config)
        await ponged(connection)
        await connection.close()

    with a_locked_server(tmp_path, f"users: [{{nkey: {user_key(seed).public}}}]") as server:
        run(test(to(server.url, nkey_file=a_file(tmp_path, seed))))


def test_a_password_is_never_sent_where_tls_is_demanded_and_not_offered(tmp_path: Path) -> None:
    info = b"INFO " + json.dumps(INFO).encode() + b"\r\n"
    with scripted_server(info) as (url, heard):
        config = to(url.replace("nats://", "tls://"), user="u", password_file=a_file(tmp_path, "canary"))
        with pytest.raises(BusError, match="TLS"):
            run(a_connection(config))
    assert heard == []


def a_certificate(directory: Path) -> tuple[Path, Path]:
    """Certificate and key of an authority that vouches for itself at 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    born = datetime.now(UTC) - timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(born)
        .not_valid_after(born + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    directory.mkdir()
    (directory / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "key.pem").write_bytes(private)
    return directory / "cert.pem", directory / "key.pem"


@pytest.mark.parametrize("first", [False, True])
def test_tls_is_spoken_with_whom_the_authority_vouches_for(tmp_path: Path, first: bool) -> None:
    async def test(config: NatsConfig) -> None:
        connection = await a_connection(config)
        connection.write(b"PUB a 1\r\nx\r\n")
        await ponged(connection)
        await connection.close()

    cert, key = a_certificate(tmp_path / "ours")
    foreign_ca, _ = a_certificate(tmp_path / "other")
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}", handshake_first: {str(first).lower()} }}'
    with EmbeddedNats(tmp_path / "tls", extra_config=tls) as server:
        run(test(to(server.url, tls_ca_file=cert, tls_handshake_first=first)))
        with pytest.raises(BusError, match=r"(?i)certificate verify failed"):
            run(a_connection(to(server.url, tls_ca_file=foreign_ca, tls_handshake_first=first)))


def test_what_the_server_forbids_is_heard_and_the_connection_stays(tmp_path: Path) -> None:
    async def test(config: NatsConfig) -> None:
        complaints: list[str] = []
        connection = await a_connection(config, complaints.append)
        connection.write(b"PUB secret.thing 1\r\nx\r\n")
        await ponged(connection)
        assert len(complaints) == 1
        assert "permissions violation" in complaints[0]
        assert not connection.closed.done()
        await connection.close()

    users = 'users: [{user: u, password: p, permissions: {publish: {allow: ["a.>"]}}}]'
    with a_locked_server(tmp_path, users) as server:
        run(test(to(server.url, user="u", password_file=a_file(tmp_path, "p"))))


class Log:
    """What a bus reports to its owner."""

    def __init__(self) -> None:
        self.connections: list[NatsConnection] = []
        self.lost: list[str] = []
        self.errors: list[str] = []
        self._changed = asyncio.Event()

    def bus(self, config: NatsConfig) -> ConnectionKeeper:
        return ConnectionKeeper(
            config,
            "test",
            on_open=self._note(self.connections),
            on_lost=self._note(self.lost),
            on_reply=lambda *_: None,
            on_error=self._note(self.errors),
        )

    def _note(self, where: list[Any]) -> Callable[[Any], None]:
        def note(item: Any) -> None:
            where.append(item)
            self._changed.set()

        return note

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def test_a_bus_comes_back_after_each_death_of_the_server(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        log = Log()
        bus = log.bus(to(nats_server.url))
        running = asyncio.create_task(bus.run())
        for round_ in (1, 2, 3):
            await log.until(lambda round_=round_: len(log.connections) == round_)
            assert bus.connection is log.connections[-1]
            await asyncio.to_thread(nats_server.kill)
            await log.until(lambda round_=round_: len(log.lost) == round_)
            assert bus.connection is None
            await asyncio.to_thread(nats_server.start)
        await log.until(lambda: len(log.connections) == 4)
        running.cancel()
        await asyncio.wait([running])
        assert len(log.lost) == 4
        assert bus.opened == 4

    run(test())


def test_a_bus_finds_the_server_that_runs(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            gone = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        log = Log()
        running = asyncio.create_task(log.bus(to(gone, gone, nats_server.url)).run())
        await log.until(lambda: bool(log.connections))
        assert len(log.errors) == 2
        running.cancel()
        await asyncio.wait([running])

    run(test())


def test_nats_py_prints_nothing_of_its_own(
    nats_server: EmbeddedNats, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        log = Log()
        running = asyncio.create_task(log.bus(to(nats_server.url)).run())
        await log.until(lambda: bool(log.connections))
        await asyncio.to_thread(nats_server.kill)
        await log.until(lambda: bool(log.errors))
        running.cancel()
        await asyncio.wait([running])

    with caplog.at_level(logging.DEBUG):
        run(test())
    assert [record for record in caplog.records if record.name.startswith("nats")] == []
