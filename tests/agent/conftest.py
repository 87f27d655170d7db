from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agent.peer import AgentProcess, Certificates, Peer, run_agent, run_peer


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"), "n1")


@pytest.fixture
async def peer(certificates: Certificates) -> AsyncIterator[Peer]:
    async with run_peer(certificates) as peer:
        yield peer


@pytest.fixture
async def agent(peer: Peer, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """An agent that is configured but not started."""
    async with run_agent(peer, tmp_path) as agent:
        yield agent
