"""Until when the exchange refuses REST requests from this address, for all streams of a node to read.

Does file I/O, of a few bytes and without waiting; it is here, and not under relay.adapters, because what
the file means (whose ban, for how long at most, since which boot) is a rule of Binance's limits.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from relay.primitives.atomic_file import replace_file

# Binance's longest ban.
MAX_S = 3 * 86400.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RestCooldownFile:
    """The end of the cooldown, in a file of `directory`, which is private to the relay; one for each
    `base_url`.

    `now` is monotonic seconds, which all processes of a node share and which setting the clock does not
    change. They restart when the machine does, so a file with another `boot_id` is ignored.
    """

    def __init__(self, directory: Path, base_url: str, boot_id: Path = BOOT_ID) -> None:
        self._path = directory / f"rest-closed-{re.sub(r'[^a-z0-9]+', '-', base_url.lower())}"
        self._boot = _read_boot_id(boot_id)

    def remaining_s(self, now: float) -> float:
        try:
            until, _, boot = self._path.read_text(encoding="ascii").partition(" ")
            left_s = float(until) - now
        except (OSError, ValueError):
            return 0.0
        return left_s if boot == self._boot and 0.0 < left_s <= MAX_S else 0.0

    def extend(self, seconds: float, now: float) -> None:
        """From `now` on; raises OSError."""
        if seconds > self.remaining_s(now):
            replace_file(self._path, f"{now + min(seconds, MAX_S)} {self._boot}".encode("ascii"))


def _read_boot_id(path: Path) -> str:
    """Identifies this boot of the machine; empty where the system has no such id."""
    with suppress(OSError):
        return path.read_text(encoding="ascii").strip()
    return ""
