"""What keeps one task from one node: everything at once, not the first thing that comes up.

A node without a lack would take the task now, by the same facts and sums that the planner and the state machine go by. There
may be ten thousand nodes, so the question is asked in two ways: `Asker.marks` and `Asker.columns` go by the columns of a
class of nodes (`members.py`), and `Asker.lacks` tells one node's in full.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
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
from hasched.scheduler.explain.marks import CPU, DISK, FIRST_COUNTABLE, GPUS, MEMORY, SLOTS, mark_shortages
from hasched.scheduler.explain.members import Members
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

    def marks(self, members: Members) -> tuple[list[int], list[int]]:
        """The same of all nodes of a class: the choices and the marks."""
        first, *others = self._choices
        choices, marks = [first] * len(members.nodes), members.marks(self.requests[first])
        if not others or not any(marks):
            return choices, marks
        of_each = [marks, *(members.marks(self.requests[choice]) for choice in others)]
        alike = list(zip(*of_each, strict=True))
        nearest = {
            marks: min(zip(self._choices, marks, strict=True), key=lambda found: (found[1].bit_count(), found[0]))
            for marks in dict.fromkeys(alike)
        }
        found = [nearest[each] for each in alike]
        return [choice for choice, _ in found], [mark for _, mark in found]

    @property
    def open_requests(self) -> list[Resources]:
        """Those that no limit keeps back, the preferred first."""
        return [self.requests[choice] for choice in self._choices]

    def columns(self, members: Members) -> Iterator[Sequence[object]]:
        """All that decides what nodes of a class lack of themselves: if all columns say the same of two, they lack the same."""
        nodes, ids = members.nodes, members.ids
        if ADDED:
            yield range(len(nodes))
        for constraint in self.rules.constraints:
            yield members.meeting(constraint)
        if self._windows:
            yield [self._window(node_id) if node_id in self._windows.nodes else None for node_id in ids]
        if self._reachable is not None:
            yield list(map(self._reachable.__contains__, ids)) if nodes[0].takes_work else [True] * len(ids)
        if self._held:
            yield list(map(self._held.get, ids))
        if self._kept != NOTHING:
            yield self._kept_column(members)
        yield from self._surroundings.columns(members)

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
        """What depends on the node alone: constraints, reservations, what runs around it."""
        constraints = self.rules.constraints
        found = (
            [Lack(ReasonCode.CONSTRAINT, each) for each in constraints if not compile_constraint(each)(node.facts)]
            if constraints and not node.admits(self.rules)
            else []
        )
        if self._windows and (window := self._window(node.id)) is not None:
            closes_ms, name = window
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

    def _window(self, node_id: NodeId) -> tuple[int, str] | None:
        """When a reservation for others closes the node before the task may have ended, and which."""
        closes_ms = self._windows.closes_ms(node_id, self._access)
        if closes_ms >= min(self._end_ms, NEVER_MS):  # The end of what has no limit lies beyond never.
            return None
        return closes_ms, self._windows.closed_by(node_id, self._access)

    def _kept_column(self, members: Members) -> list[bool]:
        """On which nodes of a class free GPUs keep too much."""
        if len(self._choices) > 1:
            return [free > 0 and self._is_kept(node) for node, free in zip(members.nodes, members.gpus, strict=True)]
        kept, request = self._kept, self.requests[self._choices[0]]
        if request.gpus or max(members.gpus) <= 0:
            return [False] * len(members.nodes)
        free = zip(members.cpu_milli, members.memory_bytes, members.gpus, strict=True)
        return [
            each[2] > 0 and not kept.leaves(request, node.info.resources, each, 1)
            for node, each in zip(members.nodes, free, strict=True)
        ]

    def _is_kept(self, node: Node) -> bool:
        """Whether what its free GPUs keep is too much for the request that comes nearest."""
        return is_kept_from(self.requests[self.mark(node)[0]], node, self._kept)


def is_kept_from(request: Resources, node: Node, kept: Kept) -> bool:
    """Whether what the free GPUs of a node keep is too much for a request."""
    return not request.gpus and not room_beside(kept, request, node, 1)


def room_beside(kept: Kept, request: Resources, node: Node, most: int) -> int:
    """For how many such tasks without GPUs a node has room beside what its free GPUs keep, if it has room for `most`."""
    total = node.info.resources
    gpus = total.gpus - node.allocated_gpus
    if gpus <= 0:
        return most
    free = (total.cpu_milli - node.allocated_cpu_milli, total.memory_bytes - node.allocated_memory_bytes, gpus)
    return kept.leaves(request, total, free, most)


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
