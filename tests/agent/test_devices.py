"""Which device goes to whom: near to each other, never to two, and the same that the managers counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.agent.config import AgentConfig, DeviceSettings, TlsFiles
from hasched.agent.devices import GPU, SHARE, Device, Devices, number_gpus
from hasched.agent.inventory import choose_gpus, describe
from hasched.model.facts import gpu_class_of, sort_gpus
from hasched.model.spec import Resources
from hasched.model.states import GpuLocality
from hasched.model.wire import NodeInfo

INFO = NodeInfo(hostname="n1", agent_version="1", resources=Resources(cpu_milli=4000, countables=(("licence", 2),)))


def gpu(
    name: str, *, link: int = -1, numa: int = -1, model: str = "H100", memory: int = 80, health: str = ""
) -> Device:
    number = str(ord(name[-1]) - ord("A"))
    return Device(
        id=name,
        visible=number,
        nvlink_group=link,
        numa_node=numa,
        model=model,
        memory_bytes=memory,
        health=health,
    )


def config(**devices: object) -> AgentConfig:
    tls = TlsFiles(ca="", cert="", key="")
    return AgentConfig(data_dir="/", managers=[], tls=tls, devices=DeviceSettings(**devices))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gpus", "amount", "locality", "taken"),
    [
        pytest.param("ABCD", 2, GpuLocality.ANY, "AB", id="nothing is known: the lowest"),
        pytest.param("A0- B1- C0- D1-", 2, GpuLocality.ANY, "AC", id="the same link"),
        pytest.param("A0- B0- C0- D1- E1-", 2, GpuLocality.ANY, "DE", id="the smallest group that is large enough"),
        pytest.param("A0- B0- C0- D1-", 1, GpuLocality.ANY, "D", id="one comes from the smallest group"),
        pytest.param("A00 B01 C00 D01", 2, GpuLocality.ANY, "AC", id="of one link those of one NUMA node"),
        pytest.param("A-0 B-1 C-0 D-1", 2, GpuLocality.ANY, "AC", id="no links: the same NUMA node"),
        pytest.param("A00 B10 C01 D11", 2, GpuLocality.NVLINK, "AC", id="the link before the NUMA node"),
        pytest.param("A00 B10 C01 D11", 2, GpuLocality.SAME_NUMA, "AB", id="the NUMA node before the link"),
        pytest.param(
            "A0- B0- C1- D1- E1-", 4, GpuLocality.ANY, "ACDE", id="no group is large enough: as few as will do"
        ),
    ],
)
def test_gpus_are_bound_near_to_each_other(gpus: str, amount: int, locality: GpuLocality, taken: str) -> None:
    """A GPU is written as its name, its link and its NUMA node."""

    def number(text: str) -> int:
        return -1 if text in ("-", "") else int(text)

    words = gpus.split() if " " in gpus else list(gpus)
    devices = Devices(gpu(word[0], link=number(word[1:2]), numa=number(word[2:3])) for word in words)
    assert devices.take(Resources(gpus=amount), locality) == tuple(taken)


def test_a_node_with_several_models_binds_the_one_that_the_managers_counted() -> None:
    gpus = [gpu("A", model="L4", memory=24), gpu("B", model="H100"), gpu("C", model="L4", memory=24)]
    devices = Devices(gpus)
    assert devices.take(Resources(gpus=1, gpu_models=("L4",))) == ("A",)
    assert devices.take(Resources(gpus=1)) == ("B",), "the one with the most memory"
    assert devices.take(Resources(gpus=1)) is None, "the managers have no other for it, either"
    assert devices.lacking(Resources(gpus=1), ["B"]) == "the node has 1 GPU now, too few for what was placed on it"
    assert devices.lacking(Resources(gpus=1), []) == "", "it need only wait for B"
    assert devices.take(Resources(gpus=1, gpu_memory_bytes=200)) is None


def test_shares_of_one_gpu_go_to_several_and_fill_what_is_begun() -> None:
    devices = Devices(choose_gpus([gpu("A"), gpu("B")], config(gpu_shares=4)))
    one, two, rest = (Resources(countables=((SHARE, amount),)) for amount in (1, 2, 4))
    assert devices.take(one) == ("A/0",)
    assert devices.take(two) == ("A/1", "A/2")
    assert devices.visible(("A/1", "A/2")) == "0"
    assert devices.take(rest) == ("B/0", "B/1", "B/2", "B/3")
    assert devices.take(two) is None
    assert devices.take(one) == ("A/3",)
    assert devices.count(SHARE) == 8


def test_chosen_gpus_are_shared_and_the_others_whole() -> None:
    chosen = choose_gpus([gpu("A"), gpu("B"), gpu("C")], config(gpu_shares=2, shared_gpus=["B", "2"]))
    assert [(device.id, device.kind, device.units) for device in chosen] == [
        ("A", GPU, 1),
        ("B", SHARE, 2),
        ("C", SHARE, 2),
    ]


def test_a_mig_instance_is_named_by_its_uuid_even_beside_a_whole_gpu() -> None:
    instance = Device(id="MIG-1", kind="mig-1g.10gb", visible="MIG-1")
    devices = Devices([gpu("A"), instance])
    units = devices.take(Resources(countables=(("mig-1g.10gb", 1),)))
    assert units == ("MIG-1",)
    assert devices.visible(units) == "MIG-1"
    assert devices.visible(("A", "MIG-1")) == "A,MIG-1"
    assert devices.environment(units) == {"HASCHED_DEVICES": "mig-1g.10gb=MIG-1"}


def test_a_plugins_devices_are_named_as_it_wants() -> None:
    cards = [Device(id=f"fpga:c{n}", kind="fpga", name=f"c{n}", variable="FPGA") for n in range(2)]
    devices = Devices([*cards, gpu("A")])
    units = devices.take(Resources(gpus=1, countables=(("fpga", 2), ("licence", 1))))
    assert units == ("A", "fpga:c0", "fpga:c1")
    assert devices.environment(units) == {"FPGA": "c0,c1", "HASCHED_DEVICES": "gpu=A fpga=c0,c1"}
    assert devices.visible(units) == "0"
    assert devices.take(Resources(countables=(("licence", 1),))) == (), "what nobody binds is only counted"


def test_a_node_offers_what_is_well_and_tells_of_all() -> None:
    found = [
        gpu("A", link=0, numa=1),
        gpu("B", health="Xid 48"),
        Device(id="MIG-1", kind="mig-1g.10gb", visible="MIG-1"),
        Device(id="fpga:c0", kind="fpga", units=3),
        Device(id="fpga:c1", kind="fpga", health="hot"),
    ]
    info = describe(INFO, found)
    assert info.resources == Resources(
        cpu_milli=4000, gpus=1, countables=(("fpga", 3), ("licence", 2), ("mig-1g.10gb", 1))
    )
    assert [(each.uuid, each.nvlink_group, each.numa_node) for each in info.gpus] == [("A", 0, 1)]
    assert [(each.id, each.health) for each in info.devices] == [
        ("B", "Xid 48"),
        ("MIG-1", ""),
        ("fpga:c0", ""),
        ("fpga:c1", "hot"),
    ]
    assert describe(INFO, []) == INFO


def test_what_a_restarted_agent_finds_bound_stays_so() -> None:
    shared = choose_gpus([gpu("A"), gpu("B")], config(gpu_shares=2, shared_gpus=["B"]))
    everything = [*shared, Device(id="MIG-1", kind="mig-1g.10gb", visible="MIG-1"), Device(id="fpga:c0", kind="fpga")]
    before = Devices(everything)
    asked = Resources(gpus=1, countables=((SHARE, 1), ("fpga", 1), ("mig-1g.10gb", 1)))
    units = before.take(asked)
    assert units is not None
    after = Devices(everything)
    claimed, gone = after.claim(before.visible(units), before.known_as(units))
    assert (sorted(claimed), gone) == (sorted(units), [])
    assert after.take(asked) is None
    without = Devices(shared)
    assert without.claim(before.visible(units), before.known_as(units)) == (("A", "B/0"), ["MIG-1", "fpga:c0"])


REQUESTS = st.builds(
    Resources,
    gpus=st.integers(0, 3),
    gpu_models=st.sampled_from([(), ("H100",), ("L4",)]),
    gpu_memory_bytes=st.sampled_from([0, 24, 80]),
    countables=st.sampled_from([(), (("fpga", 1),), (("fpga", 4),)]),
)
INVENTORIES = st.lists(
    st.tuples(st.sampled_from("ABCDEFGH"), st.sampled_from(["H100", "L4"]), st.integers(-1, 1), st.booleans()),
    max_size=8,
    unique_by=lambda each: each[0],
)


@settings(max_examples=300, deadline=None)
@given(inventory=INVENTORIES, requests=st.lists(REQUESTS, max_size=6), keep=st.integers(0, 8))
def test_nothing_is_bound_twice_and_what_managers_count_as_free_can_be_had(
    inventory: list[tuple[str, str, int, bool]], requests: list[Resources], keep: int
) -> None:
    found = [
        gpu(name, model=model, memory=80 if model == "H100" else 24, link=link, health="" if well else "Xid 48")
        for name, model, link, well in inventory
    ]
    found.append(Device(id="fpga:c", kind="fpga", units=5))
    devices = Devices(found)
    well = [device for device in found if device.kind == GPU and not device.health]
    kinds = sort_gpus(describe(INFO, found).gpus, len(well))
    free = {number: kind.number for number, kind in enumerate(kinds)}
    held: list[str] = []
    for request in requests:
        units = devices.take(request)
        kind = gpu_class_of(kinds, request) if request.gpus else -1
        fits = (not request.gpus or free.get(kind, 0) >= request.gpus) and sum(
            amount for _, amount in request.countables
        ) <= 5 - sum(unit.startswith("fpga") for unit in held)
        assert (units is not None) == fits
        if units is not None:
            held += units
            if request.gpus:
                free[kind] -= request.gpus
    assert len(held) == len(set(held))
    gone = devices.update(found[:keep])
    assert set(gone) == {unit for unit in held if not any(unit in device.names for device in found[:keep])}


def test_gpus_of_which_nothing_is_known_are_numbered() -> None:
    devices = Devices(number_gpus(2))
    assert devices.take(Resources(gpus=2)) == ("0", "1")
    assert Devices(number_gpus(12)).take(Resources(gpus=12)) == tuple(map(str, range(12))), "in the order of the bus"
    assert devices.known_as(("0", "1")) == (), "a number says nothing once the devices have changed"
