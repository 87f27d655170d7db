"""The cluster's own certificate authority, and the certificates and tokens that it hands out.

One directory holds it all: `ca.crt` goes to everybody, `ca.key` stays where certificates are issued, and each manager or
agent gets its own pair, NAME.crt and NAME.key. A file that exists is never overwritten, and a key is readable by its
owner alone from its first byte on. The names in a certificate are those of `hasched.model.identity`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hasched.client.files import create_file, replace_file
from hasched.model.errors import Conflict, HaschedError, NotFound
from hasched.model.identity import MANAGER_HOSTNAME, ORGANIZATION, manager_hostname
from hasched.model.ids import is_name
from hasched.model.tokens import TokenEntry, decode_tokens, digest_of, encode_tokens

CA_DAYS = 3650
CERT_DAYS = 825
MAX_NAME_CHARS = 64  # of a common name (RFC 5280, upper bounds)
TOKEN_PREFIX = "hst_"  # noqa: S105 - what a leaked token is recognised by
_CLOCK_SKEW = timedelta(hours=1)


class CertsError(HaschedError):
    """Something about a certificate request that can't be granted."""

    code = "bad_certificate"
    status = 422
    title = "The certificate can't be issued"


class CertInfo(msgspec.Struct, frozen=True):
    """What `hasched certs show` tells of one certificate."""

    file: str
    role: str  # ca, manager, agent, client
    name: str
    hosts: list[str]
    not_before: str
    not_after: str
    days_left: int
    fingerprint: str  # SHA-256


class Issued(msgspec.Struct, frozen=True):
    cert: str
    key: str
    info: CertInfo


def create_ca(directory: Path, cluster: str, days: int = CA_DAYS) -> Issued:
    """A new authority for `cluster` in `directory`. Raises Conflict if there is one already."""
    _require_name(cluster)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject("ca", cluster)
    cert = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _store(directory, "ca", cert, key)


def issue_manager(directory: Path, name: str, hosts: Sequence[str], days: int = CERT_DAYS) -> Issued:
    """A manager's pair. It is known by its names in `manager.hasched.internal`; `hosts` serve other tools and browsers."""
    names = [MANAGER_HOSTNAME, manager_hostname(name), "localhost", "127.0.0.1", *hosts]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return _issue(directory, "manager", name, days=days, hosts=names, usages=usages)


def issue_agent(directory: Path, name: str, days: int = CERT_DAYS) -> Issued:
    """An agent's pair; `name` is its node id."""
    return _issue(directory, "agent", name, days=days, hosts=[], usages=[ExtendedKeyUsageOID.CLIENT_AUTH])


def describe(path: Path) -> CertInfo:
    """What the certificate file says. Raises NotFound or CertsError."""
    return _describe(path, _load_cert(path))


def create_token(path: Path, name: str) -> str:
    """A new bearer token for `name`; only its SHA-256 is kept, so this is the one time that it can be seen."""
    _require_name(name)
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    entries = read_tokens(path)
    if any(entry.name == name for entry in entries):
        raise Conflict(f"{path} has a token named {name!r} already", "choose another name, or remove the old entry")
    entries.append(TokenEntry(name, digest_of(token)))
    path.parent.mkdir(parents=True, exist_ok=True)
    # The managers' user goes on reading a file that root has extended.
    replace_file(path, encode_tokens(entries), keep_access=True)
    return token


def revoke_token(path: Path, name: str) -> None:
    """Take the entry of `name` out of the file. Raises NotFound."""
    entries = read_tokens(path)
    kept = [entry for entry in entries if entry.name != name]
    if kept == entries:
        raise NotFound(f"{path} has no token named {name!r}", "see `hasched token list`")
    replace_file(path, encode_tokens(kept), keep_access=True)


def read_tokens(path: Path) -> list[TokenEntry]:
    """The entries of a tokens file; none if it doesn't exist. Raises CertsError, OSError."""
    if not path.exists():
        return []
    try:
        return decode_tokens(path.read_bytes())
    except ValueError as error:
        raise CertsError(f"{path} is not a tokens file: {error}", "restore it, or move it away") from None


def _issue(
    directory: Path, role: str, name: str, *, days: int, hosts: list[str], usages: list[x509.ObjectIdentifier]
) -> Issued:
    _require_name(name)
    ca = _load_cert(directory / "ca.crt")
    ca_key = _load_key(directory / "ca.key")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_subject(role, name), ca.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if hosts:
        names = [_general_name(host) for host in dict.fromkeys(hosts)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _store(directory, name, builder.sign(ca_key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _subject(role: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass  # Not an address, so a name.
    try:
        return x509.DNSName(host.encode("idna").decode("ascii"))
    except (UnicodeError, ValueError):
        raise CertsError(
            f"{host!r} is neither a host name nor an address", "give --host NAME or --host ADDRESS"
        ) from None


def _require_name(name: str) -> None:
    if not is_name(name) or len(name) > MAX_NAME_CHARS:
        raise CertsError(
            f"{name!r} is not a name", f"use up to {MAX_NAME_CHARS} letters, digits, dots, dashes and underscores"
        )


def _store(directory: Path, stem: str, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    cert_path, key_path = directory / f"{stem}.crt", directory / f"{stem}.key"
    for path in (cert_path, key_path):
        if path.exists():
            raise Conflict(f"{path} exists, and is left as it is", "remove it first if you mean to replace it")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    create_file(key_path, pem)
    create_file(cert_path, cert.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return Issued(str(cert_path), str(key_path), _describe(cert_path, cert))


def _load_cert(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no {path}", "create the cluster's CA with `hasched certs init`") from None
    except ValueError as error:
        raise CertsError(f"{path} is not a certificate: {error}", "give a PEM file with one certificate") from None


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise NotFound(f"there is no {path}", "issue certificates where the CA was created") from None
    except (ValueError, TypeError) as error:
        raise CertsError(f"{path} is not a private key: {error}", "restore it from where the CA was created") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertsError(f"{path} is not an elliptic-curve key", "create the CA with `hasched certs init`")
    return key


def _describe(path: Path, cert: x509.Certificate) -> CertInfo:
    def field(oid: x509.ObjectIdentifier) -> str:
        values = cert.subject.get_attributes_for_oid(oid)
        return str(values[0].value) if values else ""

    hosts: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound):
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return CertInfo(
        file=str(path),
        role=field(NameOID.ORGANIZATIONAL_UNIT_NAME),
        name=field(NameOID.COMMON_NAME),
        hosts=hosts,
        not_before=cert.not_valid_before_utc.isoformat(),
        not_after=cert.not_valid_after_utc.isoformat(),
        days_left=(cert.not_valid_after_utc - datetime.now(UTC)).days,
        fingerprint=cert.fingerprint(hashes.SHA256()).hex(),
    )
