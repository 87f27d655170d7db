"""Managers that misbehave on purpose, and the certificates that make them believed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_manager import Scene

from hasched.certs.issuing import create_ca, issue_manager


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client-pki")
    create_ca(folder, "test")
    issue_manager(folder, "m1", ["127.0.0.1"])
    return folder


@pytest.fixture
def scene(certificates: Path) -> Iterator[Scene]:
    scene = Scene(certificates)
    yield scene
    for manager in scene.managers:
        manager.shutdown()
        manager.server_close()
