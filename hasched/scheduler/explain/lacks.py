"""What keeps one task from one node: everything at once, not the first thing that comes up.

A node without a lack would take the task now, by the same facts and sums that the planner and the state machine go by. There
may be ten thousand nodes, so the question is asked in two ways: `Asker.mark` only says which lacks a node has, as bits, and
`Asker.lacks` tells one node's in full.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import msgspec

from hasched.model.constraints import compile_constraint
from hasched.model.eligibility import is_in_pool
from hasched.model.facts import gpu_class_of
from hasched.model.ids import JobId, NodeId
from hasched.model.reasons import ReasonCode
from hasched.model.spec import ANYWHERE, Resources
from hasched.model.states import NodeState, TaintEffect
from hasched.model.units import format_bytes, format_cpu
from hasched.scheduler.explain.surroundings import Surroundings
from hasched.scheduler.filters import ADDED, find_added
from hasched.scheduler.keeping import NOTHING, Kept
from hasched.scheduler.limits import open_choices
from hasched.scheduler.order import Account, ByPolicies, group_of
from hasched.scheduler.shapes import NEVER_MS, limit_of, rounded_up
from hasched.scheduler.slots import MAX_ATTEMPTS_PER_NODE
from hasched.scheduler.windows import Windows
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.state import State


class Lack(NamedTuple):
    """One thing that a node has not, or has too little of. `detail` says which taint, constraint, countable or reservation."""

    code: ReasonCode
    detail: str = ""
    free: int = 0  # of a resource, now; negative where less is there than is allocated; of a reservation, its start
    total: int = 0  # of a reservation, its end


Lacks = tuple[Lack, ...]
_NONE: Lacks = ()

# Bits of a mark. Those of countables follow, one for each that the request names.
CPU, MEMORY, GPUS, DISK, SLOTS = 1, 2, 4, 8, 16
FIRST_COUNTABLE = 5  # the number of the bit


class Known(NamedTuple):
    """What only the leader knows: for whom its planner keeps which nodes, which nodes it can give work to (None: all), and
    what free GPUs keep."""

    held: Mapping[NodeId, JobId] = {}
    reachable: Container[NodeId] | None = None
    kept: Kept = NOTHING


class Asker:
    """A job's question to nodes: would you start one of my tasks now?"""

    def __init__(self, state: State, job: Job, known: Known | None = None) -> None:
        self._reachable = known.reachable if known is not None else None
        self._held = _held_from(state, job, known.held) if known is not None and known.held else {}
        self.rules = job.placement if job.placement is not None else ANYWHERE
        self.requests = self.rules.any_of or (job.resources,)
        self._choices = open_choices(state, job)
        self._kept = known.kept if known is not None and not all(each.gpus for each in self.requests) else NOTHING
        self._windows = Windows()
        self._windows.refresh(state)
        self._access = self._windows.access(Account(*job.account))
        limit_ms = limit_of(job)  # which the planner rounds
        self._end_ms = state.now_ms + (limit_ms if limit_ms == NEVER_MS else rounded_up(limit_ms))
        self._surroundings = Surroundings(state, job)
        self._job = job
        self._numbered: list[Lacks] = [_NONE]  # what nodes were found to lack of themselves, each once,
        self._numbers: dict[Lacks, int] = {_NONE: 0}
        self._around: dict[tuple[int | None, ...], int] = {}  # because of so many around them
        self.looks_closer = bool(
            self.rules.constraints
            or self._windows
            or self._surroundings
            or ADDED
            or self._held
            or self._kept != NOTHING
            or self._reachable is not None
        )

    def mark(self, node: Node) -> tuple[int, int]:
        """Which of the alternative requests comes nearest on this node, and what it has too little of, as bits."""
        first = self._choices[0]
        mark = mark_shortages(node, self.requests[first])
        if not mark or len(self._choices) == 1:
            return first, mark
        return min(
            ((choice, mark_shortages(node, self.requests[choice])) for choice in self._choices),
            key=lambda found: (found[1].bit_count(), found[0]),
        )

    @property
    def open_requests(self) -> list[Resources]:
        """Those that no limit keeps back, the preferred first."""
        return [self.requests[choice] for choice in self._choices]

    def marks(
        self, nodes: Sequence[Node], cpus: Sequence[int], memory: Sequence[int]
    ) -> list[tuple[int, int]] | list[int]:
        """The same of all nodes of a class, with what is free on each of them; the mark alone where there is one request."""
        request = self.requests[0]
        kinds = request.gpus and (request.picks_gpus or len(nodes[0].facts.gpus) > 1)
        if len(self.requests) > 1:
            return list(map(self.mark, nodes))
        if request.disk_bytes or request.countables or kinds:
            return [mark_shortages(node, request) for node in nodes]
        cpu_milli, memory_bytes = request.cpu_milli, request.memory_bytes
        marks = [(c < cpu_milli) + 2 * (m < memory_bytes) for c, m in zip(cpus, memory, strict=True)]
        if asked := request.gpus:
            short = [node.info.resources.gpus - node.allocated_gpus < asked for node in nodes]
            marks = [mark + GPUS * less for mark, less in zip(marks, short, strict=True)]
        attempts = list(map(len, [node.attempts for node in nodes]))
        if max(attempts) >= MAX_ATTEMPTS_PER_NODE:
            full = [each >= MAX_ATTEMPTS_PER_NODE for each in attempts]
            marks = [mark + SLOTS * each for mark, each in zip(marks, full, strict=True)]
        return marks

    def number_lacks(self, nodes: Sequence[Node]) -> list[int]:
        """What each of these nodes lacks of itself, as a number for `lacks_of_number`."""
        if not self.looks_closer:
            return [0] * len(nodes)
        flags = self._look_at(nodes)
        if not self._surroundings:
            return [self._number(node) if flag else 0 for node, flag in zip(nodes, flags, strict=True)]
        found: list[int] = []
        for node, flag, around in zip(nodes, flags, self._surroundings.around(nodes), strict=True):
            number = None if flag else self._around.get(around)
            if number is None:
                number = self._number(node)
                if not flag:
                    self._around[around] = number
            found.append(number)
        return found

    def lacks_of_number(self, number: int) -> Lacks:
        return self._numbered[number]

    def _number(self, node: Node) -> int:
        lacks = self.lacks_of_itself(node)
        number = self._numbers.setdefault(lacks, len(self._numbered))
        if number == len(self._numbered):
            self._numbered.append(lacks)
        return number

    def _look_at(self, nodes: Sequence[Node]) -> list[bool]:
        """Which of them may lack something of itself, what runs around them apart."""
        if ADDED:
            return [True] * len(nodes)
        held, reachable = self._held, self._reachable
        if reachable is not None:
            flags = [node.id not in reachable or node.id in held for node in nodes]
        else:
            flags = [node.id in held for node in nodes]
        if self.rules.constraints:
            flags = [flag or not node.admits(self.rules) for flag, node in zip(flags, nodes, strict=True)]
        if self._windows:
            closes_ms, access = self._windows.closes_ms, self._access
            flags = [flag or closes_ms(node.id, access) < NEVER_MS for flag, node in zip(flags, nodes, strict=True)]
        if self._kept != NOTHING and nodes[0].info.resources.gpus:
            flags = [flag or self._is_kept(node) for flag, node in zip(flags, nodes, strict=True)]
        return flags

    def lacks(self, node: Node) -> tuple[int, Lacks]:
        """Which of the alternative requests comes nearest, and everything that the node lacks for it."""
        choice, _ = self.mark(node)
        about = (*self.lacks_of_class(node), *self.lacks_of_itself(node))
        return choice, (*about, *find_shortages(node, self.requests[choice]))

    def lacks_of_class(self, node: Node) -> Lacks:
        """What all nodes of its class lack: they aren't in service, in another pool, or tainted."""
        found: list[Lack] = []
        if node.state is not NodeState.HEALTHY:
            found.append(Lack(ReasonCode.NODE_UNHEALTHY, node.state.value))
        control = node.control
        if control.cordon is not None:
            found.append(Lack(ReasonCode.NODE_CORDONED))
        if control.drain is not None:
            found.append(Lack(ReasonCode.NODE_DRAINING))
        if control.quarantined:
            found.append(Lack(ReasonCode.NODE_QUARANTINED))
        facts, rules = node.facts, self.rules
        if not is_in_pool(facts, rules):
            found.append(Lack(ReasonCode.POOL, facts.pool))
        for taint in facts.taints:
            if taint.effect is TaintEffect.NO_START and not taint.is_tolerated(rules.tolerations):
                found.append(Lack(ReasonCode.TAINT, f"{taint.key}={taint.value}" if taint.value else taint.key))
        return tuple(found)

    def lacks_of_itself(self, node: Node) -> Lacks:
        """What depends on the node alone: constraints, reservations, what runs around it. None unless `looks_closer`."""
        constraints = self.rules.constraints
        found = (
            [Lack(ReasonCode.CONSTRAINT, each) for each in constraints if not compile_constraint(each)(node.facts)]
            if constraints and not node.admits(self.rules)
            else []
        )
        if self._windows:
            closes_ms = self._windows.closes_ms(node.id, self._access)
            if closes_ms < min(self._end_ms, NEVER_MS):  # The end of what has no limit lies beyond never.
                name = self._windows.closed_by(node.id, self._access)
                found.append(Lack(ReasonCode.RESERVATION, name, closes_ms, self._windows.end_ms(name)))
        if self._reachable is not None and node.id not in self._reachable and node.takes_work:
            found.append(Lack(ReasonCode.NODE_UNREACHABLE))
        if self._held and node.id in self._held:
            found.append(Lack(ReasonCode.RESERVED, str(self._held[node.id])))
        if self._kept != NOTHING and self._is_kept(node):
            found.append(Lack(ReasonCode.KEPT_FOR_GPUS, tell_kept(self._kept)))
        if self._surroundings:
            found += [Lack(code, detail) for code, detail in self._surroundings.refusals(node)]
        if ADDED:
            found += [Lack(blocker.code, blocker.text) for blocker in find_added(node.facts, self._job)]
        return tuple(found) if found else _NONE

    def _is_kept(self, node: Node) -> bool:
        """Whether what its free GPUs keep is too much for the request that comes nearest."""
        request, total = self.requests[self.mark(node)[0]], node.info.resources
        gpus = total.gpus - node.allocated_gpus
        if request.gpus or gpus <= 0:
            return False
        kept = self._kept.on(total)
        return (
            0 < request.cpu_milli > total.cpu_milli - node.allocated_cpu_milli - kept.cpu_milli * gpus
            or 0 < request.memory_bytes > total.memory_bytes - node.allocated_memory_bytes - kept.memory_bytes * gpus
        )


def tell_kept(kept: Kept) -> str:
    amounts = [format_cpu(kept.cpu_milli) + " CPU"] if kept.cpu_milli else []
    return " and ".join([*amounts, format_bytes(kept.memory_bytes)] if kept.memory_bytes else amounts)


def _held_from(state: State, job: Job, held: Mapping[NodeId, JobId]) -> dict[NodeId, JobId]:
    """The nodes that are kept from the job: not those kept for jobs that ask for the same, or that come after it."""
    order = ByPolicies()
    order.rebuild(state)
    mine = order.rank(group_of(job), job.id)
    kept = {}
    for node_id, holder in held.items():
        other = state.jobs.get(holder)
        if other is None or order.rank(group_of(other), holder) > mine:
            continue
        alike = other.resources == job.resources and other.placement == job.placement
        if not (alike and limit_of(other) == limit_of(job)):
            kept[node_id] = holder
    return kept


def mark_shortages(node: Node, request: Resources) -> int:
    """Bits of what a node has too little of now for one task that asks for so much."""
    total = node.info.resources
    mark = 0
    if total.cpu_milli - node.allocated_cpu_milli < request.cpu_milli:
        mark = CPU
    if total.memory_bytes - node.allocated_memory_bytes < request.memory_bytes:
        mark |= MEMORY
    if request.gpus and not _has_gpus(node, total.gpus - node.allocated_gpus, request):
        mark |= GPUS
    if request.disk_bytes and total.disk_bytes - node.allocated_disk_bytes < request.disk_bytes:
        mark |= DISK
    if len(node.attempts) >= MAX_ATTEMPTS_PER_NODE:
        mark |= SLOTS
    if request.countables:
        offered = dict(total.countables)
        for number, (name, asked) in enumerate(request.countables, FIRST_COUNTABLE):
            if offered.get(name, 0) - node.allocated_countables.get(name, 0) < asked:
                mark |= 1 << number
    return mark


def _has_gpus(node: Node, free: int, request: Resources) -> bool:
    if free < request.gpus:
        return False
    return (not request.gpu_models and not request.gpu_memory_bytes and len(node.facts.gpus) < 2) or (
        node.free_gpus(request) >= request.gpus
    )


def find_shortages(node: Node, request: Resources) -> Lacks:
    """The same in full."""
    mark = mark_shortages(node, request)
    total = node.info.resources
    found: list[Lack] = []
    if mark & CPU:
        free = total.cpu_milli - node.allocated_cpu_milli
        found.append(Lack(ReasonCode.INSUFFICIENT_CPU, "", free, total.cpu_milli))
    if mark & MEMORY:
        free = total.memory_bytes - node.allocated_memory_bytes
        found.append(Lack(ReasonCode.INSUFFICIENT_MEMORY, "", free, total.memory_bytes))
    if mark & GPUS:
        found.append(_gpu_lack(node, request))
    if mark & DISK:
        free = total.disk_bytes - node.allocated_disk_bytes
        found.append(Lack(ReasonCode.INSUFFICIENT_DISK, "", free, total.disk_bytes))
    if mark & SLOTS:
        found.append(Lack(ReasonCode.INSUFFICIENT_SLOTS, "", 0, MAX_ATTEMPTS_PER_NODE))
    offered = dict(total.countables)
    for number, (name, _) in enumerate(request.countables, FIRST_COUNTABLE):
        if mark >> number & 1:
            amount = offered.get(name, 0)
            free = amount - node.allocated_countables.get(name, 0)
            found.append(Lack(ReasonCode.INSUFFICIENT_COUNTABLE, name, free, amount))
    return tuple(found)


def _gpu_lack(node: Node, request: Resources) -> Lack:
    """Too few are free, or there are some and none of them will do."""
    total, kinds = node.info.resources.gpus, node.facts.gpus
    one = msgspec.structs.replace(request, gpus=1)
    if not request.picks_gpus or not total or gpu_class_of(kinds, one) >= 0:
        return Lack(ReasonCode.INSUFFICIENT_GPUS, "", node.free_gpus(one), total)
    if gpu_class_of(kinds, msgspec.structs.replace(one, gpu_memory_bytes=0)) >= 0:
        return Lack(ReasonCode.GPU_MEMORY)
    return Lack(ReasonCode.GPU_MODEL, ", ".join(dict.fromkeys(kind.model or "unknown" for kind in kinds)))
