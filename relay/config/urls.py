"""URLs of the exchange and of NATS servers: checked and brought to one form; pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from relay.errors import ConfigError
from relay.primitives.text import quoted

_EXCHANGE_EXAMPLE = "write wss://fstream.binance.com, ws://127.0.0.1:9001 or the like"
_REST_EXAMPLE = "write https://fapi.binance.com, http://127.0.0.1:9001 or the like"
# Endings to remove: the old client's BINANCE_WS_URL had one of the first two, and `StreamSpec.path` adds its
# own.
_STREAM_PATHS = ("ws", "stream", "public", "market")
_LOCAL_DOMAINS = ("localhost", "local", "internal", "svc", "test")


def parse_exchange_url(value: object) -> str | None:
    """The base that the paths of streams are added to; None stands for Binance's own hosts."""
    if value is None or value == "":
        return None
    parts, folders = _base(value, ("ws", "wss"), _EXCHANGE_EXAMPLE)
    while folders and folders[-1] in _STREAM_PATHS:
        folders.pop()
    return "/".join([f"{parts.scheme}://{parts.netloc}", *folders])


def parse_rest_url(value: object) -> str | None:
    """The base that the paths of REST are added to; None stands for the one that belongs to the exchange."""
    if value is None or value == "":
        return None
    parts, folders = _base(value, ("http", "https"), _REST_EXAMPLE)
    return "/".join([f"{parts.scheme}://{parts.netloc}", *folders])


def _base(value: object, schemes: tuple[str, str], example: str) -> tuple[SplitResult, list[str]]:
    """The address and the folders of its path; `schemes` are the plain one and the protected one."""
    parts = _split(value, schemes, example)
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("", f"{_masked(value)} has more than host, port and path", example)
    plain, protected = schemes
    if parts.scheme == plain and not _is_private(parts.hostname or ""):
        remedy = f"write {protected}://; {plain}:// is for private addresses and names"
        raise ConfigError("", f"{_masked(value)} would cross public networks unprotected", remedy)
    folders = [folder for folder in parts.path.split("/") if folder]
    if not all(re.fullmatch(r"[\w.~-]+", folder, re.ASCII) for folder in folders):
        raise ConfigError("", f"{_masked(value)} has a strange path", example)
    return parts, folders


def parse_server(value: object) -> str:
    """`nats://host:port`; credentials must have been split off."""
    if isinstance(value, str) and "://" not in value:
        value = f"nats://{value}"
    parts = _split(value, ("nats", "tls"), "write nats://127.0.0.1:4222 or the like")
    if parts.username is not None:
        remedy = "take them from the environment as ${...}, or use nats.user and nats.password_file"
        raise ConfigError("", f"{_masked(value)} has credentials in the file", remedy)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError("", f"{_masked(value)} has more than host and port", "write nats://host:4222")
    return f"{parts.scheme}://{parts.netloc}" + ("" if parts.port else ":4222")


def split_credentials(server: str) -> tuple[str, str, str]:
    """The server without its credentials, the user, and the password; empty where there is none."""
    scheme, found, rest = server.rpartition("://")
    login, at, host = rest.rpartition("@")
    user, _, password = login.partition(":")
    return (f"{scheme}{found}{host}" if at else server), unquote(user), unquote(password)


def _split(value: object, schemes: tuple[str, ...], remedy: str) -> SplitResult:
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise ConfigError("", f"{_masked(value)} is not a URL", remedy)
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ConfigError("", f"{_masked(value)} is not a URL", remedy) from None
    if parts.scheme not in schemes:
        raise ConfigError("", f"{_masked(value)} does not begin with {'://, '.join(schemes)}://", remedy)
    if not re.fullmatch(r"[\w.:%-]+", parts.hostname or "", re.ASCII) or port == 0:
        raise ConfigError("", f"{_masked(value)} has no valid host and port", remedy)
    return parts


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.rstrip(".").rsplit(".", 1)[-1] in _LOCAL_DOMAINS


def _masked(value: object) -> str:
    """The value without what is before the last @, which may be a password."""
    return quoted(re.sub(r".*@", "***@", value, flags=re.DOTALL) if isinstance(value, str) else value)
