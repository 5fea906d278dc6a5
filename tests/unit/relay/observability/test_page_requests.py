"""Who may ask the status page for what."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.observability.page_requests import (
    DrainPublisher,
    HttpResponse,
    Request,
    ResumeStream,
    Scale,
    Show,
    StopStream,
    Unlock,
    View,
    attributed,
    health_answer,
    page_answer,
    route,
    safe_headers,
    usable_token,
)
from tests.support.paths import ROOT

TOKEN = b"a-token-of-the-tests"
HTML = (ROOT / "relay" / "observability" / "page.html").read_bytes()


def order(path: str, body: object) -> Request:
    return Request(
        "POST", path, host="localhost:8350", content_type="application/json",
        authorization=f"Bearer {TOKEN.decode()}", body=orjson.dumps(body),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/", "page"), ("/status.json", "status"), ("/history.json", "history"), ("/readyz", "ready"),
        ("/healthz", "healthy"),
    ],
)  # fmt: skip
def test_reading_takes_no_token(path, what):
    assert route(Request("GET", path, host="127.0.0.1:8350"), (), None) == Show(View(what))


@pytest.mark.parametrize(
    ("path", "body", "command"),
    [
        ("/unlock", {}, Unlock("")),
        ("/scale", {"publishers": 3}, Scale(3, "")),
        ("/scale", {"publishers": "auto", "who": "Ann"}, Scale(None, "Ann")),
        ("/drain", {"publisher": "p0"}, DrainPublisher("p0", "")),
        ("/drain", {"stream": "usdm:btcusdt@trade"}, StopStream("usdm:btcusdt@trade", "")),
        ("/resume", {"stream": "usdm:btcusdt@trade"}, ResumeStream("usdm:btcusdt@trade", "")),
    ],
)
def test_the_token_allows_changes(path, body, command):
    assert route(order(path, body), (), TOKEN) == command


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/scale", {"publishers": True}), ("/scale", {"publishers": 2.5}), ("/scale", {"publishers": "2"}),
        ("/scale", {"publishers": 2, "more": 1}), ("/scale", {}), ("/scale", []), ("/scale", None),
        ("/drain", {"publisher": "p0", "stream": "x"}), ("/drain", {"publisher": {"a": 1}}),
        ("/resume", {"publisher": "p0"}), ("/unlock", {"x": 1}),
    ],
)  # fmt: skip
def test_other_bodies_are_told_what_to_send(path, body):
    answer = route(order(path, body), (), TOKEN)
    assert isinstance(answer, HttpResponse)
    assert answer.status == 400
    assert b"error" in answer.body


def test_a_body_that_is_no_json_is_refused():
    assert route(replace(order("/scale", {}), body=b"{"), (), TOKEN).status == 400


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", ""])
PATHS = st.sampled_from(["/", "/scale", "/drain", "/resume", "/unlock", "/status.json", "//scale", "/scale/"])
TEXT = st.text(max_size=40)


@given(
    METHODS, PATHS, st.sampled_from(["localhost", "10.0.0.1:1", "evil.example", ""]) | TEXT,
    st.sampled_from(["", "http://localhost", "http://evil.example", "null"]) | TEXT,
    st.sampled_from(["", "application/json", "text/plain", "application/x-www-form-urlencoded"]) | TEXT,
    st.sampled_from(["", "Bearer a-token-of-the-tests", "Bearer a-token-of-the-test"]) | TEXT,
    st.sampled_from([b'{"publishers":1}', b"{}", b"[]"]) | st.binary(max_size=60),
    st.sampled_from([TOKEN, None]),
)  # fmt: skip
def test_no_request_changes_anything_without_host_origin_type_and_token(
    method, path, host, origin, content_type, authorization, body, token
):
    request = Request(method, path, {}, host, origin, content_type, authorization, body)
    decided = route(request, (), token)
    if isinstance(decided, HttpResponse | Show):
        return
    assert (method, token) == ("POST", TOKEN)
    assert host != "evil.example"
    assert origin in ("", "http://localhost") or origin.endswith(host)
    assert content_type.startswith("application/json")
    assert authorization == "Bearer a-token-of-the-tests"


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (b" a-token-of-the-tests\n", TOKEN), (b"", None), (b"too-short", None),
        (b"two words of a token", None), (b"x" * 2000, None), ("ü".encode() * 20, None),
    ],
)  # fmt: skip
def test_a_token_is_one_long_word(content, token):
    assert usable_token(content) == token


def test_every_answer_says_that_nobody_may_keep_or_frame_it():
    headers = safe_headers(health_answer(View.READY, ()))
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_health_is_503_with_its_reasons():
    assert health_answer(View.READY, ()).status == 200
    sick = health_answer(View.HEALTHY, ("a", "b"))
    assert (sick.status, orjson.loads(sick.body)) == (503, {"healthy": False, "reasons": ["a", "b"]})


def test_who_changes_something_gives_a_name_or_an_address():
    assert attributed("", "10.0.0.1") == "the page, from 10.0.0.1"
    assert attributed(" Ann ", "10.0.0.1") == "Ann on the page, from 10.0.0.1"
    assert len(attributed("x" * 4000, "10.0.0.1")) < 80


def test_the_policy_names_the_style_and_the_script_by_their_hashes():
    policy = page_answer(HTML).headers["Content-Security-Policy"]
    (script,) = re.findall(rb"<script>(.*?)</script>", HTML, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert len(re.findall(r"'sha256-", policy)) == 2


def test_the_page_is_one_file_without_anything_from_elsewhere():
    text = HTML.decode()
    assert not re.search(r"""(src|href)=["'](?!/|#|data:)""", text)
    assert not re.search(r"@import|url\((?!#)", text)
    assert " style=" not in text
    assert "innerHTML" not in text


def colours(block: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--(\w+): #([0-9a-f]{3,6})\b", block)
    wide = {name: (c if len(c) == 6 else "".join(2 * digit for digit in c)) for name, c in found}
    return {name: tuple(int(c[at : at + 2], 16) / 255 for at in (0, 2, 4)) for name, c in wide.items()}


def luminance(colour: tuple[float, ...]) -> float:
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "water", "good", "warn", "bad"])
def test_text_can_be_read_on_every_ground(scheme, ink):
    """WCAG 2.2 asks for 4.5 to 1; text in the colour of a card stands on buttons and banners."""
    found = colours(re.findall(r":root \{(.*?)\}", HTML.decode(), re.DOTALL)[scheme])
    for ground in ("card", "paper", "track"):
        least = 4.5 if ground != "track" or ink != "quiet" else 3.0
        assert contrast(found[ink], found[ground]) >= least, f"{ink} on {ground}"
