"""The documents: their commands are such that can be given, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import driver
from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8")))


def commands() -> Iterator[str]:
    """The lines of all unmarked blocks, without their comments, and what stands between backticks."""
    for page in PAGES:
        text = page.read_text("utf-8")
        blocks = "\n".join(re.findall(r"(?ms)^```\n(.*?)^```", text)).replace("\\\n", " ")
        for line in blocks.splitlines():
            yield line.partition(" #")[0].strip()
        yield from re.findall(r"`(\.venv/bin/python -m [^`]+|make [^`]+)`", text)


DRIVEN = sorted({found[1] for one in commands() if (found := re.search(r"driver\.py ([^<|'\")`]+)", one))})
MADE = sorted({found[1] for one in commands() if (found := re.search(r"^(?:\S+=\S+ )*make ([a-z-]+)", one))})
MODULES = sorted({found[1] for one in commands() if (found := re.search(r"python -m ([\w.]+)", one))})


def test_there_is_something_to_look_at() -> None:
    assert len(DRIVEN) > 15
    assert len(MADE) > 5
    assert len(MODULES) > 3


@pytest.mark.parametrize("command", DRIVEN)
def test_the_driver_takes_what_it_is_given(command: str) -> None:
    assert driver.build_parser().parse_args(shlex.split(command)).command


@pytest.mark.parametrize("target", MADE)
def test_make_knows_the_target(target: str) -> None:
    assert target in TARGETS


@pytest.mark.parametrize("module", MODULES)
def test_the_module_exists(module: str) -> None:
    assert find_spec(module) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def named_files(text: str) -> set[str]:
    """What a page names as a file or folder of the repository, such as `relay/ports.py` or `relay/feed/`."""
    folders = [path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return set(re.findall(rf"(?<![\w./~-])(?:{'|'.join(folders)})/[\w./-]*[\w/]", text))


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "bench" / "README.md"], ids=lambda page: page.name
)
def test_named_files_exist(page: Path) -> None:
    text = re.sub(r"https?://\S+", "", page.read_text("utf-8"))
    made = {"k8s/grafana/ray-default.json"}  # by `make generated`, and not kept
    assert [name for name in sorted(named_files(text) - made) if not (ROOT / name).exists()] == []


def test_the_architecture_names_every_package() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    folders = [file.parent for top in ("relay", "actors") for file in (ROOT / top).glob("*/__init__.py")]
    for folder in [*folders, *(ROOT / name for name in ("cli", "simulator", "bench", "tools"))]:
        assert f"| `{folder.relative_to(ROOT)}/`" in table or f", `{folder.name}/`" in table, folder
