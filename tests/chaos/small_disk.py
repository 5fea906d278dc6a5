"""A file system of a few megabytes, for disks that get full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import needs


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    """Skips the test where this user may mount nothing."""
    directory.mkdir()
    if _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)):
        needs.lack("rights", "a small disk takes the right to mount one (root)")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=False)


def enlarge(directory: Path, size: str) -> None:
    assert _mount("-o", f"remount,size={size}", str(directory)) == 0


def free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode
