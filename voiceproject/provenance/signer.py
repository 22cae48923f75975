"""Who signs what is made here: the operator's certificate (C2PA_CERT, C2PA_KEY), or one of a local CA in DATA_DIR.

The local CA is made when something is first signed: it certifies one signer, and its private key is forgotten at once,
so that it can never certify another. Each certificate that has signed here is remembered in the database: with another
host's, and with one that was replaced since, verification knows what it has signed.
"""

from __future__ import annotations

import functools
import os
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings

from voiceproject.provenance.models import SigningCertificate

LOCAL_DAYS = 20 * 365
LOCAL_NAME = "signer.pem"  # in DATA_DIR: the signer's key, its certificate, and the CA's
RENEW_DAYS = 30
SIGNATURES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


class BadSigner(Exception):
    """The certificate or the key cannot be used; the text is for operators."""


@dataclass(frozen=True)
class Identity:
    """chain: PEM, the signer's certificate first, then its issuers'; key: PEM; algorithm: as C2PA names it."""

    chain: bytes
    key: bytes
    algorithm: str

    @property
    def certificates(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.chain)

    @property
    def expires_at(self) -> datetime:
        return min(certificate.not_valid_after_utc for certificate in self.certificates)


def load() -> Identity:
    """The identity that signs here. Raises BadSigner."""
    if settings.C2PA_CERT and settings.C2PA_KEY:
        return _read(settings.C2PA_CERT, settings.C2PA_KEY)
    path = settings.DATA_DIR / LOCAL_NAME
    if not path.exists():
        _make(path, replace=False)
    identity = _read(path, path)
    if identity.expires_at < datetime.now(UTC) + timedelta(days=RENEW_DAYS):
        _make(path, replace=True)
        identity = _read(path, path)
    return identity


_lock = threading.Lock()


def signer() -> c2pa.Signer:
    """What signs with it, made once a process, and known to the database since. Raises BadSigner."""
    with _lock:
        return _signer(os.getpid())


@functools.lru_cache(maxsize=1)  # A process that was forked cannot use its parent's.
def _signer(process: int) -> c2pa.Signer:
    identity = load()
    leaf = identity.certificates[0]
    made = as_signer(identity)
    SigningCertificate.objects.get_or_create(
        sha256=leaf.fingerprint(hashes.SHA256()).hex(),
        defaults={"chain": identity.chain.decode(), "serial_number": str(leaf.serial_number)},
    )
    return made


def forget() -> None:
    """The next signature is made with what C2PA_CERT and DATA_DIR hold then."""
    _signer.cache_clear()


def as_signer(identity: Identity) -> c2pa.Signer:
    # No timestamp authority: signing would wait for a stranger's server.
    info = c2pa.C2paSignerInfo(identity.algorithm, identity.chain, identity.key, None)
    try:
        return c2pa.Signer.from_info(info)
    except c2pa.C2paError as error:
        raise BadSigner(str(error)) from error


def _read(cert: Path, key: Path) -> Identity:
    try:
        chain = x509.load_pem_x509_certificates(cert.read_bytes())
        private = serialization.load_pem_private_key(_private_part(key.read_bytes()), None)
    except (OSError, ValueError, TypeError) as error:
        raise BadSigner(str(error)) from error
    if len(chain) < 2:
        raise BadSigner(f"{cert} must hold the certificate, and behind it those of its issuers")
    if chain[0].public_key() != private.public_key():  # type: ignore[attr-defined]
        raise BadSigner(f"{key} is not the key of the first certificate in {cert}")
    now = datetime.now(UTC)
    for certificate in chain:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise BadSigner(f"{certificate.subject.rfc4514_string()} in {cert} has expired or is not valid yet")
    match private:
        case ec.EllipticCurvePrivateKey() if private.curve.name in SIGNATURES:
            algorithm = SIGNATURES[private.curve.name]
        case rsa.RSAPrivateKey():
            algorithm = "ps256"
        case ed25519.Ed25519PrivateKey():
            algorithm = "ed25519"
        case _:
            raise BadSigner(f"{key} is of a kind that C2PA does not sign with")
    pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)
    return Identity(pem, _as_pem(private), algorithm)


def _private_part(pem: bytes) -> bytes:
    start = pem.find(b"-----BEGIN", 0)
    while start >= 0 and b"PRIVATE KEY" not in pem[start : start + 40]:
        start = pem.find(b"-----BEGIN", start + 10)
    return pem[max(0, start) :]


def _as_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _make(path: Path, *, replace: bool) -> None:
    """A local CA and its one signer. Of several processes the first one's stays (link() fails for all others)."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(_local())
        file.flush()
        os.fsync(file.fileno())
    try:
        if replace:
            fresh.rename(path)
        else:
            os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink(missing_ok=True)


def _local() -> bytes:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    # Not the host's name: the certificate travels with every file.
    mark = secrets.token_hex(4)
    ca_name = _name(f"Voiceproject local CA {mark}")
    start = datetime.now(UTC) - timedelta(days=1)  # a host whose clock is behind

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=LOCAL_DAYS))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), True)
            .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
        )
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(ca_key, hashes.SHA256())

    chain = (
        certificate(_name(f"Voiceproject {mark}"), key.public_key(), ca=False),
        certificate(ca_name, ca_key.public_key(), ca=True),
    )
    return _as_pem(key) + b"".join(part.public_bytes(serialization.Encoding.PEM) for part in chain)


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Voiceproject"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )
