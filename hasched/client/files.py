"""Files of this machine: secrets that nobody else may read, not even for a moment, and configuration as text."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from hasched.model.errors import ConfigInvalid, FieldError


def create_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that isn't there yet, with `mode` from its first byte on, to the disk. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes, *, keep_access: bool = False) -> None:
    """Write a file so that a reader sees the old content or the new one, and a failure leaves the old.

    Only its owner may read it; with `keep_access` whoever could read the old one still can.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    create_file(beside, content)
    try:
        if keep_access and path.exists():
            status = path.stat()
            os.chown(beside, status.st_uid, status.st_gid)
            beside.chmod(status.st_mode & 0o777)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_config(path: Path) -> str:
    """The text of a configuration file. Raises ConfigInvalid if it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigInvalid(str(path), [FieldError("", f"it can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise ConfigInvalid(str(path), [FieldError("", f"it is not UTF-8: {error.reason}")]) from None
