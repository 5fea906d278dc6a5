"""The login options of nats-py, from the files and variables that the configuration names.

They are read again for every connection, so that rotated secrets work without a restart.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from relay.adapters.nats.nkey import credentials, user_key
from relay.errors import ConfigError

if TYPE_CHECKING:
    from relay.config import NatsConfig
    from relay.config.secret import Secret


@dataclass(frozen=True, slots=True)
class Login:
    """`options` go to nats-py's `connect`; `public_key` is the nkey's, None without one."""

    options: dict[str, Any] = field(repr=False)
    public_key: str | None = None


def read_login(config: NatsConfig) -> Login:
    """Raises ConfigError, with the path of the setting, for a file that cannot be read or holds no secret."""
    if config.creds_file is not None:
        jwt, key = credentials(_read("nats.creds_file", config.creds_file))
        return Login({"user_jwt_cb": jwt.encode, "signature_cb": key.sign}, key.public)
    if config.nkey_file is not None:
        key = user_key(_read("nats.nkey_file", config.nkey_file))
        return Login({"signature_cb": key.sign}, key.public)
    if token := _secret("nats.token", config.token, config.token_file):
        return Login({"token": token})
    if password := _secret("nats.password", config.password, config.password_file):
        return Login({"user": config.user, "password": password})
    return Login({})


def demands_tls(config: NatsConfig, server: str) -> bool:
    return config.tls_ca_file is not None or config.tls_handshake_first or server.startswith("tls://")


def tls_context(config: NatsConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.tls_ca_file)
    except (OSError, ssl.SSLError) as error:
        problem = f"{config.tls_ca_file} holds no certificates: {error}"
        raise ConfigError("nats.tls_ca_file", problem, "give a file of PEM certificates") from error


def shown_server(server: str) -> str:
    """The address without user and password."""
    parts = urlsplit(server if "://" in server else f"nats://{server}")
    return parts.netloc.rpartition("@")[2]


def login_proofs(config: NatsConfig, key: bytes) -> dict[str, str]:
    """Proofs of the secrets in this process's environment, by setting: equal proofs mean equal secrets.

    Raises ConfigError for a secret that is not set here.
    """
    given = {"nats.password": config.password, "nats.token": config.token}
    return {path: one.proof(os.environ, path, key) for path, one in given.items() if one is not None}


def _secret(path: str, given: Secret | None, file: Path | None) -> str:
    if given is not None:
        return given.reveal(os.environ, path)
    return _read(f"{path}_file", file) if file is not None else ""


def _read(path: str, file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            path, f"{file} cannot be read: {error}", "mount it readable for this user"
        ) from error
    if not text:
        raise ConfigError(path, f"{file} is empty", "put the secret into it")
    return text
