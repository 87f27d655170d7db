"""What a machine says of itself, read from files as they are on real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

import hasched
from hasched.agent.config import AgentConfig, TlsFiles, check
from hasched.agent.discovery import discover
from hasched.agent.machine import find_attributes, find_networks, find_numa_node
from hasched.model.states import TaintEffect
from hasched.model.taints import Taint


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_the_attributes_of_a_machine(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n',
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC 9654, 96-Core  Processor\nflags\t: x\n",
            "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand\n",
            "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
        },
    )
    found = find_attributes(tmp_path)
    assert (found["os"], found["cpu_model"], found["interconnect"], found["hasched"]) == (
        "debian-12",
        "AMD EPYC 9654 96-Core Processor",
        "infiniband",
        hasched.__version__,
    )
    assert found["arch"] and found["kernel"]


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert list(find_attributes(tmp_path)) == ["arch", "hasched", "kernel"]


def test_fast_networks_by_what_sysfs_says(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "infiniband/mlx5_0/ports/1/link_layer": "Ethernet\n",
            "infiniband/mlx5_0/ports/1/state": "4: ACTIVE\n",
            "infiniband/mlx5_1/ports/1/link_layer": "InfiniBand\n",
            "infiniband/mlx5_1/ports/1/state": "1: DOWN\n",
            **{
                f"net/{card}/{file}": text
                for card, speed, state in (
                    ("eth0", 100000, "up"),
                    ("eth1", 25000, "up"),
                    ("eth2", 400000, "down"),
                    ("eth3", 1000, "up"),
                )
                for file, text in (("speed", f"{speed}\n"), ("operstate", f"{state}\n"), ("device/vendor", "0x15b3"))
            },
            "net/veth0/speed": "10000\n",
            "net/veth0/operstate": "up\n",
        },
    )
    assert find_networks(tmp_path) == ["roce", "25GbE", "100GbE"]


def test_the_numa_node_of_a_device(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"sys/bus/pci/devices/0000:3b:00.0/numa_node": "1\n", "sys/bus/pci/devices/0000:5e:00.0/numa_node": "-1\n"},
    )
    assert [
        find_numa_node(bus_id, tmp_path) for bus_id in ("00000000:3B:00.0", "00000000:5E:00.0", "00000000:00:00.0")
    ] == [1, -1, -1]


def config_of(tmp_path: Path, **more: object) -> AgentConfig:
    tls = TlsFiles(ca="ca", cert="cert", key="key")
    return AgentConfig(data_dir=str(tmp_path), managers=["https://m1:7411"], tls=tls, name="n1", **more)  # type: ignore[arg-type]


def test_what_the_configuration_says_is_told_with_what_was_found(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, pool="batch", taints=["old:avoid", "gpu=a100"], attributes={"licences": "near", "arch": "odd"}
    )
    assert list(check(config)) == []
    info = discover(config, "rlimit")
    assert (info.pool, info.taints) == ("batch", (Taint("gpu", "a100"), Taint("old", effect=TaintEffect.AVOID)))
    assert (info.attributes["licences"], info.attributes["arch"], "kernel" in info.attributes) == ("near", "odd", True)
    assert info.resources.disk_bytes > 0


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"pool": "a b"}, "pool"),
        ({"taints": ["ok", "gpu:never"]}, "taints[1]"),
        ({"taints": ["x"] * 33}, "taints"),
        ({"attributes": {"a b": "x"}}, "attributes"),
        ({"attributes": {"a": "x" * 257}}, "attributes.a"),
        ({"attributes": {f"a{number}": "x" for number in range(49)}}, "attributes"),
        ({"labels": {"a": "x" * 257}}, "labels.a"),
    ],
)
def test_a_mistake_in_the_configuration_is_named(tmp_path: Path, more: dict[str, object], place: str) -> None:
    assert [error.path for error in check(config_of(tmp_path, **more))] == [place]
