"""`status` and `top`: the status of the running relay, once or live."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager

from cli.connect import join_relay
from cli.display.status import render, summary_line
from cli.display.status_notes import status_notes
from cli.screen import Interrupts, Screen
from relay.observability.status_json import encoded

TOP_EVERY_S = 1.0


def status(args: Namespace) -> int:
    with closing(join_relay(args.address)) as cluster:
        found = cluster.status()
    if args.json:
        print(encoded(found).decode())
    else:
        screen = Screen()
        print("\n".join(render(found, width=screen.width, colour=screen.colour)))
        print("\n".join(["", *status_notes(found)]))
    return 0


def top(args: Namespace) -> int:
    with (
        closing(join_relay(args.address)) as cluster,
        Interrupts() as interrupts,
        _single_keys() as keyboard,
        Screen() as screen,
    ):
        while True:
            found = cluster.status()
            lines = render(found, width=screen.width, colour=screen.colour)
            screen.draw(lines, summary_line(found))
            if _ended(interrupts, keyboard):
                return 0


def _ended(interrupts: Interrupts, keyboard: int | None) -> bool:
    if keyboard is None:
        return interrupts.wait(TOP_EVERY_S)
    pressed, _, _ = select.select([keyboard], [], [], TOP_EVERY_S)
    return interrupts.stop_requested or bool(pressed and os.read(keyboard, 64) in (b"q", b"Q", b""))


@contextmanager
def _single_keys() -> Iterator[int | None]:
    """stdin's descriptor, with each key available at once and not echoed; None if it is no terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield keyboard
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
