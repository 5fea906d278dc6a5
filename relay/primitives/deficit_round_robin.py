"""Deficit round robin: who may publish next, and how many bytes (Shreedhar and Varghese, SIGCOMM 1995)."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class DeficitRoundRobin(Generic[K]):
    """The keys that have something to send, and whose turn it is.

    Before the turn of a waiting key, every other key is served at most once, with at most one quantum plus
    what an item larger than its credit left over from earlier turns. Call `turn`, then `end_turn`.
    """

    def __init__(self, quantum_bytes: int) -> None:
        self._quantum_bytes = quantum_bytes
        self._queue: deque[K] = deque()
        self._credit_bytes: dict[K, int] = {}

    def __bool__(self) -> bool:
        return bool(self._queue)

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, key: K) -> None:
        """Queue behind the others; nothing changes if it is there already."""
        if key not in self._credit_bytes:
            self._credit_bytes[key] = 0
            self._queue.append(key)

    def discard(self, key: K) -> None:
        if self._credit_bytes.pop(key, None) is not None:
            self._queue.remove(key)

    def turn(self) -> tuple[K, int]:
        """The key whose turn it is and how many bytes it may send now.

        That may be less than its next item has: then it sends nothing, and a later turn allows more.
        """
        key = self._queue[0]
        self._credit_bytes[key] += self._quantum_bytes
        return key, self._credit_bytes[key]

    def end_turn(self, used_bytes: int, *, more: bool) -> None:
        """End the turn. Without `more` to send the key leaves and takes no credit along."""
        key = self._queue.popleft()
        if more:
            self._credit_bytes[key] -= used_bytes
            self._queue.append(key)
        else:
            del self._credit_bytes[key]
