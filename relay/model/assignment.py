"""Which publisher serves a stream, as the controller decides it, and how that is encoded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


def encode_assignment(assignment: Assignment) -> bytes:
    return json.dumps(asdict(assignment), separators=(",", ":")).encode()


def decode_assignment(encoded: bytes) -> Assignment:
    fields = json.loads(encoded)
    endpoints = tuple(PublisherEndpoint(**endpoint) for endpoint in fields["endpoints"])
    return Assignment(version=fields["version"], publisher=fields["publisher"], endpoints=endpoints)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherEndpoint:
    """Where a publisher listens. `unix_path` serves streams of the same `node` only."""

    publisher: str
    node: str
    unix_path: str
    tcp_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What the controller sends to one stream actor: its publisher, and those to use if that one fails."""

    version: int
    publisher: str | None
    endpoints: tuple[PublisherEndpoint, ...]
