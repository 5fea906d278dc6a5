"""Replacing a file as a whole. Does file I/O, on small state files that several pure rules share."""

from __future__ import annotations

from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """A process that is killed at any moment leaves the old content or the new one; raises OSError.

    Nothing is synced to disk, so a crash of the machine may lose the change. The new content is first written
    next to the file, with the suffix `.new`, which two writers at once would share.
    """
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)
