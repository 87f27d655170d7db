"""A node: what it offers, what is allocated on it, and which attempts hold it."""

from __future__ import annotations

import msgspec

from hasched.model.spec import Resources
from hasched.model.states import NodeState
from hasched.model.wire import NodeInfo
from hasched.statemachine.control import FREE, Control, Drain


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
    control: Control = FREE

    @property
    def eligible(self) -> bool:
        """Whether neither a cordon, nor a drain, nor a quarantine keeps new work away."""
        return self.control is FREE or self.control.eligible

    @property
    def takes_work(self) -> bool:
        """Whether new attempts may be placed here."""
        return self.state is NodeState.HEALTHY and self.eligible

    @property
    def drain(self) -> Drain | None:
        return self.control.drain

    @property
    def drained(self) -> bool:
        """Whether it was told to drain, and nothing is left here."""
        return self.control.drain is not None and not self.attempts

    @property
    def status(self) -> str:
        """Its state and everything that keeps work away, as people read it: `healthy,cordoned`."""
        control = self.control
        words = [self.state.value]
        if control.cordon is not None:
            words.append("cordoned")
        if control.drain is not None:
            words.append("draining" if self.attempts else "drained")
        if control.quarantine is not None:
            words.append("on_probation" if control.quarantine.probation else "quarantined")
        return ",".join(words)

    def is_remembered_by(self, info: NodeInfo) -> bool:
        """Whether an agent that says this has the table of attempts that the node's agent had; it counts if one doesn't say."""
        before, now = self.info.table_id, info.table_id
        return before == now or not before or not now

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

    def room_for(self, resources: Resources, at_most: int) -> int:
        """How many times so much is free now, counted up to `at_most`."""
        total = self.info.resources
        room = at_most
        if resources.cpu_milli:
            room = min(room, (total.cpu_milli - self.allocated_cpu_milli) // resources.cpu_milli)
        if resources.memory_bytes:
            room = min(room, (total.memory_bytes - self.allocated_memory_bytes) // resources.memory_bytes)
        if resources.gpus:
            room = min(room, (total.gpus - self.allocated_gpus) // resources.gpus)
        if resources.countables:
            room = min(room, self._countables_room(resources, at_most))
        return max(room, 0)

    def _countables_room(self, resources: Resources, at_most: int) -> int:
        offered = dict(self.info.resources.countables)
        room = at_most
        for name, asked in resources.countables:
            room = min(room, (offered.get(name, 0) - self.allocated_countables.get(name, 0)) // asked)
        return max(room, 0)

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
