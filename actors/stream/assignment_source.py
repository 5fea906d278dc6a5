"""Which publishers a stream may use: pushed by the controller, or until then read from its store."""

from __future__ import annotations

import asyncio
import random

from relay.adapters.waiting import wait_until_set
from relay.model.assignment import Assignment
from relay.ports import Host


class AssignmentSource:
    """Keeps the newest assignment of the stream `key`; None until one is known. Use from one event loop."""

    def __init__(self, host: Host, key: str) -> None:
        self.current: Assignment | None = None
        self._host = host
        self._key = key
        self._changed = asyncio.Event()

    def assign(self, assignment: Assignment) -> bool:
        """False if a later one is known, since the controller's calls may overtake each other."""
        if self.current is not None and assignment.version < self.current.version:
            return False
        self.current = assignment
        self._changed.set()
        return True

    async def load_if_unknown(self) -> None:
        """Ask the cluster's store if no assignment has been pushed; it may have none yet."""
        if self.current is None:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(None, self._host.assignment, self._key)
            if found is not None:
                self.assign(found)

    async def wait_for_change(self, within_s: tuple[float, float] | None) -> None:
        """Until the next `assign`, for a random time between these at most; None: however long that takes."""
        self._changed.clear()
        await wait_until_set(self._changed, random.uniform(*within_s) if within_s else None)
