"""Lets the main thread of a Ray worker sleep, instead of polling for signals 100 times a second (ADR 11).

Ray polls there (core_worker.cc, RunTaskExecutionLoop) and takes the interpreter's lock from the data plane
each time: 0.75 % of a core for an actor that does nothing. No setting turns it off. But Python runs the
handlers of signals on that very thread, so a handler of ours sleeps there for most of the time: 0.1 % of a
core. In exchange a call of an actor's method begins up to REST_S later, and SIGALRM is ours.
"""

from __future__ import annotations

import signal
import threading
import time

REST_S = 0.25
# Between two sleeps Ray starts the calls that arrived; the next handler runs when Ray polls again.
_PAUSE_S = 0.003


def throttle_signal_polling() -> None:
    """Does nothing on any thread but the main one: Python sets signal handlers only there."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, _sleep_once)
        signal.setitimer(signal.ITIMER_REAL, _PAUSE_S)


def _sleep_once(*_: object) -> None:
    time.sleep(REST_S)
    signal.setitimer(signal.ITIMER_REAL, _PAUSE_S)
