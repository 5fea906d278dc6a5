"""What a command shows while it runs: a table drawn in place on a terminal, plain lines elsewhere."""

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
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Signals as a wish to end: `asked` is the first, `hurried` a second. For the main thread alone.

    A handler runs in the midst of whatever the main thread does, so it must take no lock that a wait holds,
    such as an Event's. The `put` of a SimpleQueue is made to be called there.
    """

    def __init__(self) -> None:
        self._signals = SimpleQueue[int]()
        self._count = 0
        self._breakable = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _ENDS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        return self._count > 0

    @property
    def hurried(self) -> bool:
        return self._count > 1

    def wait(self, seconds: float) -> bool:
        """Whether somebody asked to end, by now or within `seconds`."""
        if not self.asked:
            with suppress(Empty):
                self._signals.get(timeout=max(0.0, seconds))
        return self.asked

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """A second signal raises KeyboardInterrupt inside: for what takes long and ends cleanly by itself."""
        self._breakable = True
        try:
            yield
        finally:
            self._breakable = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        self._signals.put(number)
        if self._breakable and self.hurried:
            raise KeyboardInterrupt


class _LogLines(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(record.getMessage(), Tone.WARN)


class Screen:
    """stdout. `draw` replaces what it drew before, `say` stays; leaving puts the terminal back in order."""

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
        """From now on log lines go through here as well, so that they do not tear the table."""
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

    def say(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        with self._lock:
            self._erase()
            self._write(paint(text, tone, colour=self.colour) + "\n")

    def draw(self, lines: Sequence[str], plain: str, topic: str = "") -> None:
        """`lines` on a terminal, as many as fit; elsewhere `plain`, now and then and for each new `topic`."""
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
