"""A manager's API for real: HTTPS on loopback, the cluster's own certificates, and a replica with one member."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from api_server import Manager, Pki, running_manager


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def manager(tmp_path: Path, pki: Pki) -> AsyncIterator[Manager]:
    async with running_manager(tmp_path, pki) as manager:
        yield manager
