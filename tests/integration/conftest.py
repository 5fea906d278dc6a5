"""Fixtures of more than one module here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.page_rig import PageRig, Served


@pytest.fixture
def page_rig(tmp_path: Path) -> Iterator[PageRig]:
    rig = PageRig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def serve(page_rig: PageRig) -> Callable[..., Served]:
    """Call it for a relay at peace, whose page is set by the argument."""
    return page_rig.serve
