"""Who gives a command, as it is recorded with each change."""

from __future__ import annotations

import getpass
import os
import socket


def operator_name() -> str:
    """User and host; the user's number in a container where the user has no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"
    return f"{name} at {socket.gethostname()}"
