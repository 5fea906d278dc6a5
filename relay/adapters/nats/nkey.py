"""NATS nkeys: sign the server's nonce with an Ed25519 seed or a `.creds` file.

nats-py uses the package `nkeys` for this, which has no wheels, so our lock file, which allows only wheels,
cannot contain it. The encoding is public (nats-io/nkeys): base32 of prefix, key and a little-endian CRC-16.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED_PREFIX = 18 << 3
_USER_PREFIX = 20 << 3
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class UserKey:
    """One user's key pair; `public` is what the server's configuration lists. The repr shows no secret."""

    public: str
    _private: Ed25519PrivateKey

    def sign(self, nonce: str) -> bytes:
        """The signature in base64, as nats-py's `signature_cb` must return it."""
        return base64.b64encode(self._private.sign(nonce.encode()))

    def __repr__(self) -> str:
        return f"<UserKey {self.public}>"


def user_key(seed: str) -> UserKey:
    """Raises ConfigError, without the seed in its text, unless `seed` is a user's seed (`SU...`)."""
    raw = _decode(seed.strip())
    # The kind of key is in the last three bits of the first byte and the first five of the second.
    kind = (raw[0] & 0b111) << 5 | (raw[1] >> 3)
    if raw[0] & 0b11111000 != _SEED_PREFIX or kind != _USER_PREFIX or len(raw) != 2 + _KEY_BYTES:
        raise ConfigError("nats", "the nkey seed is not a user's", "give a seed that starts with SU")
    private = _ed25519().from_private_bytes(raw[2:])
    return UserKey(_encode(bytes([_USER_PREFIX]) + private.public_key().public_bytes_raw()), private)


def new_user_seed() -> str:
    """A fresh seed, for tests and for an embedded server."""
    private = _ed25519().generate().private_bytes_raw()
    head = bytes([_SEED_PREFIX | _USER_PREFIX >> 5, (_USER_PREFIX & 0b11111) << 3])
    return _encode(head + private)


def credentials(creds: str) -> tuple[str, UserKey]:
    """The JWT and the key of a `.creds` file's text; raises ConfigError if either is missing."""
    return _section(creds, "NATS USER JWT"), user_key(_section(creds, "USER NKEY SEED"))


def _ed25519() -> type[Ed25519PrivateKey]:
    """Imported only when there is a key, since it takes 6 MB in each process."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey


def _section(creds: str, title: str) -> str:
    lines = iter(creds.splitlines())
    for line in lines:
        if f"BEGIN {title}" in line:
            return next(lines, "").strip()
    raise ConfigError("nats.creds_file", f"has no {title.lower()}", "make it with `nsc generate creds`")


def _encode(raw: bytes) -> str:
    checked = raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        checked = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        checked = b""
    raw, crc = checked[:-2], checked[-2:]
    if not raw or binascii.crc_hqx(raw, 0).to_bytes(2, "little") != crc:
        raise ConfigError("nats", "the nkey seed is damaged", "copy it again, without spaces or quotes")
    return raw
