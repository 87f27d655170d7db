"""A lean HTTPS connection for load: one keep-alive request at a time, so that the client's cost hides little of the server's."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

import msgspec

from hasched.client.tls import MANAGER_HOSTNAME


class Connection:
    """One keep-alive connection to one manager. Not for concurrent use."""

    def __init__(self, url: str, context: ssl.SSLContext, token: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._context = context
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._context, server_hostname=MANAGER_HOSTNAME
        )
        return self

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def post(self, path: str, body: bytes, submission_id: str = "") -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError or asyncio.IncompleteReadError when the connection breaks."""
        assert self._reader is not None and self._writer is not None
        key = f"Idempotency-Key: {submission_id}\r\n" if submission_id else ""
        head = f"POST {path} HTTP/1.1\r\n{self._head}{key}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = int(answer[9:12])
        at = answer.index(b"content-length:") + 15
        length = int(answer[at : answer.index(b"\r\n", at)])
        return status, await self._reader.readexactly(length)

    async def post_json(self, path: str, document: object, submission_id: str = "") -> Any:
        """The decoded answer; raises RuntimeError on an error status."""
        status, body = await self.post(path, msgspec.json.encode(document), submission_id)
        if status >= 300:
            raise RuntimeError(f"{path} answered {status}: {body[:500]!r}")
        return msgspec.json.decode(body)
