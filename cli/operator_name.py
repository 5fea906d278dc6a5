"""Who gives a command, as it is kept with what they changed."""

from __future__ import annotations

import getpass
import os
import socket


def operator_name() -> str:
    """In a container the user may have no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"user {os.getuid()}"
    return f"{name} at {socket.gethostname()}"
