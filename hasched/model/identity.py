"""Who is at the other end of a TLS link, as its certificate says.

Every certificate of a cluster is signed by the cluster's own CA and names a role (OU) and a name (CN). Managers are
verified by role and not by address, so addresses are free to change: every manager's certificate carries
`manager.hasched.internal`, and `NAME.manager.hasched.internal` where one particular manager is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ORGANIZATION = "hasched"
MANAGER_HOSTNAME = "manager.hasched.internal"

ROLES = ("manager", "agent", "client")


class PeerIdentity(NamedTuple):
    role: str  # manager, agent or client
    name: str


def manager_hostname(name: str) -> str:
    """The name that only this manager's certificate carries."""
    return f"{name}.{MANAGER_HOSTNAME}"


def identity_of(peercert: Mapping[str, Any] | None) -> PeerIdentity | None:
    """The identity in a *verified* certificate, in the form of `ssl.SSLSocket.getpeercert()`; None if it states none.

    A subject that names a field twice states no identity: it would depend on which one is read.
    """
    if not peercert:
        return None
    fields: dict[str, str] = {}
    for relative_name in peercert.get("subject", ()):
        for key, value in relative_name:
            if key in fields:
                return None
            fields[key] = value
    role, name = fields.get("organizationalUnitName", ""), fields.get("commonName", "")
    if fields.get("organizationName") != ORGANIZATION or role not in ROLES or not name:
        return None
    return PeerIdentity(role, name)
