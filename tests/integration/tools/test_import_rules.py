"""The import rules of `.importlinter`: the tree keeps them, and each one notices what breaks it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("actors", "bench", "cli", "relay", "simulator", "tools")
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def lint(directory: Path, *options: str) -> tuple[int, str]:
    """The exit code, and what was written, for the packages below `directory`."""
    done = subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    """All that the rules are about, free to be changed."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_tree_keeps_every_rule() -> None:
    code, report = lint(ROOT)
    assert code == 0, report


@pytest.mark.parametrize(
    ("contract", "module", "imported"),
    [
        ("houses", "relay.errors", "actors.client"),
        ("houses", "actors.client", "cli.status"),
        ("relay", "relay.model.stats", "relay.delivery.window"),
        ("relay", "relay.journal.journal", "relay.publish.chain"),
        ("actors", "actors.cluster", "actors.client"),
        ("simulator", "simulator.arguments", "relay.config"),
    ],
)
def test_an_import_against_a_rule_is_named(
    copied_tree: Path, contract: str, module: str, imported: str
) -> None:
    path = copied_tree.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    path.write_text(f"{path.read_text('utf-8')}\nimport {imported}\n", "utf-8")
    code, report = lint(copied_tree, "--contract", contract)
    assert code == 1, report
    assert f"{module} -> {imported} " in report


@pytest.mark.parametrize("container", ["relay", "actors"])
def test_a_package_without_a_layer_is_named(copied_tree: Path, container: str) -> None:
    (copied_tree / container / "planted.py").touch()
    code, report = lint(copied_tree, "--contract", container)
    assert code == 1, report
    assert f"{container}.planted" in report.replace("\n", "")
