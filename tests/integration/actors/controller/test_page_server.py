"""The status page's server for browsers, probes and unauthenticated clients: real requests to a controller
whose cluster is a fake."""

from __future__ import annotations

import gc
import http.client
import json
import socket
from contextlib import suppress
from dataclasses import replace

import pytest

from relay.observability.page_requests import MAX_BODY_BYTES, MAX_CONNECTIONS
from relay.observability.status_json import encoded
from tests.support.page_rig import DEADLINE_S, TOKEN, config
from tests.support.polling import until


def test_the_page_comes_with_a_policy_that_lets_nothing_else_in(serve):
    page = serve().ask("GET", "/")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert b"<!doctype html>" in page.body[:40].lower()
    assert b"http://" not in page.body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"https://" not in page.body


def test_the_figures_are_those_of_status_json(serve):
    served = serve()
    shown = served.ask("GET", "/status.json")
    now = served.controller.status()
    later = {"uptime_s", "health"}
    mine = json.loads(encoded(now))
    assert {k: v for k, v in shown.json.items() if k not in later} == {
        k: v for k, v in mine.items() if k not in later
    }


def test_the_history_goes_on_where_the_last_answer_ended(serve):
    served = serve()
    first = served.history_until(0, lambda found: found["samples"] and found["samples"][-1]["streams"])
    assert set(first["samples"][-1]["streams"]) == {"usdm:btcusdt@trade", "usdm:ethusdt@trade"}
    served.cluster.change("usdm:btcusdt@trade", lost=7)
    again = served.history_until(
        first["last"], lambda found: any(one["kind"] == "lost" for one in found["happenings"])
    )
    assert again["run"] == first["run"]
    assert all(sample["number"] > first["last"] for sample in again["samples"])
    (lost,) = [one for one in again["happenings"] if one["kind"] == "lost"]
    assert (lost["about"], lost["weight"]) == ("usdm:btcusdt@trade", "bad")
    assert lost["text"].startswith("lost 7")


def test_scaling_and_draining_over_the_page(serve):
    served = serve()
    assert served.order("/scale", {"publishers": 2, "who": "Ann"}).status == 200
    served.until(lambda status: status.scale.actual == 2, "two publishers")
    assert served.order("/drain", {"publisher": "p0"}).status == 200
    served.until(lambda status: {one.publisher for one in status.publishers} == {"p1", "p2"}, "p0 replaced")
    assert served.order("/drain", {"stream": "btcusdt@trade"}).status == 200
    served.until(lambda status: len(status.streams) == 1, "the stream's end")
    assert served.order("/resume", {"stream": "usdm:btcusdt@trade"}).status == 200
    served.until(lambda status: len(status.streams) == 2, "the stream's return")
    assert served.order("/scale", {"publishers": "auto"}).status == 200
    changes = served.until(lambda status: len(status.changes) == 6, "the record of it all").changes
    assert [one.what for one in changes] == [
        "relay started with 2 streams",
        "publishers set to 2",
        "publisher p0 drained",
        "usdm:btcusdt@trade stopped",
        "usdm:btcusdt@trade resumed",
        "publishers left to the load",
    ]
    assert [one.who for one in changes[:3]] == [
        "the test",
        "Ann on the page, from 127.0.0.1",
        "the page, from 127.0.0.1",
    ]


def test_what_cannot_be_is_refused_in_one_sentence(serve):
    served = serve()
    for path, body in (
        ("/scale", {"publishers": 3}),
        ("/drain", {"publisher": "p7"}),
        ("/drain", {"stream": "dogeusdt@trade"}),
    ):
        refused = served.order(path, body)
        assert refused.status == 409
        assert refused.json["error"]
    assert len(served.controller.status().changes) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer a-token-of-nobody-here"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Content_Type": "text/plain"}, 415),
        ({"Origin": "http://evil.example"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_nobody_else_changes_anything(serve, headers, status):
    served = serve()
    assert served.order("/scale", {"publishers": 2}, **headers).status == status
    assert served.controller.status().scale.mode == "auto"


def test_without_a_token_file_the_page_only_shows(serve):
    served = serve("{{listen: '127.0.0.1:0'}}")
    refused = served.order("/scale", {"publishers": 2})
    assert (refused.status, "only shows" in refused.json["error"]) == (403, True)
    assert served.ask("GET", "/status.json").json["page"]["token_file"] is None


def test_a_token_that_could_be_guessed_is_none(serve):
    served = serve()
    served.token_file.write_text("short")
    assert served.order("/unlock", {}, Authorization="Bearer short").status == 403
    served.token_file.unlink()
    assert served.order("/unlock", {}).status == 403


def test_a_changed_token_counts_at_once(serve):
    served = serve()
    assert served.order("/unlock", {}).status == 200
    served.token_file.write_text("another-token-of-the-tests")
    assert served.order("/unlock", {}).status == 401


@pytest.mark.parametrize("path", ["/", "/status.json", "/history.json", "/healthz"])
def test_reading_too_is_for_those_who_name_us_rightly(serve, path):
    assert serve().ask("GET", path, Host="rebound.evil.example").status == 421


def test_unknown_paths_and_methods(serve):
    served = serve()
    assert served.ask("GET", "/etc/passwd").status == 404
    assert served.ask("GET", "/../relay/page.html").status == 404
    assert served.ask("DELETE", "/status.json").status == 405
    assert served.ask("GET", "/scale").status == 405
    assert served.ask("OPTIONS", "/scale").status == 405
    assert served.ask("GET", "/history.json?after=x").status == 400
    assert served.ask("HEAD", "/").body == b""


def test_sizes_are_capped(serve):
    served = serve()
    assert served.ask("POST", "/scale", b"x" * (MAX_BODY_BYTES + 1)).status == 413
    assert served.ask("GET", "/" + "x" * 5000).status in (400, 414)
    assert served.ask("GET", "/", X_Long="x" * 5000).status in (400, 431)
    assert served.order("/scale", {"publishers": 2, "who": "x" * 3000}).status == 200
    changes = served.until(lambda status: len(status.changes) == 2, "the record of it").changes
    assert len(changes[-1].who) < 100


def test_a_chunked_body_is_capped_too(serve):
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), DEADLINE_S) as peer:
        peer.sendall(b"POST /scale HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            peer.sendall(b"400\r\n" + b"x" * 0x400 + b"\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 413")


def test_too_many_connections_are_closed_and_then_it_goes_on(serve):
    served = serve()
    peers = [socket.create_connection(("127.0.0.1", served.port), DEADLINE_S) for _ in range(MAX_CONNECTIONS)]
    for peer in peers:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.recv(15)
    with socket.create_connection(("127.0.0.1", served.port), DEADLINE_S) as one_more:
        assert one_more.recv(1) == b""
    for peer in peers:
        peer.close()

    def serves() -> bool:
        with suppress(ConnectionError, http.client.HTTPException):
            return served.ask("GET", "/healthz").status == 200
        return False

    until(serves, "it serves again", DEADLINE_S)


def test_ready_once_every_stream_has_delivered_and_nats_acknowledges(serve):
    served = serve()
    waiting = served.ask("GET", "/readyz")
    assert waiting.status == 503
    assert any("usdm:btcusdt@trade" in reason for reason in waiting.json["reasons"])
    for key in served.cluster.streams:
        served.cluster.change(key, subscribed_at_ns=1, first_data_at_ns=2)
    served.until(lambda status: not status.health.not_ready, "ready")
    assert served.ask("GET", "/readyz").json == {"ready": True, "reasons": []}
    for name, stats in served.cluster.publishers.items():
        served.cluster.publishers[name] = replace(stats, connected=False)
    served.until(lambda status: status.health.not_ready, "not ready")
    assert served.ask("GET", "/readyz").status == 503
    assert served.ask("GET", "/healthz").json == {"healthy": True, "reasons": []}


def test_a_page_follows_the_configuration(serve):
    served = serve()
    first = served.port
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served.controller.apply(config(f"{{listen: '127.0.0.1:{port}'}}"))
        refused = f"cannot listen on 127.0.0.1:{port}"
        served.until(
            lambda status: status.page is None and any(refused in problem for problem in status.problems),
            "no page, and a problem that says why",
        )
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", first), DEADLINE_S)
    served.controller.apply(config("off"))
    served.until(lambda status: not status.problems and status.page is None, "the page is off")


def test_nothing_of_a_connection_outlives_the_page(serve):
    """An unclosed transport is an error of this run as soon as it is collected."""
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), DEADLINE_S) as mute:
        kept = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE_S)
        kept.request("GET", "/status.json")
        kept.getresponse().read()
        served.controller.stop()
        assert mute.recv(1) == b""
        kept.close()
    gc.collect()


def test_the_usual_port_gives_way_to_another_one(serve):
    one, other = serve("on"), serve("on")
    assert one.port != other.port
    assert one.ask("GET", "/status.json").status == other.ask("GET", "/status.json").status == 200
