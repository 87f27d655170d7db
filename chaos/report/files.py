"""Where a report lies: `report.json`, which is all of it, and `report.html`, the page made of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from chaos.report import page
from chaos.report.document import FORMAT, Document
from hasched.model.errors import BadRequest, NotFound

JSON_NAME, PAGE_NAME = "report.json", "report.html"


class _Format(msgspec.Struct):
    format: int


def write(document: Document, folder: Path) -> tuple[Path, Path]:
    """Make the folder if it isn't there, write both files, each whole or not at all, and give their paths. A report that lies
    there already is evidence, and stays, under the time of its writing. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    _set_aside(folder)
    written = folder / JSON_NAME, folder / PAGE_NAME
    _replace(written[0], msgspec.json.encode(document))
    write_page(document, written[1])
    return written


def write_page(document: Document, path: Path) -> None:
    """Raises OSError."""
    _replace(path, page.render(document).encode())


def read(path: Path) -> Document:
    """Raises NotFound if there is no such file or it may not be read, BadRequest if it is no report of this version."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"{path} can't be read: {error.strerror}", f"name a {JSON_NAME} of `hasched chaos run`"
        ) from None
    try:
        found = msgspec.json.decode(content, type=_Format).format
        if found != FORMAT:
            raise BadRequest(
                f"{path} is a report of format {found}, and this hasched reads format {FORMAT}",
                "use the version of hasched that wrote it; its page shows itself",
            )
        return msgspec.json.decode(content, type=Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path} is no report: {error}", f"name a {JSON_NAME} of `hasched chaos run`") from None


def _set_aside(folder: Path) -> None:
    earlier = [path for path in (folder / JSON_NAME, folder / PAGE_NAME) if path.exists()]
    if earlier:
        at = datetime.fromtimestamp(earlier[0].stat().st_mtime, UTC)
        for path in earlier:
            path.rename(path.with_stem(f"{path.stem}-{at:%Y%m%dT%H%M%S.%f}Z"))


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
