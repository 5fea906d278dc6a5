"""Which NATS subjects events may go to; pure."""

from __future__ import annotations

import re

from relay.errors import ConfigError
from relay.primitives.text import quoted

# The server accepts longer ones, but a subject becomes part of names and log lines.
MAX_SUBJECT_BYTES = 255
_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELDS = frozenset({"venue", "symbol", "channel"})
_USE_FIELDS = "write fields as {venue}, {symbol} and {channel}"


def parse_template(value: object) -> str:
    """Raises ConfigError, without a path, for a template that cannot become a subject."""
    if not isinstance(value, str):
        raise ConfigError(
            "", f"{quoted(value)} is not text", "write binance.{venue}.{symbol}.{channel} or the like"
        )
    for field in _FIELD.findall(value):
        if field not in _FIELDS:
            raise ConfigError("", f"{quoted(value)} has an unknown field {{{field[:40]}}}", _USE_FIELDS)
    filled = _FIELD.sub("x", value)
    if "{" in filled or "}" in filled:
        raise ConfigError("", f"{quoted(value)} has a lone brace", _USE_FIELDS)
    check_subject(filled, value)
    return value


def check_subject(subject: str, written: str, path: str = "") -> None:
    """Raises ConfigError, quoting `written`, for subjects that are invalid or reserved by NATS or Sluice."""
    tokens = subject.split(".")
    first = tokens[0]
    if not all(tokens):
        raise ConfigError(
            "", f"{quoted(written)} has an empty word", "put one dot between words, none at the ends"
        )
    if " " in subject or not subject.isprintable():
        problem = f"{quoted(written)} has a space or a control character"
        raise ConfigError(path, problem, "use letters, digits, - and _")
    if "*" in subject or ">" in subject:
        raise ConfigError(
            path, f"{quoted(written)} has a wildcard", "write it out: * and > are for consumers"
        )
    if first.startswith("$") or first in ("sluice", "_INBOX"):
        owner = "Sluice" if first == "sluice" else "NATS"
        problem = f"{quoted(written)} lies below {first[:40]}., which {owner} keeps for itself"
        raise ConfigError(path, problem, "begin with another word, such as binance")
    if len(subject.encode()) > MAX_SUBJECT_BYTES:
        raise ConfigError(path, f"{quoted(written)} is longer than {MAX_SUBJECT_BYTES} bytes", "shorten it")
