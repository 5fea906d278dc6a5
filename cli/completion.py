"""Shell completion from the parser of the command line: pure.

One script serves both shells: zsh runs bash's completions through its own `bashcompinit`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

# What the script answers to: the file itself, and an alias that people give it.
NAMES = ("driver.py", "sluice")
_ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
_SCRIPT = """\
_sluice() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" command="" words="" at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "${{COMP_WORDS[at]}}" in
            {commands}) command="${{COMP_WORDS[at]}}"; break ;;
        esac
    done
    case "$command $before" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _sluice {names}
"""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """To be read by `shell`, bash or zsh. Where nothing is known, both offer files."""
    commands = _commands(parser)
    cases = [case for name, one in commands.items() for case in _value_cases(name, one)]
    cases.append(f'" "*) words="{" ".join([*commands, *_flags(parser)])}" ;;')
    for name, one in commands.items():
        cases.append(f'"{name} "*) words="{" ".join([*_positionals(one), *_flags(one)])}" ;;')
    text = _SCRIPT.format(
        commands="|".join(commands),
        cases="\n".join(f"        {case}" for case in cases),
        names=" ".join(NAMES),
    )
    return _ZSH + text if shell == "zsh" else text


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    # argparse has no public way to look at what was added.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _shown(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    return (action for action in parser._actions if action.help != argparse.SUPPRESS)


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in _shown(parser) for name in action.option_strings if name.startswith("--")]


def _positionals(parser: argparse.ArgumentParser) -> list[str]:
    """Words that may stand there: choices, and what a metavar such as `N|auto` writes in lower case."""
    found: list[str] = []
    for action in _shown(parser):
        if not action.option_strings:
            found += map(str, action.choices or [])
            found += [word for word in str(action.metavar or "").split("|") if word.islower()]
    return found


def _value_cases(command: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """After an option that takes a value: its choices, or nothing, which lets the shell offer files."""
    for action in _shown(parser):
        if action.option_strings and action.nargs != 0:
            pattern = "|".join(f'"{command} {name}"' for name in action.option_strings)
            choices = " ".join(map(str, action.choices or ()))
            yield f'{pattern}) words="{choices}" ;;'
