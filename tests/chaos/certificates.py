"""Certificates of an authority made for one test, and a server that shows another one when told to."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """Signs what it is asked to."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of one test")])
        self._certificate = self._signed(self._name, self._key.public_key(), None, _next_year())

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def context(
        self, host: str, directory: Path, *, until: datetime | None = None, self_signed: bool = False
    ) -> ssl.SSLContext:
        """A server's, for `host`; with `self_signed` issuer and subject are the same, and so is the key."""
        key = self._key if self_signed else ec.generate_private_key(ec.SECP256R1())
        name = self._name if self_signed else x509.Name([])
        made = self._signed(name, key.public_key(), host, until or _next_year())
        file = directory / f"{made.serial_number:x}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + made.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePublicKey, host: str | None, until: datetime
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(until - timedelta(days=730))
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([_named(host)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


class Impostor:
    """`context` shows whichever certificate `shown` has, and counts who asks."""

    def __init__(self, shown: ssl.SSLContext) -> None:
        self.shown = shown
        self.hellos = 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.sni_callback = self._choose

    def _choose(self, asking: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self.hellos += 1
        asking.context = self.shown


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _next_year() -> datetime:
    return datetime.now(UTC) + timedelta(days=365)
