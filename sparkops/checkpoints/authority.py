"""A certificate authority that lives as long as a run: by it nodes know each other when one passes content to another.

Its key never leaves this process, the nodes' keys reach them inside of their sessions. Nothing is written to a disk.
It must not know what is passed on.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import threading
from typing import TYPE_CHECKING

from sparkops.core.kind_messages import Credentials

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder, Name

LIFETIME = 12 * 3600
"""Seconds that a certificate is good for: the largest checkpoint over a slow line, and no more than a night."""
EARLIER = 24 * 3600
"""Seconds that it is dated back: clocks of nodes that were set wrong differ."""


class Authority:
    """One run's authority. Its keys are made when the first certificate is asked for; several threads may ask."""

    def __init__(self) -> None:
        self._making = threading.Lock()
        self._own: tuple[EllipticCurvePrivateKey, Certificate] | None = None

    @property
    def fingerprint(self) -> str:
        """A word that tells this authority from others."""
        from cryptography.hazmat.primitives.serialization import Encoding

        return hashlib.sha256(self._root()[1].public_bytes(Encoding.DER)).hexdigest()[:16]

    def source(self, node: str, address: str) -> Credentials:
        """What a node needs to listen on `address` (an IP address)."""
        return self._issue(node, address)

    def receiver(self, node: str) -> Credentials:
        """What a node needs to ask others, who learn its name by it."""
        return self._issue(node, "")

    def _root(self) -> tuple[EllipticCurvePrivateKey, Certificate]:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        with self._making:
            if self._own is None:
                key = ec.generate_private_key(ec.SECP256R1())
                name = _name("sparkops, one run")
                use = x509.KeyUsage(False, False, False, False, False, True, False, False, False)
                made = (
                    _dated(name, key)
                    .issuer_name(name)
                    .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                    .add_extension(use, critical=True)
                    .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                )
                self._own = key, _signed(made, key)
            return self._own

    def _issue(self, node: str, address: str) -> Credentials:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
        from cryptography.x509.oid import ExtendedKeyUsageOID

        root_key, root = self._root()
        key = ec.generate_private_key(ec.SECP256R1())
        role = ExtendedKeyUsageOID.SERVER_AUTH if address else ExtendedKeyUsageOID.CLIENT_AUTH
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
        made = (
            _dated(_name(node), key)
            .issuer_name(root.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([role]), critical=True)
            .add_extension(issuer, critical=False)
        )
        if address:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            made = made.add_extension(names, critical=False)
        return {
            "authority": root.public_bytes(Encoding.PEM).decode(),
            "certificate": _signed(made, root_key).public_bytes(Encoding.PEM).decode(),
            "key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }


def _name(text: str) -> Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text[:64])])


def _dated(subject: Name, key: EllipticCurvePrivateKey) -> CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=EARLIER))
        .not_valid_after(now + datetime.timedelta(seconds=LIFETIME))
    )


def _signed(made: CertificateBuilder, key: EllipticCurvePrivateKey) -> Certificate:
    from cryptography.hazmat.primitives import hashes

    return made.sign(key, hashes.SHA256())
