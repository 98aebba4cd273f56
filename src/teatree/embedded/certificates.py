"""Certificates for mutual TLS among a server's parts: a client without a certificate of its authority is refused.

All are made for each start, and the authority's key is not kept: nothing has to be renewed, and none can be added.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from teatree.embedded.ports import LOOPBACK
from teatree.embedded.secret_file import private_folder, write_private

VALID_DAYS = 3_650
"""Days for which they are valid: longer than any server runs without a restart."""
_SKEW = timedelta(days=1)
"""They are valid before now by this much, so that a clock that is set back does not invalidate them."""


@frozen
class CertificateFiles:
    """Paths of a server's certificates and key."""

    authority: Path
    certificate: Path
    key: Path


def certificate_files(folder: Path) -> CertificateFiles:
    """Return the paths of a server's certificates."""
    return CertificateFiles(folder / "ca.pem", folder / "parts.pem", folder / "parts.key")


def make_certificates(folder: Path, name: str) -> CertificateFiles:
    """Make an authority, and a certificate of it under `name`, which all parts use, as server and as client."""
    private_folder(folder)
    files = certificate_files(folder)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"{name} authority")
    authority = (
        _builder(issuer, issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(_name(name), issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(LOOPBACK))]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_private(files.authority, authority.public_bytes(pem).decode())
    write_private(files.certificate, certificate.public_bytes(pem).decode())
    write_private(files.key, private.decode())
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=VALID_DAYS))
    )
