"""What runs in Ray's workers for test_private_api.py."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from actors.cluster import private_api
from actors.cluster.metrics import RayMetrics
from relay.observability.metrics import Metric

OWN_TITLE = "ray::Sluice own title"
# Far more often than Ray looks for signals, every 10 ms, so that each time it finds one.
ALARM_S, SAME_POLL_S = 0.001, 0.005


class Plain:
    """As Ray makes it."""

    def pid(self) -> int:
        return os.getpid()

    def niceness(self) -> int:
        return os.nice(0)

    def title(self) -> str:
        return _title()

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Titled(Plain):
    """Keeps a title of its own, as actors/runtime/host.py does."""

    def __init__(self) -> None:
        private_api.keep_process_title()

    def entitle(self) -> None:
        private_api.set_process_title(OWN_TITLE)


class Counting(Plain):
    """Counts with a counter, and how often its idle main thread looks for signals."""

    def __init__(self) -> None:
        self.on_main_thread = threading.current_thread() is threading.main_thread()
        self._polls, self._polled_at = 0, 0.0
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.setitimer(signal.ITIMER_REAL, ALARM_S, ALARM_S)

    def _on_alarm(self, *_: object) -> None:
        now = time.monotonic()
        # A second signal of the same poll comes when the first one's handler lasted.
        self._polls += now - self._polled_at > SAME_POLL_S
        self._polled_at = now

    def polls(self) -> tuple[bool, int]:
        """Whether the constructor ran on the main thread, and how many polls there were so far."""
        return self.on_main_thread, self._polls

    def add(self, metric: str, tags: tuple[str, ...], amount: float) -> None:
        RayMetrics().add(Metric[metric], tags, amount)


def _title() -> str:
    return Path("/proc/self/cmdline").read_text(encoding="utf-8").rstrip("\0")
