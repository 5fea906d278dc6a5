"""Where the status page listens, and under which host names it may be requested; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address

from relay.errors import ConfigError
from relay.primitives.text import quoted

AUTO, OFF = "auto", "off"
LOOPBACK = "127.0.0.1"
# Near Ray's ports (8265 and upwards for dashboards), and the same on every machine, for bookmarks.
USUAL_PORT = 8350
MAX_HEADER_CHARS = 300
_EXAMPLE = "write auto, off, 127.0.0.1:8350 or the like"
_ADDRESS = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+)):(\d{1,5})", re.ASCII | re.IGNORECASE)
_NAMED = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::\d{1,5})?", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[\w-]{1,63}(\.[\w-]{1,63}){0,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Listen:
    """`port` 0 takes any free port; with `fallback`, any free one is taken if `port` is not free."""

    host: str
    port: int
    fallback: bool = False


def parse_listen(value: object) -> str:
    """`auto`, `off`, or an address and a port in one form."""
    if value is False or value == OFF:
        return OFF
    if value is None or value == AUTO:
        return AUTO
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found[3]) > 65535:
        raise ConfigError("", f"{quoted(value)} is not where a page can listen", _EXAMPLE)
    host = found[1] or found[2]
    if host.lower() != "localhost" and not _is_address(host):
        raise ConfigError("", f"{quoted(host)} is not an IP address", _EXAMPLE)
    return f"{_bracketed(host)}:{int(found[3])}"


def parse_name(value: object) -> str:
    """A host name, besides addresses and localhost, under which the page may be requested."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        remedy = "write one without a port, such as sluice.example.org"
        raise ConfigError("", f"{quoted(value)} is no host name", remedy)
    return value.lower()


def listen(text: str) -> Listen | None:
    """The parts of what `parse_listen` returned; None is off."""
    if text == OFF:
        return None
    if text == AUTO:
        return Listen(LOOPBACK, USUAL_PORT, fallback=True)
    host, _, port = text.rpartition(":")
    return Listen(host.strip("[]"), int(port))


def url(host: str, port: int) -> str:
    """The URL to open on the machine that listens; for an unspecified address such as 0.0.0.0, on
    loopback.
    """
    if _is_address(host) and ip_address(host).is_unspecified:
        host = LOOPBACK
    return f"http://{_bracketed(host)}:{port}"


def may_be_asked(host_header: str, names: tuple[str, ...] = ()) -> bool:
    """Whether a request with this Host header is meant for us.

    A foreign page can make its own host name resolve to this server (DNS rebinding), but it cannot make a
    browser send an address or `localhost` as Host: those always name the server that was connected to. The
    port is ignored, so that forwarded ports work.
    """
    name = host_of(host_header)
    return name is not None and (name == "localhost" or _is_address(name) or name in names)


def host_of(header: str) -> str | None:
    """The host without its port, in small letters; None for what is no host."""
    found = _NAMED.fullmatch(header) if len(header) <= MAX_HEADER_CHARS else None
    return (found[1] or found[2]).lower() if found else None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
