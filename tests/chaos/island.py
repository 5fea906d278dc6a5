"""A network namespace joined to this one by a pair of virtual interfaces, which can be parted silently."""

from __future__ import annotations

import os
import subprocess
import sys
from types import TracebackType
from typing import Self

from tests.support import needs

# Answers to an address that no interface has vanish without an error at either end.
NOWHERE = "02:00:00:00:00:99"


class Island:
    """`outside` is our address as the island sees it. Skips the test where this user may make none."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.name = f"sluice{os.getpid()}"
        self.outside, self.inside = f"10.203.{number}.1", f"10.203.{number}.2"
        self._ours, self._theirs = f"so{os.getpid()}", f"si{os.getpid()}"

    def __enter__(self) -> Self:
        needs.program("ip")
        if _ip("netns", "add", self.name):
            needs.lack("rights", "a network namespace takes the right to make one (root)")
        ours, theirs = self._ours, self._theirs
        inside = ("-n", self.name)
        for arguments in (
            ("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.name),
            ("addr", "add", f"{self.outside}/30", "dev", ours),
            ("link", "set", ours, "up"),
            (*inside, "addr", "add", f"{self.inside}/30", "dev", theirs),
            (*inside, "link", "set", theirs, "up"),
            (*inside, "link", "set", "lo", "up"),
        ):
            assert _ip(*arguments) == 0, arguments
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ip("netns", "del", self.name)
        _ip("link", "del", self._ours)

    def part(self) -> None:
        """From now on packets of either side reach nobody."""
        assert _ip("neigh", "replace", self.inside, "lladdr", NOWHERE, "dev", self._ours) == 0
        assert (
            _ip("-n", self.name, "neigh", "replace", self.outside, "lladdr", NOWHERE, "dev", self._theirs)
            == 0
        )

    def heal(self) -> None:
        _ip("neigh", "del", self.inside, "dev", self._ours)
        _ip("-n", self.name, "neigh", "del", self.outside, "dev", self._theirs)

    def reached(self, port: int) -> bool:
        """Whether a connection from the island to our `port` comes about."""
        script = f"import socket; socket.create_connection(({self.outside!r}, {port}), 1)"
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", script]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _ip(*arguments: str) -> int:
    return subprocess.run(["ip", *arguments], check=False, capture_output=True).returncode
