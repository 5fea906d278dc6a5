"""What a test needs of the machine, beyond the locked requirements: programs, and what only root may do.

Where it is missing the test is skipped, and the reason says what to install. SLUICE_TESTS_HAVE (`programs`,
`rights` or both) says that all of the kind is there, so that its absence is a failure: `.ci/run` sets it.

`python -m tests.support.needs` prints the Debian packages of the programs that are missing here.
"""

from __future__ import annotations

import os
import shutil
from typing import Literal

import pytest

PACKAGES = {
    "chromium": "chromium",
    "ip": "iproute2",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "ss": "iproute2",
    "zsh": "zsh",
}
# Not of Debian 12: its kubectl is of 2020 and refuses the `options` of our kustomizations.
ELSEWHERE = {"kubectl": "kubectl is not installed (kubernetes.io, Install Tools)"}
NAMES = {"chromium": ("chromium", "chromium-browser", "google-chrome")}
PROMISED = os.environ.get("SLUICE_TESTS_HAVE", "").split()


def find(program: str) -> str | None:
    return next(filter(None, map(shutil.which, NAMES.get(program, (program,)))), None)


def program(name: str) -> str:
    """Its path; skips the test where it is not installed."""
    if path := find(name):
        return path
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    lack("programs", f"{name} is not installed (`apt-get install {PACKAGES[name]}`)")
    raise AssertionError


def root() -> None:
    if os.getuid() != 0:
        lack("rights", "only root can try as another user")


def lack(kind: Literal["programs", "rights"], reason: str) -> None:
    """Ends the test: skipped, or failed where all of the kind was said to be there."""
    if kind in PROMISED:
        pytest.fail(f"SLUICE_TESTS_HAVE={' '.join(PROMISED)}, but {reason}", pytrace=False)
    pytest.skip(reason)


def missing_packages() -> list[str]:
    return sorted({package for name, package in PACKAGES.items() if find(name) is None})


if __name__ == "__main__":
    print(*missing_packages())
