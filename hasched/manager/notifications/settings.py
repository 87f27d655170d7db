"""What the managers' configuration says of notifications. Times are in milliseconds."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class SmtpSecurity(StrEnum):
    STARTTLS = "starttls"  # and nothing is sent where the relay doesn't offer it
    TLS = "tls"  # from the first byte
    NONE = "none"


class SmtpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The relay that takes e-mail. `password_file` is a name in the directory of secrets."""

    host: str = ""  # empty: e-mail can't be sent
    port: int = 587
    security: SmtpSecurity = SmtpSecurity.STARTTLS
    sender: str = ""
    username: str = ""
    password_file: str = ""


class NotifierSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`allow` are the hosts that webhooks and Slack may be at: `HOST`, `*.DOMAIN`, each with `:PORT` or without, or `*`."""

    cluster: str = ""
    secrets_dir: str = ""  # empty: there are none
    allow: tuple[str, ...] = ()
    timeout_ms: int = 10_000  # of an attempt
    ca: str = ""  # a file with more certificates to trust
    apprise: bool = False  # whether it may be used: its URLs lead anywhere
    smtp: SmtpSettings = SmtpSettings()


def is_allowed(allow: tuple[str, ...], host: str, port: int) -> bool:
    """Whether something may be sent to this host."""
    return any(_matches(pattern.lower(), host.lower(), port) for pattern in allow)


def _matches(pattern: str, host: str, port: int) -> bool:
    name, colon, wanted = pattern.rpartition(":")
    if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):  # `::1` is an address without a port
        if int(wanted) != port:
            return False
        pattern = name
    pattern = pattern.strip("[]")  # as URLs write IPv6 addresses
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in ("*", host)
