"""Where a secret of the configuration is to be found: pure.

A configuration holds no secret. What came from the environment is kept as the reference that it came from and
is filled in anew wherever it is used, by the process that uses it: neither what is stored, nor an actor's
arguments, nor a log can show more than the names of variables.
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
    """What of the filled-in text is the secret: all of it, or a piece of the first URL that has a login."""

    WHOLE = "whole"
    PASSWORD = "password"  # noqa: S105 - the name of a piece
    USER = "user"


@dataclass(frozen=True, slots=True)
class Secret:
    """`template` is text with `${NAME}` in it, as in the file; `reveal` is for the moment of use.

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
        """Tells whether two processes find the same secret, without saying it."""
        return hmac.new(key, self.reveal(environ, path).encode(), hashlib.sha256).hexdigest()


def is_written_out(template: str, part: Part = Part.WHOLE) -> bool:
    """Whether the secret, or a default for it, stands in the template itself."""
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
