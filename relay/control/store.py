"""The state that must outlive the controller, under fixed keys in the cluster's key-value store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from relay.config import Config
from relay.model.actors import ActorId, Role
from relay.model.assignment import Assignment, decode_assignment, encode_assignment
from relay.model.stats import Change, StoppedStream

CONFIG, SCALE, STOPPED, CHANGES = "config", "scale", "stopped", "changes"
PAGE_KEY = "page-key"
# Older changes are in the controller's log.
CHANGES_KEPT = 50
ASSIGNMENT, REVISION = "assignment/", "revision/"


class KeyValueStore(Protocol):
    """The part of relay.ports.Cluster that stores state."""

    def load(self, key: str) -> bytes | None: ...

    def load_all(self, prefix: str) -> Mapping[str, bytes]: ...

    def save(self, key: str, value: bytes) -> None: ...

    def forget(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Scaling:
    """Who last set the number of publishers, and when; `count` is None for automatic."""

    count: int | None
    who: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Running:
    """The configuration in force. `version` counts its changes, from 1."""

    version: int
    config: Config


def assignment_key(stream: str) -> str:
    return f"{ASSIGNMENT}{stream}"


class ControlStore:
    def __init__(self, store: KeyValueStore) -> None:
        self._store = store

    def running(self) -> Running | None:
        encoded = self._store.load(CONFIG)
        if encoded is None:
            return None
        version, _, config = encoded.partition(b" ")
        return Running(int(version), Config.model_validate_json(config))

    def save_running(self, running: Running) -> None:
        self._store.save(CONFIG, f"{running.version} {running.config.model_dump_json()}".encode())

    def forget_running(self) -> None:
        self._store.forget(CONFIG)

    def scaling(self) -> Scaling | None:
        encoded = self._store.load(SCALE)
        return Scaling(**json.loads(encoded)) if encoded else None

    def save_scaling(self, scaling: Scaling) -> None:
        self._store.save(SCALE, json.dumps(asdict(scaling)).encode())

    def stopped(self) -> dict[str, StoppedStream]:
        encoded = self._store.load(STOPPED)
        found = [StoppedStream(**one) for one in json.loads(encoded)] if encoded else []
        return {one.key: one for one in found}

    def save_stopped(self, stopped: Mapping[str, StoppedStream]) -> None:
        self._store.save(STOPPED, json.dumps([asdict(one) for one in stopped.values()]).encode())

    def changes(self) -> tuple[Change, ...]:
        encoded = self._store.load(CHANGES)
        return tuple(Change(**one) for one in json.loads(encoded)) if encoded else ()

    def save_changes(self, changes: Sequence[Change]) -> None:
        """The last ones, oldest first."""
        kept = [asdict(one) for one in changes[-CHANGES_KEPT:]]
        self._store.save(CHANGES, json.dumps(kept).encode())

    def page_token_file(self) -> Path | None:
        """The one that was made for this relay; `page.token_file` in the configuration overrides it."""
        encoded = self._store.load(PAGE_KEY)
        return Path(encoded.decode()) if encoded else None

    def assignments(self) -> dict[str, Assignment]:
        found = self._store.load_all(ASSIGNMENT)
        return {stream: decode_assignment(encoded) for stream, encoded in found.items()}

    def save_assignment(self, stream: str, assignment: Assignment) -> None:
        self._store.save(assignment_key(stream), encode_assignment(assignment))

    def forget_assignment(self, stream: str) -> None:
        self._store.forget(assignment_key(stream))

    def revisions(self) -> dict[ActorId, str]:
        found = {}
        for name, encoded in self._store.load_all(REVISION).items():
            role, _, key = name.partition("/")
            found[ActorId(Role(role), key)] = encoded.decode()
        return found

    def save_revision(self, actor: ActorId, revision: str) -> None:
        self._store.save(f"{REVISION}{actor.role}/{actor.key}", revision.encode())

    def forget_revision(self, actor: ActorId) -> None:
        self._store.forget(f"{REVISION}{actor.role}/{actor.key}")
