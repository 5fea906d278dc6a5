"""Rest for the main thread of a Ray worker.

Ray wakes that thread 100 times a second to look for signals (core_worker.cc, RunTaskExecutionLoop) and takes
the interpreter's lock from the data plane each time: 0.75 % of a core for an actor that does nothing. No
setting turns it off, but a signal's Python handler runs right there, so a handler of ours sleeps there most
of the time. Calls of the actor's methods begin up to REST_S later for it.
"""

from __future__ import annotations

import signal
import threading
import time

REST_S = 0.25
# The next rest begins when Ray has looked at what came meanwhile, and looks for signals again.
_AGAIN_S = 0.003


def throttle_signal_polling() -> None:
    """Begin. From any other thread it does nothing, as only the main one may choose a signal's handler."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, _rest_once)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)


def _rest_once(*_: object) -> None:
    time.sleep(REST_S)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
