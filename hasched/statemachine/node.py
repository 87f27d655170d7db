"""A node: what it offers, what is allocated on it, and which attempts hold it."""

from __future__ import annotations

import msgspec

from hasched.model.spec import Resources
from hasched.model.states import NodeState
from hasched.model.wire import NodeInfo


class Node(msgspec.Struct, gc=False, kw_only=True):
    """Read it freely; only `evolve` writes. `attempts` maps (job, index) to the number of the attempt that runs here."""

    id: str
    number: int  # from 1; stands for the id in compact records
    info: NodeInfo
    state: NodeState
    reason: str
    registered_ms: int
    changed_ms: int
    log_index: int
    allocated_cpu_milli: int = 0
    allocated_memory_bytes: int = 0
    allocated_gpus: int = 0
    allocated_countables: dict[str, int] = {}
    attempts: dict[tuple[int, int], int] = {}

    @property
    def total(self) -> Resources:
        return self.info.resources

    @property
    def allocated(self) -> Resources:
        return Resources(
            cpu_milli=self.allocated_cpu_milli,
            memory_bytes=self.allocated_memory_bytes,
            gpus=self.allocated_gpus,
            countables=tuple(sorted(self.allocated_countables.items())),
        )

    def fits(self, resources: Resources) -> bool:
        """Whether so much is free now. After the inventory shrank less than nothing may be free: then nothing fits."""
        total = self.info.resources
        return (
            self.allocated_cpu_milli + resources.cpu_milli <= total.cpu_milli
            and self.allocated_memory_bytes + resources.memory_bytes <= total.memory_bytes
            and self.allocated_gpus + resources.gpus <= total.gpus
            and (not resources.countables or self._countables_fit(total, resources))
        )

    def _countables_fit(self, total: Resources, resources: Resources) -> bool:
        offered = dict(total.countables)
        return all(
            self.allocated_countables.get(name, 0) + amount <= offered.get(name, 0)
            for name, amount in resources.countables
        )

    def allocate(self, resources: Resources, times: int = 1) -> None:
        """Take `times` as much, or give it back where `times` is negative. For `evolve`, and copies used for planning."""
        self.allocated_cpu_milli += resources.cpu_milli * times
        self.allocated_memory_bytes += resources.memory_bytes * times
        self.allocated_gpus += resources.gpus * times
        for name, amount in resources.countables:
            left = self.allocated_countables.get(name, 0) + amount * times
            if left:
                self.allocated_countables[name] = left
            else:
                del self.allocated_countables[name]
