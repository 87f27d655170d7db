"""The tokens file: who may log in. Of a token it holds the SHA-256 alone, so the file opens nothing by itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

_DIGEST = re.compile(r"[0-9a-f]{64}")


class TokenEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A user's name, and the SHA-256 of the token in lower-case hexadecimal."""

    name: str
    sha256: str

    def __post_init__(self) -> None:
        if _DIGEST.fullmatch(self.sha256) is None:
            raise ValueError(f"the sha256 of {self.name!r} is not 64 hexadecimal digits")


_decoder = msgspec.json.Decoder(list[TokenEntry])


def digest_of(token: str) -> str:
    """What stands for `token` in the file."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def decode_tokens(data: bytes) -> list[TokenEntry]:
    """The entries of a file's content. Raises ValueError."""
    return _decoder.decode(data)


def encode_tokens(entries: Iterable[TokenEntry]) -> bytes:
    """A file's content, one line for each field."""
    return msgspec.json.format(msgspec.json.encode(list(entries)), indent=2) + b"\n"
