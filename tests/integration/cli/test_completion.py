"""Shell completion, asked of the real shells."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

import driver
from cli.completion import INTERPRETER, script
from tests.support.paths import ROOT

# Sets what the shell would set when somebody presses Tab behind the given words.
PRESS_TAB = """
{script}
COMP_WORDS=({words}) COMP_CWORD={at}
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def offered(*words: str) -> Sequence[str]:
    return completions("_sluice", "driver.py", *words)


def offered_to_python(*words: str) -> Sequence[str]:
    return completions("_sluice_interpreter", INTERPRETER, *words)


def completions(function: str, *words: str) -> Sequence[str]:
    """What the function offers when Tab is pressed at the end of the last word."""
    text = PRESS_TAB.format(
        script=script(driver.build_parser(), "bash"),
        function=function,
        words=" ".join(f"'{word}'" for word in words),
        at=len(words) - 1,
    )
    done = subprocess.run(["bash", "-uc", text], capture_output=True, text=True, timeout=10, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_every_command_is_offered_first() -> None:
    assert set(driver.COMMANDS) <= set(offered(""))
    assert offered("st") == ["status"]
    assert offered("--debug", "st") == ["status"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["apply", "--d"], ["--dry-run", "--deadline"]),
        (["scale", "a"], ["auto"]),
        (["exchange", "--venue", ""], ["spot", "usdm", "coinm"]),
        (["completion", ""], ["bash", "zsh"]),
        (["completion", "--"], ["--help"]),
        (["top", ""], ["-h", "--help", "--address"]),
        (["top", "--address", ""], []),
        (["down", "--deadline", "5", ""], ["-h", "--help", "--address", "--deadline"]),
        (["status", "--json", ""], ["-h", "--help", "--address", "--json"]),
        (["drain", "publisher", "--d"], ["--deadline"]),
        (["apply", "-c", ""], []),
        (["status", "--x"], []),
    ],
)
def test_a_commands_options_and_choices_are_offered(words: list[str], found: list[str]) -> None:
    assert offered(*words) == found


@pytest.mark.parametrize("command", ["driver.py", "./driver.py", "/srv/sluice/driver.py"])
def test_the_interpreter_completes_the_command_that_it_runs(command: str) -> None:
    assert offered_to_python(command, "st") == ["status"]
    assert offered_to_python(command, "scale", "a") == ["auto"]


@pytest.mark.parametrize("words", [["dri"], ["driver.py"], ["-m", "st"], ["other.py", "st"]])
def test_the_interpreter_leaves_everything_else_to_the_shell(words: list[str]) -> None:
    assert offered_to_python(*words) == []


@pytest.mark.parametrize("name", ["driver.py", "sluice", ".venv/bin/python"])
def test_bash_binds_what_people_type(name: str) -> None:
    text = f"{script(driver.build_parser(), 'bash')}\ncomplete -p {name}"
    done = subprocess.run(["bash", "-uc", text], capture_output=True, text=True, timeout=10, check=True)
    assert "-o default -F _sluice" in done.stdout


def test_nothing_but_completion_imports_shtab() -> None:
    code = "import sys, driver, cli.status; driver.build_parser(); sys.exit('shtab' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=True)


def test_every_colon_of_a_metavar_is_escaped_for_zsh() -> None:
    text = script(driver.build_parser(), "zsh")
    assert r":HOST\:PORT:" in text
    assert not re.findall(r"\]:[^:]*[^:\\]:[A-Z]+:", text)


@pytest.mark.needs("zsh")
def test_zsh_reads_its_script() -> None:
    text = script(driver.build_parser(), "zsh")
    done = subprocess.run(["zsh", "-fc", text], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, "")
