"""A node: what it offers, what is allocated on it, and which attempts hold it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hasched.model.eligibility import is_admitted
from hasched.model.facts import NodeFacts, gpu_class_of, most_alike, sort_gpus
from hasched.model.spec import PlacementRules, Resources
from hasched.model.states import NodeState
from hasched.model.wire import NodeInfo
from hasched.statemachine.control import FREE, Control, Drain

MAX_VERDICTS = 1024


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
    allocated_disk_bytes: int = 0
    allocated_gpu_kinds: dict[int, int] = {}  # by kind, on nodes with several kinds alone
    attempts: dict[tuple[int, int], int] = {}
    control: Control = FREE
    reported: NodeInfo | None = None  # what the agent says, where operators have overruled some of it in `info`
    known_facts: NodeFacts | None = None  # of `facts_of`, see `facts`
    facts_of: NodeInfo | None = None
    admitted: dict[PlacementRules | None, bool] = {}  # verdicts, for as long as the facts hold

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

    @property
    def said(self) -> NodeInfo:
        """What the agent says of the node."""
        return self.info if self.reported is None else self.reported

    def describe(self, info: NodeInfo) -> None:
        """Take what the agent says, under what operators have decided."""
        self.info = self.control.overrides.apply(info)
        self.reported = None if self.info is info else info

    def is_remembered_by(self, info: NodeInfo) -> bool:
        """Whether an agent that says this has the table of attempts that the node's agent had; it counts if one doesn't say."""
        before, now = self.info.table_id, info.table_id
        return before == now or not before or not now

    @property
    def total(self) -> Resources:
        return self.info.resources

    @property
    def facts(self) -> NodeFacts:
        """What placement rules ask for. Made once for each inventory."""
        if self.known_facts is None or self.facts_of is not self.info:
            info = self.info
            self.known_facts = NodeFacts(
                node_id=self.id,
                hostname=info.hostname,
                pool=info.pool,
                labels=info.labels,
                taints=info.taints,
                attributes=info.attributes,
                total=info.resources,
                gpus=sort_gpus(info.gpus, info.resources.gpus),
                most_gpus_on_numa=most_alike(gpu.numa_node for gpu in info.gpus),
                most_gpus_linked=most_alike(gpu.nvlink_group for gpu in info.gpus),
                version=self.log_index,
            )
            self.facts_of = info
            self.admitted = {}
        return self.known_facts

    def admits(self, rules: PlacementRules | None) -> bool:
        """Whether a job with these rules may run here, whatever else does."""
        facts = self.facts
        verdict = self.admitted.get(rules)
        if verdict is None:
            if len(self.admitted) >= MAX_VERDICTS:
                self.admitted.clear()
            verdict = self.admitted[rules] = is_admitted(facts, rules)
        return verdict

    @property
    def allocated(self) -> Resources:
        return Resources(
            cpu_milli=self.allocated_cpu_milli,
            memory_bytes=self.allocated_memory_bytes,
            gpus=self.allocated_gpus,
            countables=tuple(sorted(self.allocated_countables.items())),
            disk_bytes=self.allocated_disk_bytes,
        )

    def room_for(self, resources: Resources, at_most: int, *, by_kind: bool = True) -> int:
        """How many times so much is free now, counted up to `at_most`. `by_kind`: the kinds of its GPUs matter."""
        total = self.info.resources
        room = at_most
        if resources.cpu_milli:
            room = min(room, (total.cpu_milli - self.allocated_cpu_milli) // resources.cpu_milli)
        if resources.memory_bytes:
            room = min(room, (total.memory_bytes - self.allocated_memory_bytes) // resources.memory_bytes)
        if resources.gpus:
            free = self.free_gpus(resources) if by_kind else total.gpus - self.allocated_gpus
            room = min(room, free // resources.gpus)
        if resources.disk_bytes:
            room = min(room, (total.disk_bytes - self.allocated_disk_bytes) // resources.disk_bytes)
        if resources.countables:
            room = min(room, self._countables_room(resources, at_most))
        return max(room, 0)

    def free_gpus(self, request: Resources) -> int:
        """How many GPUs of the kind that this request gets here are free."""
        free = self.info.resources.gpus - self.allocated_gpus
        kinds = self.facts.gpus
        if len(kinds) < 2 and not request.picks_gpus:
            return free
        kind = gpu_class_of(kinds, request)
        if kind < 0:
            return 0
        return min(free, kinds[kind].number - self.allocated_gpu_kinds.get(kind, 0)) if len(kinds) > 1 else free

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
        self.allocated_disk_bytes += resources.disk_bytes * times
        if resources.gpus:
            self._allocate_gpus(resources, times)
        for name, amount in resources.countables:
            left = self.allocated_countables.get(name, 0) + amount * times
            if left:
                self.allocated_countables[name] = left
            else:
                del self.allocated_countables[name]

    def _allocate_gpus(self, request: Resources, times: int) -> None:
        kinds = self.facts.gpus
        if len(kinds) > 1:
            kind = gpu_class_of(kinds, request)
            left = self.allocated_gpu_kinds.get(kind, 0) + request.gpus * times
            if left:
                self.allocated_gpu_kinds[kind] = left
            else:
                del self.allocated_gpu_kinds[kind]

    def recount_gpus(self, requests: Iterable[Resources]) -> None:
        """Its GPUs have changed: count anew what the attempts here hold, by kind. For `evolve`."""
        self.allocated_gpu_kinds = {}
        for request in requests:
            if request.gpus:
                self._allocate_gpus(request, 1)
