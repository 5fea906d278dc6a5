"""Fixtures that more than one kind of test uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.adapters.local.nats_server import EmbeddedNats
from tests.support import needs


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            needs.root() if name == "root" else needs.program(name)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[EmbeddedNats]:
    """Running, with JetStream and an empty store; see `.url`, `.kill()`, `.start()`, `.restart()`."""
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server
