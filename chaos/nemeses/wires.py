"""Connections to managers that speak TLS and nothing sensible: shared by nemeses that are bad clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hasched.client.context import Context
from hasched.client.tls import MANAGER_HOSTNAME, client_context

OPEN_S = 5.0


class Wire:
    """One connection, already through its handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def is_cut(self) -> bool:
        """Whether the manager closed it."""
        return self._writer.is_closing() or self._reader.at_eof()

    def write(self, data: bytes) -> None:
        if not self.is_cut:
            self._writer.write(data)


@asynccontextmanager
async def wire(context: Context) -> AsyncIterator[Wire | None]:
    """To the first manager of `context`; None if it doesn't let us in."""
    address = urlsplit(context.managers[0])
    tls = client_context(Path(context.ca).expanduser())
    try:
        async with asyncio.timeout(OPEN_S):
            reader, writer = await asyncio.open_connection(
                address.hostname, address.port, ssl=tls, server_hostname=MANAGER_HOSTNAME
            )
    except OSError:  # TimeoutError is one
        yield None
        return
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()
