"""An operator, an account and its users, as `nsc` makes them: signed tokens for a server in operator mode.

The format is public (docs.nats.io, JWT authentication): base64 of header, claims and an Ed25519 signature by
the issuer, keys as base32 of a prefix, the key and its CRC.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_OPERATOR, _ACCOUNT, _USER, _SEED = 14 << 3, 0, 20 << 3, 18 << 3
_NO_LIMITS = dict.fromkeys(("subs", "data", "payload"), -1)
_ACCOUNT_LIMITS = dict.fromkeys(
    ("imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams", "consumer"), -1
)


@dataclass(frozen=True)
class Key:
    prefix: int
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> str:
        return _base32(bytes([self.prefix]) + self.private.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        head = bytes([_SEED | self.prefix >> 5, (self.prefix & 31) << 3])
        return _base32(head + self.private.private_bytes_raw())

    def issue(self, subject: Key, claims: dict[str, Any]) -> str:
        body = {
            "iss": self.public, "sub": subject.public, "iat": int(time.time()), "jti": "1", "name": "test",
            "nats": {"version": 2, **claims},
        }  # fmt: skip
        signed = f"{_base64({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_base64(body)}"
        signature = base64.urlsafe_b64encode(self.private.sign(signed.encode())).decode().rstrip("=")
        return f"{signed}.{signature}"


class Operator:
    """`settings` are a server's, for one account with JetStream."""

    def __init__(self) -> None:
        self._operator, self._account, self._system = Key(_OPERATOR), Key(_ACCOUNT), Key(_ACCOUNT)

    @property
    def settings(self) -> str:
        operator = self._operator.issue(self._operator, {"type": "operator"})
        ours = self._issue(self._account, {**_NO_LIMITS, **_ACCOUNT_LIMITS, "wildcards": True})
        # JetStream itself works in the system's account, which may have none of its own.
        system = self._issue(self._system, _NO_LIMITS)
        return (
            f"operator: {operator}\nresolver: MEMORY\nsystem_account: {self._system.public}\n"
            f"resolver_preload: {{ {self._account.public}: {ours}, {self._system.public}: {system} }}"
        )

    def _issue(self, account: Key, limits: dict[str, Any]) -> str:
        return self._operator.issue(account, {"type": "account", "limits": limits})

    def creds(self, publish: list[str], *, seed: str | None = None) -> str:
        """The text of a `.creds` file of a new user; with another user's `seed` it does not fit."""
        user = Key(_USER)
        allowed = {"pub": {"allow": publish}, "sub": {"allow": ["_INBOX.sluice.>"]}}
        token = self._account.issue(user, {"type": "user", **_NO_LIMITS, **allowed})
        return (
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{seed or user.seed}\n------END USER NKEY SEED------\n"
        )


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def _base64(fields: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
