"""What a process writes with `os.write`: noted, refused, or cut short, also by the end of the process."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from unittest import mock

from relay.model.record_batch import OVERHEAD_BYTES
from tests.simulation.world import Killed, World


class Fate(Enum):
    """Of the next write of one process: it ends the process before, in the middle or after it was made."""

    KILL_BEFORE = "kill before"
    KILL_WITHIN = "kill within"
    KILL_AFTER = "kill after"


class Disk:
    """`written` is what each process has appended to its journal: turns of the world, and what was written in
    them. With `swallows` zeros are written instead."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.full: set[str] = set()
        self.fate: dict[str, Fate] = {}
        self.written: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self.swallows = False
        self._write = os.write

    @contextmanager
    def installed(self) -> Iterator[None]:
        with mock.patch.object(os, "write", self.write):
            yield

    def write(self, fd: int, data: bytes) -> int:
        process = self.world.current
        if process is None:
            return self._write(fd, data)
        if process.name in self.full:
            if self.world.rng.random() < 0.5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._write(fd, data[: len(data) // 2])
        fate = self.fate.pop(process.name, None)
        if fate is Fate.KILL_WITHIN:
            self._write(fd, data[: self.world.rng.randrange(len(data))])
        if fate is Fate.KILL_WITHIN or fate is Fate.KILL_BEFORE:
            raise Killed
        if self.swallows:
            self._write(fd, bytes(len(data)))
        else:
            self._write(fd, data)
        if len(data) > OVERHEAD_BYTES:
            self.written[process.name].append((self.world.turns, bytes(data)))
        if fate is Fate.KILL_AFTER:
            raise Killed
        return len(data)
