"""What holds for every unit test: Ray is out of reach, and a slow machine is no failure."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that nobody listens on: what reaches for Ray fails instead of finding or starting one."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
