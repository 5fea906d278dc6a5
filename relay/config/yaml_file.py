"""Reads a configuration file into plain values: a safe subset of YAML, with `${NAME}` filled in.

A hostile file must not be able to hang the program, exhaust its memory or mislead its reader. So everything
is bounded, and YAML features beyond mappings, lists and scalars are refused.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from relay.errors import ConfigError
from relay.primitives.text import quoted

MAX_FILE_BYTES = 1024 * 1024
# Room for a thousand streams with overrides of their own.
MAX_NODES = 20_000
MAX_DEPTH = 12
MAX_TEXT_CHARACTERS = 4096
MAX_REFERENCES = 16
_START_HERE = "start from the shards.yaml that is shipped"
_NAME_ANOTHER = "a configuration needs a few KiB, so name another file"

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_FLOAT = re.compile(r"[-+]?\d{1,18}\.\d{0,18}")
_TAB_INDENT = re.compile(r"^ *\t[ \t]*\S", re.MULTILINE)
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class FromEnvironment(str):
    """Text that holds the value of an environment variable, so that it may be a secret; `template` is how the
    variable was referred to."""

    template: str

    def __new__(cls, text: str, template: str) -> FromEnvironment:
        made = super().__new__(cls, text)
        made.template = template
        return made


def read_file(path: Path) -> str:
    """Raises ConfigError if there is no regular UTF-8 file of a sane size."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError("", f"{path} is not a file", "name a YAML file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError("", f"there is no file {path}", "name one with -c FILE") from error
    except (OSError, ValueError) as error:
        raise ConfigError("", f"{path} cannot be read ({error})", "make it readable") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError("", f"{path} is larger than 1 MiB", _NAME_ANOTHER)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = "save it as UTF-8"
        raise ConfigError("", f"{path} is not UTF-8 text (byte {error.start})", remedy) from error


def parse_yaml(text: str) -> dict[str, Any]:
    """The mapping that `text` holds, in plain values; keys are always text."""
    _refuse_early(text)
    try:
        value = _YamlReader(text).document()
    except yaml.YAMLError as error:
        raise _syntax_error(error) from error
    if value is None:
        raise ConfigError("", "the file is empty", _START_HERE)
    if not isinstance(value, dict):
        raise ConfigError("", "the file is not a mapping of keys", _START_HERE)
    return value


def interpolate(value: Any, environ: Mapping[str, str], path: str = "") -> Any:
    """`value` with `${NAME}` and `${NAME:-default}` filled in; an empty variable takes the default too."""
    if isinstance(value, dict):
        return {key: interpolate(item, environ, below(path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, environ, f"{path}[{index}]") for index, item in enumerate(value)]
    return _fill_in(value, environ, path) if isinstance(value, str) and "${" in value else value


def below(path: str, key: str) -> str:
    """The YAML path of `key` in the mapping at `path`."""
    name = key if re.fullmatch(r"[\w-]{1,40}", key) else quoted(key, 40)
    return f"{path}.{name}" if path else name


def _fill_in(text: str, environ: Mapping[str, str], path: str) -> str:
    parts = _REFERENCE.split(text)
    if any("${" in literal for literal in parts[::3]):
        raise ConfigError(path, f"{quoted(text)} has a broken reference", "write ${NAME} or ${NAME:-default}")
    if len(parts) // 3 > MAX_REFERENCES:
        raise ConfigError(path, f"it refers to more than {MAX_REFERENCES} variables", "write fewer")
    secret = False
    for at in range(1, len(parts), 3):
        name, default = parts[at], parts[at + 1]
        found = environ.get(name)
        if found is None and default is None:
            remedy = f"set it, or write ${{{name}:-default}}"
            raise ConfigError(path, f"environment variable {name} is not set", remedy)
        secret = secret or bool(found)
        parts[at : at + 2] = (found or default or "", "")
    filled = "".join(parts)
    if len(filled) > MAX_TEXT_CHARACTERS:
        raise ConfigError(path, f"it grows beyond {MAX_TEXT_CHARACTERS} characters", "use shorter variables")
    return FromEnvironment(filled, text) if secret else filled


def _refuse_early(text: str) -> None:
    """Errors that the YAML library would find too late, too slowly, or would report with an unhelpful
    message.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError("", "the text is not UTF-8", "save it as UTF-8") from error
    if size > MAX_FILE_BYTES:
        raise ConfigError("", "the text is larger than 1 MiB", _NAME_ANOTHER)
    if tab := _TAB_INDENT.search(text):
        line = text.count("\n", 0, tab.start()) + 1
        raise ConfigError("", f"line {line} is indented with a tab", "use spaces; YAML forbids tabs there")
    if directive := _DIRECTIVE.search(text):
        line = text.count("\n", 0, directive.start()) + 1
        raise ConfigError("", f"line {line} is a YAML directive", "leave it out")


def _syntax_error(error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
    return ConfigError("", f"not valid YAML: {where}{problem}", "check indentation, colons and quotes there")


class _YamlReader:
    """Builds plain values from YAML events; raises ConfigError at the first one that is not allowed."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._nodes = 0

    def document(self) -> Any:
        value = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refusal("", event, "a second document starts", "keep one document in a file")
                value = self._value(next(self._events), "", 0)
        return value

    def _value(self, event: Any, path: str, depth: int) -> Any:
        self._check(event, path, depth)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path, depth)
        return _scalar(event)

    def _check(self, event: Any, path: str, depth: int) -> None:
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            raise _refusal(path, event, f"alias *{event.anchor}", "write the value out; aliases are not read")
        if event.tag is not None:
            raise _refusal(
                path,
                event,
                f"tag {quoted(event.tag)}",
                "leave it out; a name that begins with ! needs quotes",
            )
        if depth > MAX_DEPTH:
            raise _refusal(path[:80], event, f"nested deeper than {MAX_DEPTH} levels", "nest less")
        if self._nodes > MAX_NODES:
            raise _refusal("", event, f"more than {MAX_NODES} values", "list fewer streams")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_TEXT_CHARACTERS:
            raise _refusal(path, event, f"a text of {len(event.value)} characters", "shorten it")

    def _mapping(self, path: str, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._check(event, path, depth)
                raise _refusal(path, event, "a key that is not plain text", "write `key: value`")
            key = event.value
            self._check(event, path, depth)
            if key in values:
                again = "the key stands here a second time"
                raise _refusal(below(path, key), event, again, "remove one of the two")
            values[key] = self._value(next(self._events), below(path, key), depth + 1)
        return values

    def _sequence(self, path: str, depth: int) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, f"{path}[{len(values)}]", depth + 1))
        return values


def _scalar(event: Any) -> Any:
    """Quoted text stays text; the rest is null, a boolean, a number or text."""
    text: str = event.value
    if event.style:
        return text
    if text in _NULL:
        return None
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _refusal(path: str, event: Any, problem: str, remedy: str) -> ConfigError:
    return ConfigError(path, f"line {event.start_mark.line + 1}: {problem}", remedy)
