"""What an agent refuses to start with, and how it says so: systemd doesn't start it again on status 78."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from tests.agent.peer import AgentProcess, Certificates, Peer


async def status(agent: AgentProcess) -> tuple[int, str]:
    await agent.start()
    assert agent.process is not None
    async with asyncio.timeout(20):
        code = await agent.process.wait()
    return code, (agent.data_dir.parent / "agent.log").read_text()


@pytest.mark.parametrize(
    ("settings", "field", "cause"),
    [
        pytest.param({"name": "n2"}, "tls.cert", "agent n1, not of agent n2", id="another node's certificate"),
        pytest.param({"tls": {"cert": "manager"}}, "tls.cert", "of manager m1, not of agent n1", id="a manager's"),
        pytest.param({"tls": {"key": "missing"}}, "tls.key", "can't be read: No such file", id="no key"),
        pytest.param({"tls": {"key": "ca"}}, "tls.key", "is not the key of", id="another key"),
    ],
)
async def test_an_identity_that_cannot_be_used_is_a_matter_of_configuration(
    agent: AgentProcess, certificates: Certificates, settings: dict[str, object], field: str, cause: str
) -> None:
    files = {"ca": "ca.crt", "cert": "agent.crt", "key": "agent.key"}
    chosen = settings.get("tls", {})
    assert isinstance(chosen, dict)
    for place, name in chosen.items():
        files[place] = f"{name}.{'key' if place == 'key' else 'crt'}"
    agent.settings = {**settings, "tls": {place: certificates.path(name) for place, name in files.items()}}
    code, log = await status(agent)
    assert code == os.EX_CONFIG
    assert f"field={field}" in log
    assert cause in log


async def test_a_data_directory_that_cannot_be_used_is_a_failure(agent: AgentProcess, peer: Peer) -> None:
    (agent.data_dir / "attempts").write_text("in the way")
    code, log = await status(agent)
    assert code == 1
    assert "agent_failed" in log
    assert str(agent.data_dir) in log


async def test_a_started_agent_tells_its_service_manager(
    agent: AgentProcess, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        await agent.start()
        async with asyncio.timeout(20):
            assert await asyncio.get_running_loop().sock_recv(manager, 100) == b"READY=1"
