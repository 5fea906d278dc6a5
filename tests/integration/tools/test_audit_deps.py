"""What is locked, against what is known of it, wherever a service that knows can be asked."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.paths import ROOT

# By pip where there is no index, and by pip-audit where its service does not answer or knows nothing at all.
CANNOT_ASK = ("No matching distribution", "could not be audited", "ConnectionError")


@pytest.mark.long
@pytest.mark.timeout(240)
def test_nothing_that_is_locked_has_a_known_vulnerability() -> None:
    done = subprocess.run(
        ["make", "audit-deps"], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    said = done.stdout + done.stderr
    if done.returncode and any(words in said for words in CANNOT_ASK):
        pytest.skip("no vulnerability service can be asked from here")
    assert done.returncode == 0, said
