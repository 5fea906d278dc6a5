"""Until when the exchange wants no REST request from this address: all streams of a node share its word."""

from __future__ import annotations

import re
from pathlib import Path

# Binance's longest ban; a file that says more is of another clock.
MAX_S = 3 * 86400.0


class StayAway:
    """One number in a file of `directory`, which is private to the relay; `base_url` tells which exchange."""

    def __init__(self, directory: Path, base_url: str) -> None:
        self._path = directory / f"rest-closed-{re.sub(r'[^a-z0-9]+', '-', base_url.lower())}"

    def left_s(self, now: float) -> float:
        """At Unix time `now`."""
        try:
            left_s = float(self._path.read_text(encoding="ascii")) - now
        except (OSError, ValueError):
            return 0.0
        return left_s if 0.0 < left_s <= MAX_S else 0.0

    def prolong(self, seconds: float, now: float) -> None:
        """From `now` on; raises OSError."""
        if seconds > self.left_s(now):
            new = self._path.with_suffix(".new")
            new.write_text(f"{now + min(seconds, MAX_S)}", encoding="ascii")
            new.replace(self._path)
