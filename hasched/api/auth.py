"""Who asks. Without a valid answer nothing is done: everything but the two health checks needs one.

People and programs show a bearer token; of tokens only the SHA-256 is on disk. What only knows of passwords, as calendar
programs do, may read with the token as its password, and no more: browsers send passwords by themselves. A manager that
passes on a request shows its certificate, and is believed when it says for whom it asks. An agent's certificate opens the
agents' stream alone.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog
from aiohttp import web

from hasched.model.errors import ConfigInvalid, FieldError, Forbidden, Unauthenticated
from hasched.model.identity import PeerIdentity, identity_of
from hasched.model.tokens import decode_tokens, digest_of

ACTOR_HEADER = "Hasched-Actor"
CHECK_INTERVAL_S = 1.0
MAX_TOKEN_CHARS = 512

log = structlog.get_logger(__name__)


class _Stamp(NamedTuple):
    """What changes when the file does."""

    mtime_ns: int
    inode: int
    size: int


class Authenticator:
    """Knows the tokens of a file, and looks every second whether the file has changed.

    Tokens are looked up by their digest, so the time that takes says nothing about any token. A file that went away
    opens nothing; one that can't be understood leaves the tokens as they were.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigInvalid if the file can't be used."""
        self._path = path
        self._clock = clock
        self._stamp: _Stamp | None = None
        self._names: dict[str, str] = {}  # by the digest of the token
        self._checked = clock()
        try:
            self._load()
        except (OSError, ValueError) as error:
            raise ConfigInvalid(str(path), [FieldError("", f"the tokens can't be read: {error}")]) from None

    def identify(self, request: web.BaseRequest) -> str:
        """The name of the user that asks, through a token or a forwarding manager. Raises Unauthenticated, Forbidden."""
        header = request.headers.get("Authorization")
        if header is not None:
            return self._name_of(_token_of(header, reads=request.method in ("GET", "HEAD")))
        peer = peer_of(request)
        if peer is None:
            raise Unauthenticated("the request carries no token", "send `Authorization: Bearer TOKEN`")
        if peer.role != "manager":
            raise Forbidden(f"the certificate of {peer.role} {peer.name} doesn't open this", "send a user's token")
        return request.headers.get(ACTOR_HEADER) or f"manager/{peer.name}"

    def _name_of(self, token: str) -> str:
        if self._clock() - self._checked >= CHECK_INTERVAL_S:
            self._checked = self._clock()
            self._reload()
        name = self._names.get(digest_of(token))
        if name is None:
            hint = "make one with `hasched token create`, and copy the tokens file to the managers"
            raise Unauthenticated("the token is not known here", hint)
        return name

    def _reload(self) -> None:
        try:
            self._load()
        except FileNotFoundError:
            if self._names:
                log.error("tokens_gone", path=str(self._path), effect="no token is accepted")
            self._names, self._stamp = {}, None
        except (OSError, ValueError) as error:
            log.error(
                "tokens_unreadable", path=str(self._path), cause=str(error), effect="the tokens stay as they were"
            )

    def _load(self) -> None:
        status = self._path.stat()
        stamp = _Stamp(status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._names = {entry.sha256: entry.name for entry in decode_tokens(self._path.read_bytes())}
        log.info("tokens_loaded", path=str(self._path), count=len(self._names))


def _token_of(header: str, reads: bool) -> str:
    """What stands as a token in the header, or, where nothing is changed, as a password. Raises Unauthenticated."""
    scheme, _, given = header.partition(" ")
    if len(given) <= MAX_TOKEN_CHARS:
        if scheme.lower() == "basic" and reads:
            given = _password_of(given)
        elif scheme.lower() != "bearer":
            given = ""
        if token := given.strip():
            return token
    raise Unauthenticated("the Authorization header is not `Bearer TOKEN`", "send a token of this cluster")


def _password_of(credentials: str) -> str:
    """RFC 7617; empty if they can't be read."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def peer_of(request: web.BaseRequest) -> PeerIdentity | None:
    """Whose certificate the TLS link has shown; the cluster's CA has signed it."""
    transport = request.transport
    return identity_of(transport.get_extra_info("peercert")) if transport is not None else None


def is_forwarded(request: web.BaseRequest) -> bool:
    """Whether another manager asks, for itself or for a user."""
    peer = peer_of(request)
    return peer is not None and peer.role == "manager"
