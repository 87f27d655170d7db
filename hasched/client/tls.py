"""TLS contexts of a cluster: its own CA, TLS 1.3 or newer, and certificates that name a role.

Nothing here falls back: no system CAs, no unverified links. Connect to a manager with
`server_hostname=MANAGER_HOSTNAME`, whatever its address is.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from hasched.model.errors import FieldError
from hasched.model.identity import MANAGER_HOSTNAME, PeerIdentity, identity_of, manager_hostname

__all__ = [
    "MANAGER_HOSTNAME",
    "PeerIdentity",
    "certificate_identity",
    "client_context",
    "find_tls_problems",
    "manager_hostname",
    "peer_identity",
    "server_context",
]


def server_context(
    ca: str | Path, cert: str | Path, key: str | Path, client_cert: Literal["optional", "required"] = "optional"
) -> ssl.SSLContext:
    """For a listening manager. A client certificate that is shown must be the cluster's, in either mode."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=ca)
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED if client_cert == "required" else ssl.CERT_OPTIONAL
    return context


def client_context(ca: str | Path, cert: str | Path | None = None, key: str | Path | None = None) -> ssl.SSLContext:
    """For whoever connects to a manager; agents and managers show a certificate, people send a token instead."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=ca)
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def peer_identity(peer: ssl.SSLObject | ssl.SSLSocket | Mapping[str, Any] | None) -> PeerIdentity | None:
    """Who the verified peer is: of an SSL object (`transport.get_extra_info("ssl_object")`) or of its certificate."""
    if peer is None or isinstance(peer, Mapping):
        return identity_of(peer)
    return identity_of(peer.getpeercert())


def certificate_identity(path: str | Path) -> PeerIdentity:
    """Who the certificate in a PEM file names; nothing is verified. Raises OSError, and ValueError if it names nobody."""
    from cryptography import x509  # Slow to import, and whoever only hands in a job needs none of it.
    from cryptography.x509.oid import NameOID

    names = {
        NameOID.ORGANIZATION_NAME: "organizationName",
        NameOID.ORGANIZATIONAL_UNIT_NAME: "organizationalUnitName",
        NameOID.COMMON_NAME: "commonName",
    }
    subject = x509.load_pem_x509_certificate(Path(path).read_bytes()).subject
    known = [[(names[field.oid], str(field.value))] for field in subject if field.oid in names]
    identity = identity_of({"subject": known})
    if identity is None:
        raise ValueError("it names no manager, agent or client of a cluster")
    return identity


def find_tls_problems(ca: str, cert: str, key: str, expected: PeerIdentity) -> Iterator[FieldError]:
    """What keeps these files from proving that their bearer is `expected`, placed as in a daemon's configuration."""
    unreadable = [*_unreadable("tls.ca", ca), *_unreadable("tls.cert", cert), *_unreadable("tls.key", key)]
    if unreadable:
        yield from unreadable
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError:
        yield FieldError("tls.ca", f"{ca} holds no certificate")
    try:
        identity = certificate_identity(cert)
    except ValueError as error:
        yield FieldError("tls.cert", f"{cert} can't be used: {error}")
        return
    if identity != expected:
        yield FieldError(
            "tls.cert",
            f"{cert} is the certificate of {identity.role} {identity.name}, not of {expected.role} {expected.name}",
        )
    try:
        context.load_cert_chain(cert, key)
    except ssl.SSLError:
        yield FieldError("tls.key", f"{key} is not the key of {cert}")


def _unreadable(place: str, path: str) -> Iterator[FieldError]:
    try:
        with Path(path).open("rb"):
            return
    except OSError as error:
        yield FieldError(place, f"{path} can't be read: {error.strerror}")
