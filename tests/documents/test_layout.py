"""Where tests are: beside which module, and which kinds of tests may use each other's code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
MIRRORED = {
    path.relative_to(TESTS).as_posix(): path.relative_to(TESTS / kind)
    for kind in ("unit", "integration")
    for path in sorted((TESTS / kind).rglob("test_*.py"))
}
# No module alone has what they test.
OF_MANY_MODULES = {
    "integration/actors/controller/test_page_browser.py": "the page that page_server.py serves, in a browser",
    "integration/cli/test_commands.py": "each command as a process",
    "integration/test_relay.py": "stream and publisher actors together",
    "integration/tools/test_audit_deps.py": "a target of the Makefile",
}
# Which folders of the tests each may import from.
SHARED = {
    "documents": {"support"},
    "integration": {"support"},
    "support": {"support"},
    # Fencing is tried on the simulation's model of NATS.
    "unit": {"support", "simulation"},
}


@pytest.mark.parametrize("name", sorted(MIRRORED.keys() - OF_MANY_MODULES.keys()))
def test_a_test_file_is_named_after_the_module_that_it_tests(name: str) -> None:
    mirror = MIRRORED[name]
    module = ROOT / mirror.parent / mirror.name.removeprefix("test_")
    assert module.exists() or (module.with_suffix("") / "__init__.py").exists()


def test_every_exception_is_a_file() -> None:
    assert OF_MANY_MODULES.keys() <= MIRRORED.keys()


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield f"{node.module}"
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("folder", SHARED)
def test_helpers_of_tests_are_in_one_folder(folder: str) -> None:
    found = {
        (path.relative_to(TESTS).as_posix(), module)
        for path in (TESTS / folder).rglob("*.py")
        for module in imported(path)
        if module.startswith("tests.") and module.split(".")[1] not in SHARED[folder]
    }
    assert found == set()
