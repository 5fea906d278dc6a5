"""A host for actors that run as plain objects, without Ray."""

from __future__ import annotations

import tempfile
from pathlib import Path

from relay.model.assignment import Assignment
from relay.observability.metrics import NoMetrics

SECRET = b"a secret of the tests"


class PlainHost:
    """One node; assignments are what the test put into `assignments`."""

    def __init__(self, node: str = "node-1") -> None:
        self.node = node
        self.address = "127.0.0.1"
        self.secret = SECRET
        self.metrics = NoMetrics()
        self.title = ""
        self.assignments: dict[str, Assignment] = {}
        # Short: a unix socket's path has 107 bytes at most.
        self._directory = tempfile.TemporaryDirectory(prefix="sluice-")
        self.socket_directory = Path(self._directory.name)

    def assignment(self, stream: str) -> Assignment | None:
        return self.assignments.get(stream)

    def set_title(self, text: str) -> None:
        self.title = text

    def close(self) -> None:
        self._directory.cleanup()
