"""Numbers, sizes, durations, paths and secrets of the configuration, as pydantic types.

A size is a number of bytes, or takes B, KB, MB, GB (powers of 1000), KiB, MiB or GiB (powers of 1024). A
duration, under a key in `_s`, is a number of seconds, or takes ms, s, m, h or d.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, PlainValidator, ValidationInfo

from relay.config.listen_address import parse_listen, parse_name
from relay.config.secret import Part, Secret, is_written_out
from relay.config.subjects import parse_template
from relay.config.urls import parse_exchange_url, parse_rest_url, parse_server
from relay.config.yaml_file import FromEnvironment
from relay.errors import ConfigError, InvalidValueError
from relay.primitives.text import quoted

MAX_SIZE_BYTES = 2**50
MAX_COUNT = 10**9
MAX_DURATION_S = 3650 * 86400
_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_NODE_LABEL = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_NUMBER_AND_UNIT = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)


def _to_secret(value: Any, info: ValidationInfo) -> Secret:
    if isinstance(value, Secret):
        return value
    if isinstance(value, FromEnvironment) and not is_written_out(value.template):
        return Secret(value.template)
    if info.mode == "json" and isinstance(value, dict):
        return Secret(str(value["template"]), Part(value["part"]))
    key = info.field_name or "secret"
    remedy = f"take it from the environment, as ${{NATS_{key.upper()}}}, or use {key}_file"
    raise InvalidValueError(ConfigError("", "a secret may not stand in the file", remedy))


def parse_count(value: object) -> int:
    number = _whole_number(value)
    if number is None:
        raise ConfigError("", f"{quoted(value)} is not a whole number", "write one, such as 5000")
    if not 1 <= number <= MAX_COUNT:
        raise ConfigError("", f"{number} is out of range", f"write a number from 1 to {MAX_COUNT}")
    return number


def parse_size(value: object) -> int:
    number = _measure(value, _SIZES)
    if number is None or number != int(number):
        remedy = "write a number of bytes, or a size such as 16MiB, 1GiB or 500KB"
        raise ConfigError("", f"{quoted(value)} is not a size", remedy)
    if not 1 <= number <= MAX_SIZE_BYTES:
        raise ConfigError("", f"{quoted(value)} is out of range", "write a size above 0, such as 16MiB")
    return int(number)


def parse_duration(value: object) -> float:
    seconds = _measure(value, _SECONDS)
    if seconds is None:
        remedy = "write a number of seconds, or a duration such as 120s, 10m or 24h"
        raise ConfigError("", f"{quoted(value)} is not a duration", remedy)
    if not 0 < seconds <= MAX_DURATION_S:
        raise ConfigError(
            "", f"{quoted(value)} is out of range", "write a duration above 0, such as 120s or 24h"
        )
    return float(seconds)


def parse_silence_limit(value: object) -> float | None:
    """None leaves the limit to the stream's kind; 0, written `off`, means no limit."""
    if value is None:
        return None
    return 0.0 if value in (False, "off") else parse_duration(value)


def parse_cores(value: object) -> float:
    number = _measure(value, {"": 1})
    if number is None or not 0 <= number <= 1024:
        raise ConfigError("", f"{quoted(value)} is not a number of CPU cores", "write one, such as 0.1")
    return float(number)


def parse_scale(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if _whole_number(value) is None:
        raise ConfigError(
            "", f"{quoted(value)} is neither auto nor a number", "write auto, or how many publishers"
        )
    return parse_count(value)


def parse_node_label(value: object) -> str | None:
    """Ray allows the same label values as Kubernetes; None stands for any node."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _NODE_LABEL.fullmatch(value):
        remedy = "write the nodes' label `sluice`, such as streams, or leave it out"
        raise ConfigError("", f"{quoted(value)} is no value of a node's label", remedy)
    return value


def parse_absolute_path(value: object) -> Path:
    """Actors run in folders of their own, so each would resolve a relative path differently."""
    path = Path(value) if isinstance(value, str | Path) else Path()
    if not path.is_absolute() or ".." in path.parts or not str(path).isprintable():
        raise ConfigError("", f"{quoted(str(value))} is not a full path", "begin it with / and leave .. out")
    return path


def _whole_number(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value, re.ASCII):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _measure(value: object, units: Mapping[str, float]) -> float | None:
    """The number times its unit; None if it is neither a number nor a number with one of `units`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return None if isinstance(value, float) and not math.isfinite(value) else value
    found = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    unit = units.get(found[2].lower()) if found else None
    if found is None or unit is None:
        return None
    return (float(found[1]) if "." in found[1] else int(found[1])) * unit


def _parsed_by(parse: Callable[[object], Any]) -> PlainValidator:
    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except ConfigError as error:
            raise InvalidValueError(error) from error

    return PlainValidator(validate)


Count = Annotated[int, _parsed_by(parse_count)]
Size = Annotated[int, _parsed_by(parse_size)]
Duration = Annotated[float, _parsed_by(parse_duration)]
SilenceLimit = Annotated[float | None, _parsed_by(parse_silence_limit)]
Cores = Annotated[float, _parsed_by(parse_cores)]
Scale = Annotated[int | Literal["auto"], _parsed_by(parse_scale)]
NodeLabel = Annotated[str | None, _parsed_by(parse_node_label)]
AbsolutePath = Annotated[Path, _parsed_by(parse_absolute_path)]
SubjectTemplate = Annotated[str, _parsed_by(parse_template)]
ExchangeUrl = Annotated[str | None, _parsed_by(parse_exchange_url)]
RestUrl = Annotated[str | None, _parsed_by(parse_rest_url)]
SecretReference = Annotated[
    Secret,
    PlainValidator(_to_secret),
    PlainSerializer(asdict, return_type=dict[str, str], when_used="json"),
]
ServerUrl = Annotated[str, _parsed_by(parse_server)]
ListenAddress = Annotated[str, _parsed_by(parse_listen)]
HostName = Annotated[str, _parsed_by(parse_name)]
