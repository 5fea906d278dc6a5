"""Shell completion of the command line: shtab generates it from the parser, and this module adapts it."""

from __future__ import annotations

import argparse

import shtab

# The file itself, an alias that people give it, and the interpreter in front of it.
NAMES = "driver.py sluice"
INTERPRETER = ".venv/bin/python"

# shtab's function offers options behind a dash alone. They are offered on an empty word as well, unless the
# word before is an option that takes a value: the others have a variable that says 0.
_BASH = f"""
_sluice() {{
    local before="${{COMP_WORDS[COMP_CWORD-1]}}"
    _shtab_sluice
    [[ ${{#COMPREPLY[@]}} = 0 && -z ${{COMP_WORDS[COMP_CWORD]}} ]] || return 0
    [[ $before != -* || $(compgen -v -X "!*_${{before//[^[:word:]]/_}}_nargs" _shtab_sluice) ]] || return 0
    COMP_WORDS[COMP_CWORD]=-
    _shtab_sluice
}}
_sluice_interpreter() {{
    COMPREPLY=()
    [[ $COMP_CWORD -gt 1 && ${{COMP_WORDS[1]##*/}} = driver.py ]] || return 0
    COMP_WORDS=("${{COMP_WORDS[@]:1}}") COMP_CWORD=$((COMP_CWORD - 1))
    _sluice
}}
complete -o default -F _sluice {NAMES}
complete -o bashdefault -o default -F _sluice_interpreter {INTERPRETER}
"""
_ZSH_START = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n"
_ZSH = f"""
_sluice_interpreter() {{
    if (( CURRENT > 2 )) && [[ ${{words[2]:t}} = driver.py ]]; then
        shift words
        (( CURRENT-- ))
        _shtab_sluice
    else
        ${{_comps[python]:-_default}}
    fi
}}
compdef _shtab_sluice {NAMES}
compdef _sluice_interpreter {INTERPRETER}
"""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """To be read by `shell`, bash or zsh."""
    made = shtab.complete(parser, shell, root_prefix="sluice")
    return made + _BASH if shell == "bash" else _ZSH_START + _mended_for_zsh(made) + _ZSH


def _mended_for_zsh(made: str) -> str:
    """As it comes, zsh would run what follows the colon of a metavar, and complete as soon as it reads it."""
    definitions, _, _ = made.partition("if [[ $zsh_eval_context")
    return definitions.replace("]:HOST:PORT:", r"]:HOST\:PORT:")
