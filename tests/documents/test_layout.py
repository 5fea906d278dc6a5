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
    "integration/tools/test_import_rules.py": "the file .importlinter",
    "integration/tools/test_sbom.py": "a target of the Makefile",
    "unit/relay/journal/test_format.py": "the format that the package's docstring tells",
}
# The folders that each may import from, beside itself and `support`; fencing is tried on a model of NATS.
SHARED: dict[str, tuple[str, ...]] = {
    "documents": (),
    "integration": (),
    "support": (),
    "unit": ("simulation",),
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
def test_what_tests_share_is_in_support_and_no_test_module_is_imported(folder: str) -> None:
    allowed = tuple(f"tests.{name}" for name in (folder, "support", *SHARED[folder]))
    found = {
        (path.relative_to(TESTS).as_posix(), module)
        for path in (TESTS / folder).rglob("*.py")
        for module in imported(path)
        if module.startswith("tests.") and (not module.startswith(allowed) or ".test_" in module)
    }
    assert found == set()
