from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.agent.peer import AgentProcess, Certificates, Peer


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"), "n1")


@pytest.fixture
async def peer(certificates: Certificates) -> AsyncIterator[Peer]:
    peer = Peer(certificates)
    await peer.start()
    yield peer
    await peer.stop()


@pytest.fixture
async def agent(certificates: Certificates, peer: Peer, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """An agent that is configured but not started."""
    data_dir = tmp_path / "agent"
    data_dir.mkdir()
    agent = AgentProcess(certificates, data_dir, [peer.url])
    yield agent
    await agent.end()
