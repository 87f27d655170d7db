"""What a machine is, as constraints ask for it: system, processor, fast networks. Read from /etc, /proc and /sys.

Whatever can't be read is left out: an attribute that isn't there meets no constraint, which is the safe side.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import hasched

MAX_CHARS = 128
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FAST_MBIT = 10_000  # slower networks are not worth a word


def find_attributes(root: Path = Path("/")) -> dict[str, str]:
    """The attributes of the machine whose files are under `root`, sorted by name."""
    uname = os.uname()
    found = {
        "os": _read_os(root / "etc/os-release"),
        "arch": _ARCHITECTURES.get(uname.machine, uname.machine),
        "kernel": uname.release,
        "cpu_model": _read_cpu_model(root / "proc/cpuinfo"),
        "hasched": hasched.__version__,
        "interconnect": ",".join(find_networks(root / "sys/class")),
    }
    return {name: value[:MAX_CHARS] for name, value in sorted(found.items()) if value}


def find_networks(classes: Path) -> list[str]:
    """`infiniband` and `roce` by the link layer of RDMA devices; `100GbE` and the like by the speed of cards that are up."""
    found: dict[str, None] = {}
    for port in sorted(classes.glob("infiniband/*/ports/*")):
        layer = _read(port / "link_layer").lower()
        if "active" in _read(port / "state").lower():
            found["infiniband" if layer == "infiniband" else "roce"] = None
    speeds = []
    for card in sorted(classes.glob("net/*")):
        speed = _read(card / "speed")
        if (
            (card / "device").exists()
            and speed.isdigit()
            and int(speed) >= _FAST_MBIT
            and _read(card / "operstate") == "up"
        ):
            speeds.append(int(speed) // 1000)
    found |= dict.fromkeys(f"{speed}GbE" for speed in sorted(speeds))
    return list(found)


def find_numa_node(pci_bus_id: str, root: Path = Path("/")) -> int:
    """The NUMA node of a PCI device; -1 where the machine says none. NVML writes the domain with 8 digits, sysfs with 4."""
    domain, _, rest = pci_bus_id.lower().partition(":")
    text = _read(root / "sys/bus/pci/devices" / f"{domain[-4:]}:{rest}" / "numa_node")
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else -1


def _read_os(path: Path) -> str:
    """`debian-12`, by the ID and VERSION_ID of os-release(5)."""
    fields = dict(line.partition("=")[::2] for line in _read(path).splitlines())
    name, version = (fields.get(key, "").strip("\"'") for key in ("ID", "VERSION_ID"))
    return f"{name}-{version}" if version else name


def _read_cpu_model(path: Path) -> str:
    match = re.search(r"^model name\s*: (.*)$", _read(path), re.MULTILINE)
    return " ".join(match[1].replace(",", " ").split()) if match is not None else ""  # a comma would part two values


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
