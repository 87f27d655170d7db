"""GPUs for machines without any: a library in the place of NVIDIA's, and the file that says what it finds."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
GIB = 2**30


@dataclass
class Gpu:
    uuid: str
    model: str = "NVIDIA H100 80GB HBM3"
    memory_bytes: int = 80 * GIB
    numa_node: int = -1
    links: int = -1  # GPUs with one number are joined
    remap_failed: bool = False
    ecc_errors: int = 0
    lost: bool = False
    instances: dict[str, str] | None = None  # MIG: profile by UUID; None: it isn't partitioned


@dataclass
class FakeNvml:
    """`environment` makes a process find it. Change `gpus` and `xids`, then `write`."""

    folder: Path
    gpus: list[Gpu] = field(default_factory=list)
    xids: list[tuple[str, int]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML_STATE": str(self.folder / "state")}

    def write(self) -> None:
        """At once, for whoever reads it meanwhile."""
        lines = []
        for number, gpu in enumerate(self.gpus):
            flags = (int(gpu.instances is not None), int(gpu.remap_failed), gpu.ecc_errors, int(gpu.lost))
            bus = f"00000000:{number + 1:02X}:00.0"
            amounts = (gpu.memory_bytes, gpu.numa_node, gpu.links, *flags)
            lines.append(f"gpu {gpu.uuid} {bus} {' '.join(map(str, amounts))} {gpu.model}")
            for uuid, profile in (gpu.instances or {}).items():
                lines.append(f"mig {gpu.uuid} {uuid} {10 * GIB} {gpu.model} MIG {profile}")
        lines += [f"xid {uuid} {number}" for uuid, number in self.xids]
        new = self.folder / "state.new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self.folder / "state")


def build(folder: Path) -> Path:
    """The library, built into this folder."""
    library = folder / "libnvidia-ml.so.1"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{library.name}"]
    subprocess.run([*command, "-o", str(library), str(SOURCE)], check=True)
    return library
