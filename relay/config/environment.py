"""Brings the contents of the file to one form and applies the old client's environment variables; pure.

Only the shape is checked here; the models check the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from relay.binance.hosts import official_venue
from relay.config.secret import Part, Secret, is_written_out
from relay.config.urls import parse_exchange_url, split_credentials
from relay.config.yaml_file import FromEnvironment, below
from relay.errors import ConfigError
from relay.primitives.text import quoted

SECTIONS = ("exchange", "nats", "publishers", "queue", "journal", "resources", "page")
_SHARD_SECTIONS = ("exchange", "queue", "journal")
# The key that each of the old client's variables sets.
VARIABLES = {
    "NATS_URL": "nats.servers",
    "NATS_TOPIC": "nats.subject",
    "BINANCE_WS_URL": "exchange.url",
    "BINANCE_STREAMS": "shards",
    "MAX_QUEUE_SIZE": "queue.max_messages",
    "NUM_MESSAGE_PROCESSORS": "publishers.scale",
}
# For these an empty text, which `${NATS_PASSWORD:-}` may give, means that the key is not set.
_OPTIONAL = (
    *("user", "password", "password_file", "token", "token_file"),
    *("creds_file", "nkey_file", "tls_ca_file"),
)
_LISTS = ("NATS_URL", "BINANCE_STREAMS")
_SWITCH = {True: True, "on": True, False: False, "off": False}


def complete(raw: Mapping[str, Any], environ: Mapping[str, str], home: Path | None) -> dict[str, Any]:
    """Every section and shard as a mapping, with variables applied and credentials taken out of the URLs.

    `home` is the user's home folder, None without one.
    """
    done = dict(raw)
    for name in SECTIONS:
        done[name] = _section(name, done.get(name))
    done["nats"]["stream"] = _section("nats.stream", done["nats"].get("stream"))
    _apply_variables(done, environ)
    _set_journal_directory(done["journal"], environ, home)
    _drop_empty(done["nats"])
    _split_servers(done["nats"])
    done["shards"] = _shards(done.get("shards"))
    return done


def origins(environ: Mapping[str, str]) -> dict[str, str]:
    """The YAML paths whose values came from the old client's variables, and from which."""
    return {path: name for name, path in VARIABLES.items() if environ.get(name, "").strip()}


def _section(path: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if path.endswith("journal") and isinstance(value, bool | str) and value in _SWITCH:
        return {"enabled": _SWITCH[value]}
    if path == "page" and isinstance(value, bool | str) and value in _SWITCH:
        return {"listen": "auto" if _SWITCH[value] else "off"}
    if not isinstance(value, dict):
        raise ConfigError(path, f"{quoted(value)} is not a mapping of keys", "indent its keys below it")
    return dict(value)


def _apply_variables(done: dict[str, Any], environ: Mapping[str, str]) -> None:
    for path, name in origins(environ).items():
        value: Any = FromEnvironment(environ[name].strip(), f"${{{name}}}")
        if name in _LISTS:
            value = _listed(value)
        section, _, key = path.partition(".")
        (done[section] if key else done)[key or section] = value
    if "BINANCE_WS_URL" in origins(environ).values():
        _set_venue_of_host(done["exchange"])


def _listed(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(text, FromEnvironment):
        return [FromEnvironment(part, text.template) for part in parts]
    return parts


def _set_venue_of_host(exchange: dict[str, Any]) -> None:
    """The old client had no setting for the venue: its URL determined it."""
    try:
        url = parse_exchange_url(exchange["url"])
    except ConfigError as error:
        raise ConfigError("exchange.url", error.problem, error.remedy) from error
    venue = official_venue(url) if url else None
    if venue is not None:
        exchange["venue"] = venue


def venue_note(environ: Mapping[str, str]) -> str:
    """A hint for refused streams: the variable overrides the venue that the file names."""
    url = environ.get("BINANCE_WS_URL", "").strip()
    venue = official_venue(url) if url else None
    return f"; BINANCE_WS_URL sets the venue to {venue}" if venue else ""


def _drop_empty(nats: dict[str, Any]) -> None:
    for key in _OPTIONAL:
        if nats.get(key) == "":
            del nats[key]


def _set_journal_directory(journal: dict[str, Any], environ: Mapping[str, str], home: Path | None) -> None:
    """By default below the user's state folder; by the XDG rule, paths that are not absolute are ignored."""
    if journal.get("directory") not in (None, ""):
        return
    state = environ.get("XDG_STATE_HOME", "")
    named = Path(environ.get("HOME", ""))
    folder = named if named.is_absolute() else home
    if folder is None:
        remedy = "name one that survives restarts"
        raise ConfigError("journal.directory", "this user has no home folder for journals", remedy)
    base = Path(state) if Path(state).is_absolute() else folder / ".local" / "state"
    journal["directory"] = str(base / "sluice" / "journal")


def _split_servers(nats: dict[str, Any]) -> None:
    """Moves credentials that came from the environment out of the URLs and into secret references."""
    servers = nats.get("servers")
    if isinstance(servers, str):
        servers = _listed(servers)
    if not isinstance(servers, list):
        return
    logins: dict[tuple[str, str], str] = {}
    addresses: list[Any] = []
    for server in servers:
        if isinstance(server, FromEnvironment):
            address, user, password = split_credentials(server)
            if user or password:
                logins.setdefault((user, password), server.template)
            addresses.append(address)
        else:
            addresses.append(server)
    if len(logins) > 1:
        raise ConfigError(
            "nats.servers", "the servers have different logins", "use one login for all of them"
        )
    for (user, password), template in logins.items():
        part = Part.PASSWORD if password else Part.USER
        if is_written_out(template, part):
            remedy = "take it from the environment as ${...}, without a default, or use nats.password_file"
            raise ConfigError("nats.servers", "a secret may not stand in the file", remedy)
        secret = Secret(template, part)
        nats.update({"user": user, "password": secret} if password else {"token": secret})
    nats["servers"] = addresses


def _shards(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        problem = "no streams are listed" if value is None else f"{quoted(value)} is not a list"
        raise ConfigError("shards", problem, "list streams, one in a line, such as `- btcusdt@trade`")
    if not value:
        raise ConfigError("shards", "no streams are listed", "list at least one, such as `- btcusdt@trade`")
    return [_shard(f"shards[{index}]", item) for index, item in enumerate(value)]


def _shard(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stream": value}
    if not isinstance(value, dict):
        remedy = "write a stream's name, or a mapping with the key stream"
        raise ConfigError(path, f"{quoted(value)} is not a stream", remedy)
    shard = dict(value)
    for name in _SHARD_SECTIONS:
        shard[name] = _section(below(path, name), shard.get(name))
    if shard["journal"]:
        shard["journal"].setdefault("enabled", True)
    return shard
