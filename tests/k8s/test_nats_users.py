"""What users.conf lets each role do, and refuses it, on a real server set up as k8s/nats.conf says."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.publisher.actor import PublisherActor, PublisherSettings
from cli.background_audit import sources
from k8s.make_secrets import ROLES, as_manifest, make_certificates, make_secrets
from relay.adapters.local.nats_server import EmbeddedNats, find_binary
from relay.adapters.nats import heartbeat
from relay.adapters.nats.connection import NatsConnection, connect
from relay.adapters.nats.consumer import AuditConsumer, connector
from relay.adapters.nats.jetstream_api import ask
from relay.adapters.nats.nkey import new_user_seed
from relay.adapters.nats.provisioning import SIDE_NAME
from relay.audit.audit import Audit
from relay.binance.id_gaps import gap_rule
from relay.config import Config, NatsConfig, parse_config
from relay.delivery import link_codec
from relay.errors import BusError
from relay.model.record_batch import RecordKind
from tests.k8s.manifests import K8S, config, container
from tests.support.hosts import SECRET, PlainHost
from tests.support.jetstream import streams_ensured
from tests.support.link_client import LinkClient, Sender, events

TRADE = "SLUICE_usdm_btcusdt_trade"
SHARED = "binance.usdm.all.events"


@dataclass(frozen=True)
class Site:
    """A server with the users of users.conf, and what each pod finds in /etc/sluice/nats."""

    server: EmbeddedNats
    directory: Path

    def nats(self, role: str, subject: str = "") -> NatsConfig:
        return self.config(role, subject).nats

    def config(self, role: str, subject: str = "") -> Config:
        """The shipped one, pointed at this server."""
        text = (K8S / "shards.yaml").read_text("utf-8")
        text = text.replace("tls://nats.sluice.svc:4222", f"tls://localhost:{self.server.port}")
        text = text.replace("/etc/sluice/nats", str(self.directory / f"nats-{role}"))
        if subject:
            text = text.replace("nats:\n", f"nats:\n  subject: {subject}\n")
        return parse_config(text, {})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    public = lay_out(directory, ("localhost",))
    with pytest.MonkeyPatch.context() as environment:
        for role, key in public.items():
            environment.setenv(f"{role.upper()}_NKEY", key)
        settings = tls_of(directory) + (K8S / "users.conf").read_text("utf-8")
        with EmbeddedNats(directory / "server", extra_config=settings) as server:
            yield Site(server, directory)


def lay_out(directory: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Every secret as a folder of files, as a pod would see it; returns the public keys by role."""
    public = {}
    for secret in as_manifest(make_secrets(names))["items"]:
        values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        folder = directory / secret["metadata"]["name"]
        folder.mkdir()
        for key, value in values.items():
            (folder / key).write_text(value, "utf-8")
        if folder.name == "nats-users":
            public = values
    return public


def tls_of(directory: Path) -> str:
    found = re.search(r"^tls \{.*?^\}\n", (K8S / "nats.conf").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    return found[0].replace("/etc/nats-tls", str(directory / "nats-tls"))


def run(test: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(test)


@asynccontextmanager
async def connected(nats: NatsConfig) -> AsyncIterator[tuple[NatsConnection, list[str]]]:
    """A connection and what the server complained about on it."""
    complaints: list[str] = []
    connection = await connect(nats, nats.servers[0], "test", complaints.append)
    try:
        yield connection, complaints
    finally:
        await connection.close()


@asynccontextmanager
async def consuming(site: Site) -> AsyncIterator[Client]:
    """As a strategy would connect: with inboxes of its own."""
    client = await connector(site.nats("consumer"))()
    try:
        yield client
    finally:
        await client.close()


def test_the_settings_are_whole(tmp_path: Path, site: Site) -> None:
    for name in ("nats.conf", "users.conf"):
        text = (K8S / name).read_text("utf-8").replace("/etc/nats-tls", str(site.directory / "nats-tls"))
        (tmp_path / name).write_text(text.replace('"/data"', f'"{tmp_path}"'), "utf-8")
    command = [find_binary({}), "-t", "-c", str(tmp_path / "nats.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    variables = {variable["name"] for variable in container("nats")["env"]}
    assert variables == {f"{role.upper()}_NKEY" for role in ROLES}


def test_the_relay_can_do_its_work_and_a_consumer_reads_it(site: Site) -> None:
    async def relay(subject: str, epoch: int) -> None:
        assert TRADE in await streams_ensured(site.config("controller", subject))
        client, publisher, host = await linked(site.nats("publisher", subject), epoch)
        try:
            records = events(epoch, 300, first=epoch * 1000 + 1)
            numbered = [replace(one, seq=n) for n, one in enumerate(records, start=1)]
            side = [
                replace(numbered[-1], kind=kind, offset=numbered[-1].offset + n, payload=b"{}", event_id=-1)
                for n, kind in enumerate((RecordKind.LOSS, RecordKind.REJECTED), start=1)
            ]
            await Sender(client, [*numbered, *side]).run()
        finally:
            client.close()
            await asyncio.to_thread(publisher.stop)
            host.close()

    async def read(subject: str) -> list[Any]:
        whole = site.config("consumer", subject)
        audit = Audit(gap_rule, [])
        source = [one for one in sources(whole) if one.jetstream == TRADE]
        async with AuditConsumer(connector(whole.nats), source, audit, from_start=True) as consumer:
            assert await consumer.caught_up(20)
        assert not audit.malformed, audit.last_problem
        return audit.report()

    async def test() -> None:
        # The second way changes the streams as well: all of them on one subject, stored apart.
        for epoch, subject in enumerate(("", SHARED), start=1):
            await relay(subject, epoch)
            (found,) = await read(subject)
            assert (found.stored, found.duplicated, found.out_of_order) == (300 * epoch, 0, 0)
        async with consuming(site) as client:
            side = await client.jetstream().stream_info(SIDE_NAME)
            assert side.state.messages == 4

    run(test())


async def linked(nats: NatsConfig, epoch: int) -> tuple[LinkClient, PublisherActor, PlainHost]:
    host = PlainHost()
    publisher = PublisherActor("p0", PublisherSettings(nats=nats), host)
    client = LinkClient(link_codec.Hello(stream="usdm:btcusdt@trade", epoch=epoch, tip=""), SECRET)
    path = publisher.stats().unix_path
    await asyncio.get_running_loop().create_unix_connection(lambda: client, path)
    return client, publisher, host


API = "$JS.API"
NOBODY_MAY = (
    *(f"{API}.STREAM.{verb}.{TRADE}" for verb in ("DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE")),
    *(f"{API}.STREAM.{verb}.{TRADE}" for verb in ("LEADER.STEPDOWN", "PEER.REMOVE")),
    *(f"{API}.CONSUMER.{verb}.{TRADE}.x" for verb in ("DELETE", "PAUSE", "LEADER.STEPDOWN")),
    f"{API}.ACCOUNT.PURGE.SLUICE",
    "anything",
    "$SYS.REQ.SERVER.PING",
)
EVENT, FENCE = "binance.usdm.btcusdt.trade", "sluice.fence.usdm.btcusdt.trade"
FORBIDDEN = {
    "controller": (EVENT, FENCE, f"{API}.STREAM.MSG.GET.{TRADE}", f"{API}.CONSUMER.CREATE.{TRADE}"),
    "publisher": (
        *(f"{API}.STREAM.{verb}.{TRADE}" for verb in ("CREATE", "UPDATE")),
        f"{API}.CONSUMER.CREATE.{TRADE}",
        "binance.usdm.btcusdt",
    ),
    "consumer": (
        *(EVENT, FENCE, "sluice.loss.usdm.btcusdt.trade", "sluice.heartbeat", "_INBOX.sluice.x"),
        *(f"{API}.STREAM.{verb}.{TRADE}" for verb in ("CREATE", "UPDATE")),
    ),
}
MUTE = {
    "controller": (">", "binance.>", "_INBOX.>"),
    "publisher": (">", "binance.>", "_INBOX.>", f"{API}.>"),
    "consumer": (">", f"{API}.>", FENCE, "_INBOX.sluice.>"),
}


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_has_no_business_with_is_refused(site: Site, role: str) -> None:
    async def test() -> None:
        async with connected(site.nats(role)) as (connection, complaints):
            subjects = (*NOBODY_MAY, *FORBIDDEN[role])
            for subject in subjects:
                connection.write(f"PUB {subject} 2\r\n{{}}\r\n".encode())
            for number, subject in enumerate(MUTE[role], start=900):
                connection.write(f"SUB {subject} {number}\r\n".encode())
            await connection.flush()
            said = "\n".join(complaints).lower()
            assert [one for one in subjects if f'publish to "{one.lower()}"' not in said] == []
            assert [one for one in MUTE[role] if f'subscription to "{one.lower()}"' not in said] == []

    run(test())


def test_a_consumer_does_not_overhear_the_relays_answers(site: Site) -> None:
    async def test() -> None:
        heard: list[str] = []

        async def note(message: Msg) -> None:
            heard.append(message.subject)

        async with consuming(site) as client:
            await client.subscribe("_INBOX.>", cb=note)
            await client.flush()
            async with connected(site.nats("controller")) as (connection, _):
                await ask(connection, "STREAM.NAMES")
            # Its own answer comes later than the one that is not its own.
            await client.request(f"{API}.STREAM.NAMES", timeout=5)
            await client.flush()
        assert heard
        assert not [subject for subject in heard if subject.startswith("_INBOX.sluice.")]

    run(test())


def test_the_controllers_heartbeat_reaches_a_consumer_and_nobody_elses_does(site: Site) -> None:
    async def test() -> None:
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        async with consuming(site) as client:
            await client.subscribe(heartbeat.SUBJECT, cb=heard.put)
            await client.flush()
            with pytest.raises(BusError, match="does not accept the heartbeat: permissions violation"):
                await heartbeat.publish(site.nats("publisher"), b"false")
            await heartbeat.publish(site.nats("controller"), b"true")
            async with asyncio.timeout(10):
                assert (await heard.get()).data == b"true"

    run(test())


def test_strangers_are_kept_out(site: Site, tmp_path: Path) -> None:
    good = site.nats("publisher")
    (tmp_path / "user.nk").write_text(new_user_seed(), "utf-8")
    (tmp_path / "ca.crt").write_text(make_certificates(("localhost",)).authority, "utf-8")
    for wrong, reason in (
        ({"nkey_file": None}, "authorization"),
        ({"nkey_file": tmp_path / "user.nk"}, "authorization"),
        ({"tls_ca_file": tmp_path / "ca.crt"}, "certificate verify failed"),
        ({"servers": (f"tls://127.0.0.1:{site.server.port}",)}, "certificate"),
    ):
        nats = good.model_copy(update=wrong)
        with pytest.raises(BusError, match=f"(?i){reason}"):
            run(connect(nats, nats.servers[0], "test", lambda _: None))


def test_permissions_name_the_subjects_that_the_code_uses_and_no_others() -> None:
    users = permissions()
    whole = config()
    stars = {re.sub(r"\{\w+\}", "*", whole.nats.subject)}
    stars |= {f"{subject}.repair" for subject in stars}
    for one in whole.streams:
        spec = one.spec
        of_stream = (spec.fence_subject, spec.stored_subject, spec.loss_subject, spec.rejected_subject)
        stars |= {".".join([*subject.split(".")[:2], "*", "*", "*"]) for subject in of_stream}
    asked = {role: api_calls(module) for role, module in MODULES.items()}
    assert users["publisher"] == stars | asked["publisher"]
    assert users["controller"] == asked["controller"] | {heartbeat.SUBJECT}


MODULES = {"publisher": "fencing.py", "controller": "provisioning.py"}


def api_calls(module: str) -> set[str]:
    """The JetStream API's subjects that a module of relay/adapters/nats asks, stars for names."""
    source = (K8S.parent / "relay" / "adapters" / "nats" / module).read_text("utf-8")
    found = set(re.findall(r'"(STREAM\.[A-Z.{}a-z\[\]"_]+?)"', source))
    verbs = set(re.findall(r'_apply\(\w+, "([A-Z]+)"', source))
    calls = {re.sub(r"\{(?!verb)[^}]*\}.*", "*", call) for call in found}
    expanded = {call.replace("{verb}", verb) for call in calls for verb in verbs or {""}}
    return {f"{API}.{call}" for call in expanded}


def permissions() -> dict[str, set[str]]:
    """What each role may publish, out of users.conf."""
    text = re.sub(r"#.*", "", (K8S / "users.conf").read_text("utf-8"))
    found = re.findall(r"nkey: \$(\w+)_NKEY.*?publish: \{ allow: \[(.*?)\]", text, re.DOTALL)
    return {role.lower(): set(re.findall(r'"([^"]+)"', allowed)) for role, allowed in found}
