"""Turns pydantic's findings into one sentence with a YAML path and a remedy; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from relay.config.yaml_file import below
from relay.errors import ConfigError, InvalidValueError
from relay.primitives.text import quoted


def explain(error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """The first finding, or the first unknown key if there is one, because it usually causes the others."""
    findings = error.errors(include_url=False)
    first = min(findings, key=lambda finding: finding["type"] != "extra_forbidden")
    loc = first["loc"]
    problem, remedy = _describe(first, _model_at(model, loc[:-1]))
    return ConfigError(_path(loc), problem, remedy)


def renamed(error: ConfigError, origins: Mapping[str, str]) -> ConfigError:
    """The same error, under the name of the environment variable that the value came from."""
    for path, name in origins.items():
        if error.path == path or error.path.startswith((f"{path}.", f"{path}[")):
            return ConfigError(name, error.problem, error.remedy)
    return error


def _path(loc: tuple[int | str, ...]) -> str:
    path = ""
    for part in loc:
        path = f"{path}[{part}]" if isinstance(part, int) else below(path, part)
    return path


def _describe(finding: Any, model: type[BaseModel]) -> tuple[str, str]:
    value, loc = finding["input"], finding["loc"]
    cause = finding.get("ctx", {}).get("error")
    if isinstance(cause, InvalidValueError):
        return cause.error.problem, cause.error.remedy
    match finding["type"]:
        case "extra_forbidden":
            return "unknown key", _nearest(str(loc[-1]), model)
        case "missing":
            return "it is missing", "add it"
        case "enum":
            return f"{quoted(value)} is not a choice", f"write {finding['ctx']['expected']}"
        case "string_type":
            return f"{quoted(value)} is not text", "put it in quotes"
        case "bool_type" | "bool_parsing":
            return f"{quoted(value)} is neither true nor false", "write true or false"
        case "tuple_type":
            return f"{quoted(value)} is not a list", "write its items in [ ], with commas"
        case "model_type":
            return f"{quoted(value)} is not a mapping of keys", "indent its keys below it"
        case _:
            return f"{quoted(value)} is refused: {finding['msg']}", "see the reference of the configuration"


def _nearest(key: str, model: type[BaseModel]) -> str:
    """A suggestion: the key that was probably meant, or the section that has this key."""
    close = get_close_matches(key[:40], model.model_fields, n=1)
    if close:
        return f"write {close[0]}"
    homes = [name for name, inner in _sections(model) if key in inner.model_fields]
    if homes:
        return f"write it below {homes[0]}"
    return f"the keys here are {', '.join(model.model_fields)}"


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for candidate in (field.annotation, *get_args(field.annotation)):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield name, candidate


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    for part in loc:
        model = dict(_sections(model)).get(str(part), model)
    return model
