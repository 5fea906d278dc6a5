"""The gaps that still wait for backfill, in a file of the journal's directory, for the next incarnation.

The file is replaced as a whole, so a kill at any moment leaves the old one or the new one. Does file I/O,
like all of relay.journal, and is not under relay.adapters for the same reason: see the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from relay.model.gap import Gap, LossCause
from relay.primitives.atomic_file import replace_file

FILE_NAME = "open-holes.json"


class OpenGapsFile:
    """Of one incarnation. It never overwrites what a later one has written: a stopped process may wake up."""

    def __init__(self, directory: Path, epoch: int) -> None:
        self._path = directory / FILE_NAME
        self._epoch = epoch

    def load(self) -> list[Gap]:
        """The gaps that the previous incarnation left; none if the file cannot be read."""
        return self._read()[1]

    def save(self, gaps: Sequence[Gap]) -> None:
        """Raises OSError."""
        exists = self._path.exists()
        if (not gaps and not exists) or (exists and self._read()[0] > self._epoch):
            return
        fields = [asdict(gap) | {"sample": gap.sample.decode()} for gap in gaps]
        replace_file(self._path, orjson.dumps({"epoch": self._epoch, "holes": fields}))

    def _read(self) -> tuple[int, list[Gap]]:
        try:
            found = orjson.loads(self._path.read_bytes())
            gaps = [_gap(fields) for fields in found["holes"]]
            return int(found["epoch"]), gaps
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0, []


def _gap(fields: dict[str, Any]) -> Gap:
    return Gap(**(fields | {"cause": LossCause(fields["cause"]), "sample": fields["sample"].encode()}))
