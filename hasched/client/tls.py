"""TLS contexts of a cluster: its own CA, TLS 1.3 or newer, and certificates that name a role.

Nothing here falls back: no system CAs, no unverified links. Connect to a manager with
`server_hostname=MANAGER_HOSTNAME`, whatever its address is.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hasched.model.identity import MANAGER_HOSTNAME, PeerIdentity, identity_of, manager_hostname

__all__ = [
    "MANAGER_HOSTNAME",
    "PeerIdentity",
    "client_context",
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
