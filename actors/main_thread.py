"""Rest for the main thread of a Ray worker, and the process title, which is set between two rests.

Ray wakes that thread 100 times a second to look for signals (core_worker.cc, RunTaskExecutionLoop) and takes
the interpreter's lock from the data plane each time: 0.75 % of a core for an actor that does nothing. No
setting turns it off, but a signal's Python handler runs right there, so a handler of ours sleeps there most
of the time. Calls of the actor's methods begin up to REST_S later for it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

REST_S = 0.25
# The next rest begins when Ray has looked at what came meanwhile, and looks for signals again.
_AGAIN_S = 0.003


class MainThread:
    """One in a process; `set_title` is called with `title` after each rest, since Ray puts its own back."""

    def __init__(self, set_title: Callable[[str], None]) -> None:
        self.title = ""
        self._set_title = set_title

    def rest(self) -> None:
        """Begin. From any thread but the main one this keeps the title alone."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, self._rest_once)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            threading.Thread(target=self._keep_title, name="title", daemon=True).start()

    def _rest_once(self, *_: object) -> None:
        self._show_title()
        time.sleep(REST_S)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    def _keep_title(self) -> None:
        while True:
            self._show_title()
            time.sleep(REST_S)

    def _show_title(self) -> None:
        if self.title:
            self._set_title(self.title)
