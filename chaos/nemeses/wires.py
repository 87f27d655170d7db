"""Connections to managers that speak TLS and nothing sensible: shared by nemeses that are bad clients."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from chaos.stage import Stage
from hasched.client.tls import MANAGER_HOSTNAME, client_context

OPEN_S = 3.0
TOGETHER = 20  # handshakes at one time


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

    def abort(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def wires(stage: Stage, managers: Sequence[str], count: int) -> AsyncIterator[list[Wire]]:
    """`count` connections to each of `managers`; fewer where a manager takes none."""
    context = stage.cluster.context(*managers)
    tls = client_context(Path(context.ca).expanduser())
    turns = asyncio.Semaphore(TOGETHER)
    opened: list[Wire] = []

    async def open_one(url: str) -> None:
        async with turns:
            wire = await _open(url, tls)
            if wire is not None:
                opened.append(wire)

    try:
        try:
            async with asyncio.timeout(2 * OPEN_S), asyncio.TaskGroup() as group:
                for url in context.managers * count:
                    group.create_task(open_one(url))
        except TimeoutError:
            stage.note("not all connections could be opened")
        yield opened
    finally:
        for wire in opened:
            wire.abort()


async def _open(url: str, tls: ssl.SSLContext) -> Wire | None:
    address = urlsplit(url)
    try:
        async with asyncio.timeout(OPEN_S):
            return Wire(
                *await asyncio.open_connection(
                    address.hostname, address.port, ssl=tls, server_hostname=MANAGER_HOSTNAME
                )
            )
    except OSError:  # TimeoutError is one
        return None
