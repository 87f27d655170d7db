"""Why tasks that start together wait: how many of them there would be room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.views import Reason
from hasched.model.words import counted
from hasched.scheduler.blockers import Blocker
from hasched.scheduler.explain.groups import Group
from hasched.scheduler.explain.lacks import room_beside, tell_kept
from hasched.scheduler.explain.surroundings import CODES, KEYS
from hasched.scheduler.keeping import NOTHING, Kept
from hasched.statemachine.capacity import room_when_empty
from hasched.statemachine.census import Census
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.relations import Relation, RelationKind, relations_of
from hasched.statemachine.rules.gangs import requests_of
from hasched.statemachine.state import State

Find: TypeAlias = Callable[[Resources], Iterable[Node]]  # nodes that may run the job and may have room for such a task


def gang_reason(state: State, job: Job, kept: Kept = NOTHING) -> Reason | None:
    """What `find_shortage` says, of all nodes that take work now."""
    usable = usable_nodes(state, job)
    found = find_shortage(job, lambda _: usable, lambda _: usable, kept)
    return found[0] if found is not None else None


def find_shortage(job: Job, everywhere: Find, find: Find, kept: Kept) -> tuple[Reason, int] | None:
    """Why it can't start now, and how many of its tasks could.

    None where nothing but its turn keeps it from starting; also where not even one of its tasks fits, which says more.
    `everywhere` tells of all nodes that it may run on, and `find` of those with room now. `kept`: by free GPUs.
    """
    if job.is_gang and job.active:
        return Reason(code=ReasonCode.GANG, text=f"{counted(job.active, 'task')} of the gang still to stop"), 0
    least = max(job.floor, 1)
    now = _room_for(find, job, least, kept)
    if now.tasks >= least or not now.tasks:
        return None
    most = _room_for(everywhere, job, least, kept, empty=True)
    text = f"its {'first ' if job.count > least else ''}{least} tasks start together, and there is room for {now.tasks} now"
    if most.tasks < least:
        text = f"{text}, and for {most.tasks} on empty nodes"
    if now.beside_kept or (most.beside_kept and most.tasks < least):
        text = f"{text}, beside the {tell_kept(kept)} that each free GPU keeps"
    return Reason(code=ReasonCode.GANG, text=text), now.tasks


def rules_blocker(state: State, job: Job, groups: Iterable[Group], kept: Kept = NOTHING) -> Blocker | None:
    """Which of its rules toward other tasks, or each other, leaves room for too few of its first tasks; by each rule alone.

    `groups` are of nodes that it may run on now. `kept`: by free GPUs.
    """
    least = max(job.floor, 1)
    if not job.starts_together or job.active or (job.gang is not None and job.gang.groups):
        return None
    relations = [relation for relation in relations_of(job) if not relation.weight]
    if not relations:
        return None
    rooms = [(group, group.rooms(job.resources, least, kept)) for group in groups]
    for relation in relations:
        census = state.neighbours.census(state, relation)
        at: dict[str, int] = {}
        for group, room_of_each in rooms:
            for node_id, place, room in zip(group.ids, group.places_by(relation.place), room_of_each, strict=True):
                if place is not None:
                    at[place] = at.get(place, 0) + room
                elif relation.kind is RelationKind.APART:
                    at[f"without {relation.place}: {node_id}"] = room
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


class _Room(NamedTuple):
    tasks: int
    beside_kept: bool  # there would be more if free GPUs kept nothing


def _room_for(find: Find, job: Job, least: int, kept: Kept, *, empty: bool = False) -> _Room:
    """For how many of its first tasks there is room; where they ask for different things, by each alone, so at most so many.

    `kept`: by free GPUs. `empty`: if nothing else ran.
    """
    wanted: dict[Resources, int] = {}
    for request, times in requests_of(job, tuple(range(least))):
        wanted[request] = wanted.get(request, 0) + times
    rooms = [_room_on(find(request), request, times, kept, empty) for request, times in wanted.items()]
    return _Room(sum(room.tasks for room in rooms), any(room.beside_kept for room in rooms))


def _room_on(nodes: Iterable[Node], request: Resources, times: int, kept: Kept, empty: bool) -> _Room:
    keeps, beside_kept = kept != NOTHING and not request.gpus, False
    cpu_milli, memory_bytes, gpus = request.cpu_milli, request.memory_bytes, request.gpus
    found = 0
    for node in nodes:
        total = node.info.resources
        if empty:
            room = room_when_empty(node, request, times)
            if keeps and total.gpus and room and not kept.gives_way(request, total):
                beside = kept.leaves(request, total, (total.cpu_milli, total.memory_bytes, total.gpus), room)
                beside_kept, room = beside_kept or beside < room, beside
        elif (
            total.cpu_milli - node.allocated_cpu_milli >= cpu_milli
            and total.memory_bytes - node.allocated_memory_bytes >= memory_bytes
            and total.gpus - node.allocated_gpus >= gpus
        ):
            room = node.room_for(request, times)
            if keeps and total.gpus:
                beside = room_beside(kept, request, node, room)
                beside_kept, room = beside_kept or beside < room, beside
        else:
            continue
        found += room
        if found >= times:
            return _Room(times, False)
    return _Room(found, beside_kept)
