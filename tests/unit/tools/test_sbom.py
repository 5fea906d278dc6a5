"""The bill of materials says what the lock says."""

from __future__ import annotations

import json
import re

from tests.support.paths import ROOT
from tools.sbom import bill, main, read_lock

LOCK = f"""
aiohttp==3.1 \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"b" * 64}
    # via ray
ray[default]==2.60.0 \\
    --hash=sha256:{"c" * 64}
    # via -r requirements.in
"""
NESTED = f"""
yarl==1 \\
    --hash=sha256:{"d" * 64}
    # via
    #   aiohttp
    #   ray
"""


def test_packages_hashes_and_who_needs_them_are_read():
    aiohttp, yarl = next(read_lock(LOCK)), next(read_lock(NESTED))
    assert (aiohttp.purl, aiohttp.hashes, aiohttp.needed_by) == (
        "pkg:pypi/aiohttp@3.1",
        ("a" * 64, "b" * 64),
        ("ray",),
    )
    assert yarl.needed_by == ("aiohttp", "ray")


def test_every_locked_package_is_a_component_with_its_hashes(capsys):
    assert main([]) == 0
    document = json.loads(capsys.readouterr().out)
    lock = (ROOT / "requirements.txt").read_text()
    components = {one["name"]: one for one in document["components"]}
    assert {f"{name}=={one['version']}" for name, one in components.items()} == set(
        re.findall(r"^[a-z0-9][^ ]*==[^ ]+", lock, re.MULTILINE)
    )
    assert sum(len(one["hashes"]) for one in components.values()) == lock.count("--hash=")
    refs = {one["bom-ref"] for one in components.values()} | {document["metadata"]["component"]["bom-ref"]}
    assert {one["ref"] for one in document["dependencies"]} == refs
    assert all(set(one["dependsOn"]) <= refs for one in document["dependencies"])


def test_what_we_name_ourselves_hangs_from_the_root_and_the_rest_below():
    locked = [*read_lock(LOCK), *read_lock(NESTED)]
    needs = {one["ref"]: one["dependsOn"] for one in bill(locked, "1.0")["dependencies"]}
    assert needs == {
        "pkg:generic/sluice@1.0": ["pkg:pypi/ray@2.60.0"],
        "pkg:pypi/ray@2.60.0": ["pkg:pypi/aiohttp@3.1", "pkg:pypi/yarl@1"],
        "pkg:pypi/aiohttp@3.1": ["pkg:pypi/yarl@1"],
        "pkg:pypi/yarl@1": [],
    }
