"""A leading manager, its log this process, that agents can connect to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hasched.manager.settings import LeaderSettings
from tests.manager.local_replica import LocalReplica
from tests.manager.stream import Manager, make_certs


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certs(folder)
    return folder


@pytest.fixture
async def manager(certs: Path) -> AsyncIterator[Manager]:
    async with Manager(LocalReplica(), certs, LeaderSettings()).run() as manager:
        manager.replica.lead(True)  # type: ignore[attr-defined]
        yield manager
