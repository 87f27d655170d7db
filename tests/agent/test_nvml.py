"""What is read from NVIDIA's library, while GPUs come, go and break. The library is a fake one, loaded into this process."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from hasched.agent.nvml import Nvml
from tests.agent.gpus import fake, fake_library  # noqa: F401
from tests.support.fake_nvml import GIB, FakeNvml, Gpu


@pytest.fixture(autouse=True)
def loaded(fake_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """pynvml asks for the library by its name, and gets what is loaded already under that name."""
    ctypes.CDLL(str(fake_library), mode=ctypes.RTLD_GLOBAL)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


@pytest.fixture
def nvml(fake: FakeNvml) -> Iterator[Nvml]:  # noqa: F811
    nvml = Nvml(ignored_xids=(61,))
    yield nvml
    nvml.close()


def names(nvml: Nvml) -> list[tuple[str, str]]:
    return [(device.id, device.health) for device in nvml.read()]


def test_without_a_driver_there_is_nothing(fake: FakeNvml, nvml: Nvml) -> None:  # noqa: F811
    (fake.folder / "state").unlink()
    assert nvml.read() == []
    fake.gpus = [Gpu("GPU-A")]
    fake.write()
    assert names(nvml) == [("GPU-A", "")], "the driver was loaded meanwhile"


def test_a_gpu_is_known_by_all_that_placement_asks_for(fake: FakeNvml, nvml: Nvml) -> None:  # noqa: F811
    fake.gpus = [Gpu("GPU-A", numa_node=1, links=3), Gpu("GPU-B", "NVIDIA L4", 24 * GIB), Gpu("GPU-C", links=3)]
    fake.write()
    first, second, third = nvml.read()
    assert (first.id, first.visible, first.model, first.memory_bytes) == (
        "GPU-A",
        "0",
        "NVIDIA H100 80GB HBM3",
        80 * GIB,
    )
    assert (first.numa_node, first.nvlink_group, third.nvlink_group) == (1, 0, 0)
    assert (second.visible, second.model, second.nvlink_group, second.numa_node) == ("1", "NVIDIA L4", -1, -1)


@pytest.mark.parametrize(
    ("gpu", "health"),
    [
        (Gpu("GPU-A", remap_failed=True), "a broken row of its memory can't be replaced"),
        (Gpu("GPU-A", ecc_errors=3), "3 uncorrected memory errors (ECC) since the driver was loaded"),
    ],
)
def test_a_gpu_with_broken_memory_says_so(fake: FakeNvml, nvml: Nvml, gpu: Gpu, health: str) -> None:  # noqa: F811
    fake.gpus = [gpu, Gpu("GPU-B")]
    fake.write()
    assert names(nvml) == [("GPU-A", health), ("GPU-B", "")]


def test_an_xid_speaks_against_a_gpu_for_as_long_as_it_is_there(fake: FakeNvml, nvml: Nvml) -> None:  # noqa: F811
    fake.gpus = [Gpu("GPU-A"), Gpu("GPU-B")]
    fake.write()
    assert names(nvml) == [("GPU-A", ""), ("GPU-B", "")]
    fake.xids = [("GPU-A", 31), ("GPU-A", 61), ("GPU-B", 79)]
    fake.write()
    assert names(nvml) == [("GPU-A", ""), ("GPU-B", "Xid 79")], "31 is an application's fault, 61 is to be ignored"
    fake.gpus.append(Gpu("GPU-C"))
    fake.write()
    assert names(nvml) == [("GPU-A", ""), ("GPU-B", "Xid 79"), ("GPU-C", "")], "a new session has not forgotten"
    fake.gpus.pop(1)
    fake.write()
    assert names(nvml) == [("GPU-A", ""), ("GPU-C", "")]
    fake.gpus.append(Gpu("GPU-B"))
    fake.write()
    assert names(nvml) == [("GPU-A", ""), ("GPU-C", ""), ("GPU-B", "")], "it was taken out, and put in again"


def test_a_gpu_that_falls_off_the_bus_hides_no_other_and_may_come_back(fake: FakeNvml, nvml: Nvml) -> None:  # noqa: F811
    fake.gpus = [Gpu("GPU-A"), Gpu("GPU-B")]
    fake.write()
    assert names(nvml) == [("GPU-A", ""), ("GPU-B", "")]
    fake.gpus[0].lost = True
    fake.write()
    assert names(nvml) == [("GPU-B", "")]
    (left,) = nvml.read()
    assert (left.id, left.visible) == ("GPU-B", "0"), "CUDA can't see the other, either"
    fake.gpus[0].lost = False
    fake.write()
    assert names(nvml) == [("GPU-A", ""), ("GPU-B", "")]


def test_a_partitioned_gpu_is_its_instances(fake: FakeNvml, nvml: Nvml) -> None:  # noqa: F811
    fake.gpus = [
        Gpu("GPU-A", numa_node=1, instances={"MIG-1": "1g.10gb", "MIG-2": "3g.40gb", "MIG-3": "1g.10gb+me"}),
        Gpu("GPU-B"),
        Gpu("GPU-C", instances={}),
    ]
    fake.write()
    found = nvml.read()
    assert [(each.id, each.kind, each.visible, each.numa_node) for each in found] == [
        ("MIG-1", "mig-1g.10gb", "MIG-1", 1),
        ("MIG-2", "mig-3g.40gb", "MIG-2", 1),
        ("MIG-3", "mig-1g.10gb.me", "MIG-3", 1),
        ("GPU-B", "gpu", "1", -1),
    ]
    fake.gpus[0].instances = {"MIG-9": "7g.80gb"}
    fake.xids = [("GPU-A", 48)]
    fake.write()
    assert [(each.kind, each.health) for each in nvml.read()] == [("mig-7g.80gb", "Xid 48"), ("gpu", "")]
