"""Drawing on a real terminal and elsewhere, and signals as wishes."""

from __future__ import annotations

import logging
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import driver
from cli.screen import Interrupts, Screen

ROOT = Path(driver.__file__).parent
DRAW_TWICE = """
from cli.screen import Screen
from cli.display.terminal import Tone
with Screen() as screen:
    screen.draw(["first", "second"], "plain")
    screen.draw(["third"], "plain")
    screen.print_line("done", Tone.GOOD)
"""


def on_terminal(program: str, **environ: str) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", **environ},
    ) as process:
        os.close(theirs)
        shown = b""
        while process.poll() is None or not shown:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                # Linux's word for a terminal whose other end is closed.
                break
    os.close(ours)
    return shown.decode()


def test_on_a_terminal_the_second_table_takes_the_place_of_the_first() -> None:
    shown = on_terminal(DRAW_TWICE, NO_COLOR="")
    assert shown.index("second") < shown.index("\x1b[2A") < shown.index("third")


def test_the_cursor_comes_back_at_the_end() -> None:
    shown = on_terminal(DRAW_TWICE)
    assert shown.index("\x1b[?25l") < shown.index("\x1b[?25h")


def test_colour_is_for_terminals_whose_user_wants_it() -> None:
    assert "\x1b[32mdone" in on_terminal(DRAW_TWICE, NO_COLOR="")
    assert "\x1b[32m" not in on_terminal(DRAW_TWICE, NO_COLOR="1")


def test_elsewhere_plain_lines_come_now_and_then_and_for_each_new_topic(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    for line, topic in (("one", "a"), ("two", "a"), ("three", "b")):
        screen.draw(["table"], line, topic)
    assert capsys.readouterr().out == "one\nthree\n"


def test_log_lines_go_through_the_screen_while_it_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen():
        logging.getLogger("anything").warning("trouble")
    assert capsys.readouterr() == ("trouble\n", "")


def test_one_signal_asks_and_a_second_one_hurries() -> None:
    with Interrupts() as interrupts:
        assert not interrupts.wait(0)
        signal.raise_signal(signal.SIGTERM)
        assert (interrupts.wait(0), interrupts.hurried) == (True, False)
        signal.raise_signal(signal.SIGINT)
        assert interrupts.hurried


# At the first line of Python that a wait runs, then at the second, until there is none left.
SIGNAL_AT_EVERY_LINE = """
import os, signal, sys
from cli.screen import Interrupts

moment, lines = 0, 1
while lines > moment:
    lines = 0

    def on_line(frame, event, argument):
        global lines
        if event == "line":
            lines += 1
            if lines == moment + 1:
                os.kill(os.getpid(), signal.SIGINT)
        return on_line

    with Interrupts() as interrupts:
        sys.settrace(on_line)
        interrupts.wait(0.01)
        sys.settrace(None)
        assert interrupts.stop_requested == (lines > moment), moment
    moment += 1
print(moment)
"""


def test_a_signal_at_any_moment_of_a_wait_ends_it() -> None:
    program = [sys.executable, "-c", SIGNAL_AT_EVERY_LINE]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 3


def test_only_the_second_signal_breaks_off_what_takes_long() -> None:
    with Interrupts() as interrupts, interrupts.interruptible():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_signals_mean_what_they_meant_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
