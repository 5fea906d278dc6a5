"""Shell completion, asked of the real shells."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import pytest

import driver
from cli.completion import script

# Sets what the shell would set when somebody presses Tab behind the given words.
PRESS_TAB = """
{script}
COMP_WORDS=({words}) COMP_CWORD={at}
_sluice
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def offered(*words: str) -> Sequence[str]:
    text = PRESS_TAB.format(
        script=script(driver.build_parser(), "bash"),
        words=" ".join(f"'{word}'" for word in ("driver.py", *words)),
        at=len(words),
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
        (["completion", ""], ["bash", "zsh", "--help"]),
        (["apply", "-c", ""], []),
        (["status", "--x"], []),
    ],
)
def test_a_commands_options_and_choices_are_offered(words: list[str], found: list[str]) -> None:
    assert offered(*words) == found


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed here")
def test_zsh_reads_its_script() -> None:
    text = script(driver.build_parser(), "zsh")
    done = subprocess.run(["zsh", "-fc", text], capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, "")
