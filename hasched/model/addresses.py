"""Addresses of managers: `HOST:PORT` of consensus, `https://HOST:PORT` of the API."""

from __future__ import annotations

import re

API_PORT = 7411
RAFT_PORT = 7412
MAX_ADDRESS_LENGTH = 512

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_SCHEME = "https://"


def split_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[V6]:PORT` as host and port. Raises ValueError."""
    host, _, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536
    if not is_port or len(text) > MAX_ADDRESS_LENGTH or _HOST.fullmatch(host) is None:
        raise ValueError(f"{text[:100]!r} is not an address; write it as HOST:PORT")
    return host.strip("[]"), int(port)


def check_api_url(text: str) -> str:
    """`text` without a slash at its end, if it is the URL of a manager. Raises ValueError."""
    address = text.removesuffix("/")
    try:
        if not address.startswith(_SCHEME):
            raise ValueError
        split_address(address.removeprefix(_SCHEME))
    except ValueError:
        raise ValueError(f"{text[:100]!r} is not a manager's URL; write it as https://HOST:{API_PORT}") from None
    return address
