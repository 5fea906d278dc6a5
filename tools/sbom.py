"""A CycloneDX bill of materials from the lock: `python -m tools.sbom [LOCK...] > sluice.cdx.json`.

The same lock gives the same bytes. Each component lists the SHA-256 of every file that the lock allows for
it, of which an installation holds one. Format: cyclonedx.org/docs/1.6/json.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME, LOCKS = "sluice", ("requirements.txt",)
_PACKAGE = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"^    # (?:via )?\s*(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Locked:
    """`needed_by` holds names of packages, and `-r FILE` for what a file of requirements names."""

    name: str
    version: str
    hashes: tuple[str, ...]
    needed_by: tuple[str, ...]

    @property
    def purl(self) -> str:
        return f"pkg:pypi/{self.name.lower()}@{self.version}"


def read_lock(text: str) -> Iterator[Locked]:
    """As pip-compile writes it: a package, its hashes, and who needs it."""
    starts = [*_PACKAGE.finditer(text)]
    for at, start in enumerate(starts):
        end = starts[at + 1].start() if at + 1 < len(starts) else len(text)
        block = text[start.end() : end]
        needed_by = tuple(name for name in _VIA.findall(block) if name != "via")
        yield Locked(start[1], start[2], tuple(_HASH.findall(block)), needed_by)


def bill(locked: Sequence[Locked], version: str) -> dict[str, Any]:
    """The document. Its serial number depends on nothing but what is locked."""
    root = f"pkg:generic/{NAME}@{version}"
    known = {one.name: one.purl for one in locked}
    needs: dict[str, list[str]] = {root: [], **{one.purl: [] for one in locked}}
    for one in locked:
        for name in one.needed_by:
            needs[known.get(name, root)].append(one.purl)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, root + "".join(sorted(needs)))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": root, "name": NAME, "version": version},
        },
        "components": [_component(one) for one in locked],
        "dependencies": [{"ref": ref, "dependsOn": sorted(on)} for ref, on in needs.items()],
    }


def _component(one: Locked) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": one.purl,
        "name": one.name,
        "version": one.version,
        "purl": one.purl,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in one.hashes],
    }


def main(paths: Sequence[str]) -> int:
    here = Path(__file__).resolve().parent.parent
    found = {one.name: one for path in paths or LOCKS for one in read_lock((here / path).read_text())}
    version = re.search(r'^version = "([^"]+)"', (here / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    json.dump(bill([found[name] for name in sorted(found)], version[1]), sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
