"""The status page's HTTP side: which request may do what, decided without a socket. Pure.

Everybody who reaches the address may read, under a host name that the configuration allows (which stops DNS
rebinding). A change needs the token in the Authorization header, which no form and no page of another site
can send: there are no cookies, so there is no request to forge.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from relay.config.listen_address import host_of, may_be_asked

MAX_BODY_BYTES = 4096
MAX_LINE_BYTES = 2048
MAX_CONNECTIONS = 64
# A shorter token could be guessed.
MIN_TOKEN_CHARS = 16
MAX_TOKEN_BYTES = 1024

JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"
_SAFE = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent; header fields that are missing are empty."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    origin: str = ""
    content_type: str = ""
    authorization: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class View(StrEnum):
    """What can be read."""

    PAGE = "page"
    STATUS = "status"
    HISTORY = "history"
    READY = "ready"
    HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Show:
    """`after` is used by the history alone: the number `last` of an earlier answer, 0 for all of it."""

    view: View
    after: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """`count` is None to let the load decide."""

    count: int | None
    who: str


@dataclass(frozen=True, slots=True)
class DrainPublisher:
    name: str
    who: str


@dataclass(frozen=True, slots=True)
class StopStream:
    key: str
    who: str


@dataclass(frozen=True, slots=True)
class ResumeStream:
    key: str
    who: str


@dataclass(frozen=True, slots=True)
class Unlock:
    """Changes nothing: it only checks the token."""

    who: str


Command = Scale | DrainPublisher | StopStream | ResumeStream | Unlock

_VIEWS = {
    "/": View.PAGE,
    "/status.json": View.STATUS,
    "/history.json": View.HISTORY,
    "/readyz": View.READY,
    "/healthz": View.HEALTHY,
}
_COMMANDS = ("/unlock", "/scale", "/drain", "/resume")


def route(request: Request, names: tuple[str, ...], token: bytes | None) -> HttpResponse | Show | Command:
    """An HttpResponse is a refusal. `token` is None if no user may change anything."""
    if not may_be_asked(request.host, names):
        return refusal(421, "ask for this page by address, as localhost, or by a name in page.names")
    if request.path in _VIEWS:
        return _show(request)
    if request.path not in _COMMANDS:
        return refusal(404, "there is nothing here; the page is at /")
    if request.method != "POST":
        return refusal(405, "this takes POST", Allow="POST")
    return _forbidden(request, token) or _command(request)


def refusal(status: int, sentence: str, **headers: str) -> HttpResponse:
    return HttpResponse(status, orjson.dumps({"error": sentence}), headers=headers)


def safe_headers(answer: HttpResponse) -> dict[str, str]:
    return {**_SAFE, **answer.headers, "Content-Type": answer.content_type}


def _show(request: Request) -> HttpResponse | Show:
    if request.method not in ("GET", "HEAD"):
        return refusal(405, "this takes GET", Allow="GET, HEAD")
    after = request.query.get("after", "0")
    if not re.fullmatch(r"\d{1,15}", after, re.ASCII):
        return refusal(400, "after is the number `last` of an earlier answer")
    return Show(_VIEWS[request.path], int(after))


def _forbidden(request: Request, token: bytes | None) -> HttpResponse | None:
    if request.origin and host_of(request.origin.partition("://")[2]) != host_of(request.host):
        return refusal(403, "another site's page may change nothing here")
    if request.content_type.partition(";")[0].strip().lower() != JSON:
        return refusal(415, f"send {JSON}")
    if token is None:
        return refusal(403, "this page only shows: the configuration names no page.token_file")
    given = re.fullmatch(r"bearer +(\S+)", request.authorization, re.ASCII | re.IGNORECASE)
    if given is None or not hmac.compare_digest(given[1].encode(), token):
        return refusal(401, "the token is missing or wrong", **{"WWW-Authenticate": "Bearer"})
    return None


def _command(request: Request) -> HttpResponse | Command:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        return refusal(400, "the body is not JSON")
    if not isinstance(body, dict) or not all(isinstance(value, str | int) for value in body.values()):
        return refusal(400, "the body is not an object of texts and numbers")
    who = str(body.pop("who", ""))
    match request.path, body:
        case "/unlock", {**rest} if not rest:
            return Unlock(who)
        case "/scale", {"publishers": "auto", **rest} if not rest:
            return Scale(None, who)
        case "/scale", {"publishers": int(count), **rest} if not rest and not isinstance(count, bool):
            return Scale(count, who)
        case "/drain", {"publisher": str(name), **rest} if not rest:
            return DrainPublisher(name, who)
        case "/drain", {"stream": str(key), **rest} if not rest:
            return StopStream(key, who)
        case "/resume", {"stream": str(key), **rest} if not rest:
            return ResumeStream(key, who)
    return refusal(400, f"{request.path} takes {_SHAPES[request.path]}")


_SHAPES: Mapping[str, str] = {
    "/unlock": "{}",
    "/scale": '{"publishers": 3} or {"publishers": "auto"}',
    "/drain": '{"publisher": "p0"} or {"stream": "usdm:btcusdt@trade"}',
    "/resume": '{"stream": "usdm:btcusdt@trade"}',
}


def attributed(who: str, address: str) -> str:
    """Who made a change over the page: the name that they gave, if any, and their address."""
    who = who.strip()[:40]
    return f"{who} on the page, from {address}" if who else f"the page, from {address}"


def usable_token(content: bytes) -> bytes | None:
    """The token in a token file; None if it is too short, too long, or not one word of ASCII."""
    token = content.strip()
    fits = MIN_TOKEN_CHARS <= len(token) <= MAX_TOKEN_BYTES
    return token if fits and re.fullmatch(rb"[!-~]+", token) else None


def health_answer(view: View, reasons: tuple[str, ...]) -> HttpResponse:
    """200 if there are no reasons against it, else 503 with the reasons."""
    body: dict[str, Any] = {view.value: not reasons, "reasons": reasons}
    return HttpResponse(503 if reasons else 200, orjson.dumps(body, option=orjson.OPT_INDENT_2))


def page_answer(html: bytes) -> HttpResponse:
    """With a Content-Security-Policy that allows the style and the script in the page, and nothing else."""
    return HttpResponse(200, html, HTML, {"Content-Security-Policy": _policy(html)})


def _policy(html: bytes) -> str:
    style, script = (_hashes(html, tag) for tag in (b"style", b"script"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    )


def _hashes(html: bytes, tag: bytes) -> str:
    found = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(one).digest()).decode() for one in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
