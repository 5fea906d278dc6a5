"""The machine that the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from bench.report import Machine
from relay.adapters.local.nats_server import find_binary


def this_machine() -> Machine:
    version = subprocess.run(
        [find_binary(os.environ), "--version"], capture_output=True, text=True, check=True
    )
    return Machine(
        cpu=_field("/proc/cpuinfo", "model name") or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        nats_server=version.stdout.split()[-1],
    )


def _field(path: str, name: str) -> str:
    """The first `name : value` of the file; empty if there is none."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return " ".join(value.split())
    return ""
