"""What an API server checks of a custom resource: its structure, with unknown fields refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}


def faults(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """In words, each with its path; `schema` is an `openAPIV3Schema` or a part of one."""
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if type(value) not in (int, str):
            yield f"{path}: neither a number nor text"
            return
    elif "type" in schema and not _is(value, schema["type"]):
        yield f"{path}: not of type {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is not one of {schema['enum']}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{path}: too short"
    if isinstance(value, str) and len(value) > schema.get("maxLength", len(value)):
        yield f"{path}: too long"
    if isinstance(value, int) and value < schema.get("minimum", value):
        yield f"{path}: {value} is below {schema['minimum']}"
    if isinstance(value, dict):
        yield from _object(schema, value, path)
    if isinstance(value, list):
        yield from _list(schema, value, path)


def _is(value: Any, name: str) -> bool:
    expected = _TYPES[name]
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def _object(schema: dict[str, Any], value: dict[str, Any], path: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name}: missing"
    for name, item in value.items():
        if name in known:
            yield from faults(known[name], item, f"{path}.{name}")
        elif isinstance(others, dict):
            yield from faults(others, item, f"{path}.{name}")
        # A resource's own metadata is Kubernetes' business and in no CRD.
        elif not (others or schema.get("x-kubernetes-preserve-unknown-fields") or path == ".metadata"):
            yield f"{path}.{name}: unknown"


def _list(schema: dict[str, Any], value: list[Any], path: str) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0):
        yield f"{path}: too few"
    for at, item in enumerate(value):
        yield from faults(schema["items"], item, f"{path}[{at}]")
    keys = schema.get("x-kubernetes-list-map-keys", ())
    named = [tuple(item.get(key) for key in keys) for item in value] if keys else []
    if len(set(named)) < len(named):
        yield f"{path}: two items with the same {', '.join(keys)}"
