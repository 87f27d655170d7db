"""What tests of GPUs stand on: the fake driver, or a real one where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_nvml import FakeNvml, build

REAL_DRIVER = Path("/proc/driver/nvidia/version")
WHY_NOT_REAL = f"no NVIDIA driver on this machine ({REAL_DRIVER} is missing); run it where there is a GPU"


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine: the fake NVML library can't be built")
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def fake(fake_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    """No GPUs, until the test has them written. Processes that are started find it."""
    folder = tmp_path / "nvml"
    folder.mkdir()
    (folder / fake_library.name).symlink_to(fake_library)
    fake = FakeNvml(folder)
    for name, value in fake.environment.items():
        monkeypatch.setenv(name, value)
    fake.write()
    yield fake


def has_real_gpu() -> bool:
    return REAL_DRIVER.exists() and os.path.exists("/dev/nvidiactl")
