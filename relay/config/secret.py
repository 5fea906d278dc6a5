"""References to secrets; pure.

A configuration holds no secret. A secret from the environment is kept as a reference to its variable, and the
process that uses it reads the variable each time. So neither the stored configuration, nor an actor's
arguments, nor a log can show more than names of variables (ADR 5).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from relay.config.urls import split_credentials
from relay.config.yaml_file import interpolate
from relay.errors import ConfigError


class Part(StrEnum):
    """Which part of the interpolated text is the secret: all of it, or a part of the first URL that
    has a login.
    """

    WHOLE = "whole"
    PASSWORD = "password"  # noqa: S105 - the name of a part
    USER = "user"


@dataclass(frozen=True, slots=True)
class Secret:
    """`template` is text with `${NAME}` in it, as in the file; `reveal` gives the secret, to be used at once.

    Both methods raise ConfigError, naming the setting at `path`, where the variable is not set.
    """

    template: str
    part: Part = Part.WHOLE

    def reveal(self, environ: Mapping[str, str], path: str) -> str:
        try:
            text = str(interpolate(self.template, environ))
        except ConfigError as error:
            raise ConfigError(path, error.problem, _REMEDY) from error
        found = text if self.part is Part.WHOLE else _piece(text, self.part)
        if not found:
            raise ConfigError(path, f"{self.template} holds no secret", _REMEDY)
        return found

    def proof(self, environ: Mapping[str, str], path: str, key: bytes) -> str:
        """An HMAC-SHA256 under `key`, equal for two processes that find the same secret; it does not
        reveal it.
        """
        return hmac.new(key, self.reveal(environ, path).encode(), hashlib.sha256).hexdigest()


def is_written_out(template: str, part: Part = Part.WHOLE) -> bool:
    """Whether the template itself contains the secret or a default for it."""
    if part is not Part.WHOLE and "@" not in template:
        return False
    text = template if part is Part.WHOLE else _piece(template, part)
    return "${" not in text or _DEFAULT.search(text) is not None


_DEFAULT = re.compile(r":-[^}]")
_REMEDY = "set the variable for the Ray nodes too, or name a file that they can read"


def _piece(text: str, part: Part) -> str:
    for server in text.split(","):
        _, user, password = split_credentials(server.strip())
        if user or password:
            return password if part is Part.PASSWORD else user
    return ""
