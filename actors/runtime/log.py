"""What an actor logs: lines of text on stderr, which Ray keeps in the file that its actor page shows.

An actor logs its status every ten seconds, each change of state, and each problem, as often as
relay/primitives/log_rate_limit.py allows.
"""

from __future__ import annotations

import logging
import time
from typing import TextIO

from relay.primitives.log_rate_limit import LogRateLimiter

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Limits the rate of lines from each place in the code. Before its next line of any place it logs how
    many lines were left out."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(logging.Formatter(FORMAT))
        self._limit = LogRateLimiter[logging.LogRecord]()

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        now = time.monotonic()
        for last, count in self._limit.expired(now):
            last.msg = f"{last.getMessage()} (the last of {count} like this that are left out)"
            last.args = None
            super().emit(last)
        if self._limit.allows((record.pathname, record.lineno), record, now):
            super().emit(record)
