"""What an actor logs: lines of text in the file that Ray's actor page shows.

A status line every ten seconds, a line for each change of state, and one for each trouble, as often as
relay/primitives/log_rate_limit.py lets it.
"""

from __future__ import annotations

import logging
import time
from typing import TextIO

from relay.primitives.log_rate_limit import LogRateLimiter

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Says how much it left out of one place before the next line of any."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(logging.Formatter(FORMAT))
        self._limit = LogRateLimiter[logging.LogRecord]()

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        now = time.monotonic()
        for last, count in self._limit.over(now):
            last.msg = f"{last.getMessage()} (the last of {count} like this that are left out)"
            last.args = None
            super().emit(last)
        if self._limit.allows((record.pathname, record.lineno), record, now):
            super().emit(record)
