"""Why tasks that start together wait: how many of them there would be room for."""

from __future__ import annotations

from hasched.model.reasons import ReasonCode
from hasched.model.views import Reason
from hasched.model.words import counted
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.rules.gangs import requests_of, trial_copy
from hasched.statemachine.state import State


def gang_reason(state: State, job: Job) -> Reason | None:
    """None where nothing but its turn keeps it from starting; also where not even one of its tasks fits, which says more."""
    if job.is_gang and job.active:
        return Reason(code=ReasonCode.GANG, text=f"{counted(job.active, 'task')} of the gang still to stop")
    least = max(job.floor, 1)
    nodes = usable_nodes(state, job)
    now = room_for(nodes, job, least)
    if now >= least or not now:
        return None
    most = room_for([emptied(node) for node in nodes], job, least)
    text = f"its {'first ' if job.count > least else ''}{least} tasks start together, and there is room for {now} now"
    return Reason(code=ReasonCode.GANG, text=text if most >= least else f"{text}, and for {most} on empty nodes")


def usable_nodes(state: State, job: Job) -> list[Node]:
    return [node for node in state.nodes.values() if node.takes_work and node.admits(job.placement)]


def room_for(nodes: list[Node], job: Job, least: int) -> int:
    """For how many of its first tasks there is room; where they ask for different things, by each alone, so at most so many."""
    room = 0
    for request, times in requests_of(job, tuple(range(least))):
        found = 0
        for node in nodes:
            found += node.room_for(request, times)
            if found >= times:
                break
        room += min(found, times)
    return room


def emptied(node: Node) -> Node:
    """The node as it is when nothing runs there."""
    empty = trial_copy(node)
    empty.allocated_cpu_milli = empty.allocated_memory_bytes = empty.allocated_gpus = empty.allocated_disk_bytes = 0
    empty.allocated_countables.clear()
    empty.allocated_gpu_kinds.clear()
    return empty
