"""Which GPUs a task gets: of the model it asks for, near to each other, never one twice."""

from __future__ import annotations

from hasched.agent.devices import Devices
from hasched.model.spec import Resources
from hasched.model.states import GpuLocality
from hasched.model.wire import GpuDevice

GIB = 2**30


def gpu(number: int, model: str = "X", gib: int = 16, numa_node: int = -1, nvlink_group: int = -1) -> GpuDevice:
    return GpuDevice(f"GPU-{number}", model, gib * GIB, numa_node, nvlink_group)


def devices_of(*gpus: GpuDevice) -> Devices:
    return Devices(len(gpus), [each.uuid for each in gpus], gpus)


def test_a_task_gets_gpus_of_the_model_it_asks_for() -> None:
    devices = devices_of(gpu(0, "T4"), gpu(1, "A100", 40), gpu(2, "T4"), gpu(3, "A100", 40))
    t4 = Resources(gpus=1, gpu_models=("T4",))
    assert devices.take(Resources(gpus=1)) == (1,), "without a wish it is of the model with the most memory"
    assert devices.take(t4) == (0,)
    assert devices.take(Resources(gpus=2, gpu_models=("A100",))) is None
    assert devices.take(Resources(gpus=1, gpu_memory_bytes=20 * GIB)) == (3,)
    assert devices.take(t4) == (2,)
    assert devices.take(t4) is None
    devices.release((0,))
    assert devices.take(t4) == (0,)


def test_a_task_that_waits_in_vain_is_told_from_one_that_waits_for_an_end() -> None:
    devices = devices_of(gpu(0, "T4"), gpu(1, "A100", 40))
    t4 = Resources(gpus=1, gpu_models=("T4",))
    assert not devices.would_wait_in_vain(t4, [(1,)])
    assert devices.would_wait_in_vain(t4, [(0,)])
    assert devices.would_wait_in_vain(Resources(gpus=1, gpu_models=("H100",)), [])
    assert Devices(2).would_wait_in_vain(Resources(gpus=2), [(0,)])
    assert not Devices(2).would_wait_in_vain(Resources(gpus=1), [(0,)])


def test_gpus_are_as_near_to_each_other_as_can_be_had() -> None:
    numa = GpuLocality.SAME_NUMA
    devices = devices_of(*(gpu(number, numa_node=node) for number, node in enumerate([0, 1, 1, 2, 2, 2])))
    two = Resources(gpus=2)
    assert devices.take(two, numa) == (1, 2), "the smallest group that has enough"
    assert devices.take(two, numa) == (3, 4)
    assert devices.take(two, numa) == (0, 5), "none has enough any more"
    assert devices.take(two, numa) is None
    assert devices_of(*(gpu(n, nvlink_group=n % 2) for n in range(4))).take(two, GpuLocality.NVLINK) == (0, 2)
    assert devices_of(*(gpu(n, nvlink_group=n % 2) for n in range(4))).take(two, numa) == (0, 1)


def test_where_nothing_is_known_of_them_the_lowest_are_given() -> None:
    devices = Devices(3)
    assert devices.take(Resources(gpus=2), GpuLocality.NVLINK) == (0, 1)
    assert devices.take(Resources(gpus=1, gpu_models=("T4",))) is None
    assert devices.take(Resources(gpus=1)) == (2,)
