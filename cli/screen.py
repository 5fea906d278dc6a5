"""Output of a running command: a table drawn in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Self

from cli.display.status import MAX_WIDTH
from cli.display.terminal import Tone, paint

PLAIN_EVERY_S = 5.0
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """SIGINT, SIGTERM and SIGHUP as requests to stop: `stop_requested` after one, `hurried` after two.

    For the main thread only. A signal handler interrupts the main thread anywhere, so it must not take a lock
    that `wait` holds, such as an Event's; `SimpleQueue.put` is reentrant.
    """

    def __init__(self) -> None:
        self._signals = SimpleQueue[int]()
        self._count = 0
        self._interruptible = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def stop_requested(self) -> bool:
        return self._count > 0

    @property
    def hurried(self) -> bool:
        return self._count > 1

    def wait(self, seconds: float) -> bool:
        """Whether a stop is requested by now or within `seconds`."""
        if not self.stop_requested:
            with suppress(Empty):
                self._signals.get(timeout=max(0.0, seconds))
        return self.stop_requested

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A second signal raises KeyboardInterrupt inside: for calls that take long and clean up by
        themselves.
        """
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        self._signals.put(number)
        if self._interruptible and self.hurried:
            raise KeyboardInterrupt


class _LogLines(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.print_line(record.getMessage(), Tone.WARN)


class Screen:
    """stdout. `draw` replaces what it drew before, `print_line` stays; leaving restores the terminal."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.colour = self.live and not os.environ.get("NO_COLOR")
        self._drawn = 0
        self._hidden = False
        self._topic = ""
        self._plain_at = float("-inf")
        self._lock = threading.RLock()
        self._log = _LogLines(self)
        self._other_logs: list[logging.Handler] = []

    def __enter__(self) -> Self:
        """From now on log lines are printed here as well, so that they do not garble the table."""
        self._other_logs, logging.root.handlers = logging.root.handlers, [self._log]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.root.handlers = self._other_logs
        if self._hidden:
            self._write(_SHOW_CURSOR)

    @property
    def width(self) -> int:
        return min(MAX_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns)

    def print_line(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        with self._lock:
            self._erase()
            self._write(paint(text, tone, colour=self.colour) + "\n")

    def draw(self, lines: Sequence[str], plain: str, topic: str = "") -> None:
        """`lines` on a terminal, as many as fit; elsewhere `plain`, every 5 s and for each new `topic`."""
        if self.live:
            shown = lines[: shutil.get_terminal_size().lines - 1]
            with self._lock:
                self._erase()
                self._write("" if self._hidden else _HIDE_CURSOR)
                self._hidden = True
                self._write("".join(f"{line}{_CLEAR_LINE}\n" for line in shown))
                self._drawn = len(shown)
        elif topic != self._topic or time.monotonic() - self._plain_at >= PLAIN_EVERY_S:
            self._topic, self._plain_at = topic, time.monotonic()
            self._write(f"{plain}\n")

    def _erase(self) -> None:
        if self._drawn:
            self._write(f"\x1b[{self._drawn}A\r{_CLEAR_BELOW}")
            self._drawn = 0

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
