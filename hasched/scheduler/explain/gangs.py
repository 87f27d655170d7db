"""Why tasks that start together wait: how many of them there would be room for."""

from __future__ import annotations

from collections.abc import Sequence

from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.views import Reason
from hasched.model.words import counted
from hasched.scheduler.blockers import Blocker
from hasched.scheduler.explain.surroundings import CODES, KEYS
from hasched.statemachine.census import Census, place_of
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.relations import Relation, RelationKind, relations_of
from hasched.statemachine.rules.gangs import requests_of, trial_copy
from hasched.statemachine.state import State


def gang_reason(
    state: State, job: Job, nodes: Sequence[Node] | None = None, roomy: Sequence[Node] | None = None
) -> Reason | None:
    """None where nothing but its turn keeps it from starting; also where not even one of its tasks fits, which says more.

    `nodes` are those that it may run on, if they are known, and `roomy` those of them that may have room.
    """
    if job.is_gang and job.active:
        return Reason(code=ReasonCode.GANG, text=f"{counted(job.active, 'task')} of the gang still to stop")
    least = max(job.floor, 1)
    nodes = usable_nodes(state, job) if nodes is None else nodes
    now = room_for(nodes if roomy is None else roomy, job, least)
    if now >= least or not now:
        return None
    most = room_for(nodes, job, least, empty=True)
    text = f"its {'first ' if job.count > least else ''}{least} tasks start together, and there is room for {now} now"
    return Reason(code=ReasonCode.GANG, text=text if most >= least else f"{text}, and for {most} on empty nodes")


def rules_blocker(state: State, job: Job) -> Blocker | None:
    """Which of its rules toward other tasks, or each other, leaves room for too few of its first tasks; by each rule alone."""
    least = max(job.floor, 1)
    if not job.starts_together or job.active or (job.gang is not None and job.gang.groups):
        return None
    relations = [relation for relation in relations_of(job) if not relation.weight]
    if not relations:
        return None
    rooms = [(node.facts, node.room_for(job.resources, least)) for node in usable_nodes(state, job)]
    for relation in relations:
        census = state.neighbours.census(state, relation)
        at: dict[str, int] = {}
        for facts, room in rooms:
            place = place_of(relation.place, facts)
            if place is not None or relation.kind is RelationKind.APART:
                place = place if place is not None else f"without {relation.place}: {facts.node_id}"
                at[place] = at.get(place, 0) + room
        now = _room_by(relation, at, census)
        if now < least:
            by = f"label {relation.place}" if relation.place else "node"
            code = CODES[relation.kind]
            text = f"its {least} tasks start together, and its rule {KEYS[code]} by {by} leaves room for {now} now"
            return Blocker(code, text)
    return None


def _room_by(relation: Relation, at: dict[str, int], census: Census) -> int:
    """For how many tasks there is room by a relation, if there is room for so many at each place."""
    counts = census.by_label[relation.place]
    match relation.kind:
        case RelationKind.NEAR:
            if relation.itself and not census.total:
                return max(at.values(), default=0)
            return sum(room for place, room in at.items() if counts.get(place))
        case RelationKind.APART:
            free = [room for place, room in at.items() if not counts.get(place)]
            return sum(min(room, 1) for room in free) if relation.itself else sum(free)
        case RelationKind.SPREAD:
            most = min(at.values(), default=0) + relation.max_skew
            return sum(min(room, most) for room in at.values())


def usable_nodes(state: State, job: Job) -> list[Node]:
    return [node for node in state.nodes.values() if node.takes_work and node.admits(job.placement)]


def room_for(nodes: Sequence[Node], job: Job, least: int, *, empty: bool = False) -> int:
    """For how many of its first tasks there is room; where they ask for different things, by each alone, so at most so many.

    `empty`: if nothing else ran.
    """
    wanted: dict[Resources, int] = {}
    for request, times in requests_of(job, tuple(range(least))):
        wanted[request] = wanted.get(request, 0) + times
    return sum(_room_on(nodes, request, times, empty) for request, times in wanted.items())


def _room_on(nodes: Sequence[Node], request: Resources, times: int, empty: bool) -> int:
    cpu_milli, memory_bytes, gpus = request.cpu_milli, request.memory_bytes, request.gpus
    found = 0
    for node in nodes:
        total = node.info.resources
        if empty:
            if total.cpu_milli >= cpu_milli and total.memory_bytes >= memory_bytes and total.gpus >= gpus:
                found += emptied(node).room_for(request, times)
        elif (
            total.cpu_milli - node.allocated_cpu_milli >= cpu_milli
            and total.memory_bytes - node.allocated_memory_bytes >= memory_bytes
            and total.gpus - node.allocated_gpus >= gpus
        ):
            found += node.room_for(request, times)
        if found >= times:
            return times
    return found


def emptied(node: Node) -> Node:
    """The node as it is when nothing runs there."""
    empty = trial_copy(node)
    empty.allocated_cpu_milli = empty.allocated_memory_bytes = empty.allocated_gpus = empty.allocated_disk_bytes = 0
    empty.allocated_countables.clear()
    empty.allocated_gpu_kinds.clear()
    return empty
