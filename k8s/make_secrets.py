"""Makes every secret that the manifests refer to, and writes them as Kubernetes manifests.

    .venv/bin/python -m k8s.make_secrets | kubectl create -f -

Nothing is kept: each run makes other ones. The values pass through the pipe alone: no file, no argument list.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from relay.adapters.nats.nkey import new_user_seed, user_key

NAMESPACE = "sluice"
ROLES = ("controller", "publisher", "consumer")
NATS_NAMES = ("nats", "nats.sluice", "nats.sluice.svc", "nats.sluice.svc.cluster.local")
VALID_DAYS = 3 * 365

Secrets = Mapping[str, Mapping[str, str]]


class Certificates(NamedTuple):
    """PEM. The authority's own key is discarded: it signs only this server's certificate."""

    authority: str
    server: str
    server_key: str


def make_secrets(nats_names: Sequence[str] = NATS_NAMES) -> Secrets:
    """Secrets by name, each with its values by key."""
    password = secrets.token_hex(32)
    seeds = {role: new_user_seed() for role in ROLES}
    certificates = make_certificates(nats_names)
    return {
        "ray-token": {"auth_token": secrets.token_hex(32)},
        "redis": {"password": password, "auth.conf": f"requirepass {password}\n"},
        "nats-tls": {"tls.crt": certificates.server, "tls.key": certificates.server_key},
        "nats-users": {role: user_key(seed).public for role, seed in seeds.items()},
        **{
            f"nats-{role}": {"user.nk": seed, "ca.crt": certificates.authority}
            for role, seed in seeds.items()
        },
    }


def make_certificates(names: Sequence[str]) -> Certificates:
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("Sluice's authority for NATS", authority_key, authority_key, ())
    server = _certificate(names[0], server_key, authority_key, names)
    return Certificates(_pem(authority), _pem(server), _key_pem(server_key))


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
) -> x509.Certificate:
    """With the extensions that a strict verifier, such as Python 3.13's default, asks for."""
    now = datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sluice's authority for NATS")])
    begun = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None if names else 0), critical=True)
        .add_extension(_usage(signs=not names), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        begun = begun.add_extension(alternatives, critical=False)
    return begun.sign(signer, hashes.SHA256())


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, shape = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, shape, serialization.NoEncryption()).decode()


def as_manifest(made: Secrets) -> dict[str, Any]:
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "type": "kubernetes.io/tls" if "tls.key" in values else "Opaque",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
        }
        for name, values in made.items()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def main() -> int:
    if sys.stdout.isatty():
        print("make_secrets: would show secrets here; pipe it into `kubectl create -f -`", file=sys.stderr)
        return 2
    json.dump(as_manifest(make_secrets()), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
