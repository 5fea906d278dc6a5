"""Rows of the fault table in which the exchange cannot be found, or is not who it says it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.chaos.certificates import Authority, Impostor
from tests.chaos.frame_proxy import FrameProxy
from tests.chaos.name_server import NameServer
from tests.chaos.processes import Seams
from tests.chaos.rig import FLOOD, STREAMS, Rig, free_port, stream
from tests.chaos.rows import Row
from tests.chaos.test_socket_rows import assert_others_untouched
from tests.support.polling import until

KEY = f"usdm:{FLOOD}"
HOST = "exchange.sluice.test"


@pytest.mark.chaos(
    row=31,
    fault="the name server fails, lies, then says nothing",
    figure="back at the last good address, the others untouched",
)
def test_row_31_names(rig: Rig, row: Row) -> None:
    """The resolver is the real one; the processes of the streams see another /etc/resolv.conf, which leads to
    a name server of ours."""
    port = free_port()
    with NameServer("127.0.0.1") as names:
        seams = Seams(resolv_conf=names.resolv_conf(rig.directory))
        rig.cluster.seams.update((stream(name), seams) for name in STREAMS)
        rig.start(exchange={"port": port}, config={"exchange": {"url": f"ws://{HOST}:{port}"}})
        rig.flows(100)
        row.injected("the streams ask our name server", names.asked >= len(STREAMS))
        for what, address, mute in (
            ("fails", None, False),
            ("lies", "127.0.0.2", False),
            ("says nothing", None, True),
        ):
            names.address, names.mute = address, mute
            asked, ended = names.asked, rig.stats()[KEY].reconnects
            began = time.monotonic()
            assert rig.exchange.act("close", stream=FLOOD, code=1006)["sockets"]
            until(lambda ended=ended: rig.stats()[KEY].reconnects > ended, "the socket ended", 10.0)
            until(lambda: rig.stats()[KEY].state == "live", "the stream is back", 60.0)
            row.measured(f"back while it {what} within", time.monotonic() - began, "s", 6.0)
            row.injected(f"the name server {what}", names.asked > asked)
            rig.flows(50)
        names.mute, before = False, rig.exchange.report()["connects"]
        rig.exchange.act("refuse", how="reset")
        assert rig.exchange.act("close", stream=FLOOD, code=1006)["sockets"]
        time.sleep(4.0)
        attempts = rig.exchange.report()["connects"] - before
        row.injected("neither the name nor the address leads anywhere", attempts)
        row.measured("attempts at the address in 4 s", attempts, "", 8)
        rig.exchange.act("accept")
        rig.flows(100)
        assert "trying 127.0.0.1, where the exchange was before" in rig.log(stream(FLOOD))
        assert_others_untouched(rig, {KEY})
        rig.judge()


@pytest.mark.chaos(
    row=32,
    ci=True,
    fault="certificates: expired, of another host, signed by nobody",
    figure="not a byte sent to it, the cause reported",
)
def test_row_32_certificates(rig: Rig, row: Row, tmp_path: Path) -> None:
    authority, yesterday = Authority(), datetime.now(UTC) - timedelta(days=1)
    impostor = Impostor(authority.context("127.0.0.1", tmp_path))
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.certificate_pem)
    rig.cluster.seams[stream(FLOOD)] = Seams(environment={"SSL_CERT_FILE": str(trusted)})
    rig.start(between={FLOOD: lambda port: FrameProxy(port, impostor.context)})
    proxy = rig.between[FLOOD]
    rig.flows(100)
    good = impostor.shown
    for shown, why in (
        (authority.context("127.0.0.1", tmp_path, until=yesterday), "certificate has expired"),
        (authority.context("exchange.example", tmp_path), "not valid for '127.0.0.1'"),
        (Authority().context("127.0.0.1", tmp_path, self_signed=True), "self-signed certificate"),
    ):
        impostor.shown, before = shown, impostor.hellos
        assert proxy.cut()
        accepted = proxy.accepted
        until(lambda before=before: impostor.hellos > before + 1, "it is asked twice", 30.0)
        row.injected(f"another certificate was shown: {why}", why in rig.stats()[KEY].last_error)
        assert proxy.accepted == accepted, "something was sent to an impostor"
        impostor.shown = good
        began = time.monotonic()
        rig.flows(50)
        row.measured("back after", time.monotonic() - began, "s")
    row.measured("reported", 3, "causes")
    assert_others_untouched(rig, {KEY})
    rig.judge()
