"""Gangs: tasks that start together, run together, and end together.

A gang's run is decided whole or refused whole: never is a part of it scheduled. It is over when each of its tasks has
succeeded. A task that ends in any other way breaks it: the others are stopped, and if the gang's retries allow all of it
starts again, those that had succeeded as well, for a rank that is gone can't be met. One break costs one retry, however many
tasks are lost with it. A preempted gang yields as a whole, and costs none.

An elastic job that is no gang only starts together: its first few tasks at once, all others and every retry one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from hasched.model.spec import Resources
from hasched.model.states import EndKind, TaskState
from hasched.statemachine import columns
from hasched.statemachine.commands import PlaceGang, Placement
from hasched.statemachine.events import (
    AttemptEnded,
    Event,
    GangBroken,
    GangReopened,
    GangScheduled,
    GangShrunk,
    JobEnded,
    TasksScheduled,
)
from hasched.statemachine.job import WAITING, Cancel, GangRun, Job, TaskHistory, Yield, derive_state
from hasched.statemachine.neighbours import RELATIONS_HELD_SINCE
from hasched.statemachine.node import Node
from hasched.statemachine.outcomes import PlanTaken, Rejected
from hasched.statemachine.records import attempt_records
from hasched.statemachine.rules import Decision
from hasched.statemachine.rules.queues import room_in
from hasched.statemachine.rules.yields import mark_yielding
from hasched.statemachine.state import State
from hasched.statemachine.usage import group_of

SCHEDULER = "hasched"  # who cancels the rest of a gang that is broken for good
MAX_PORT = 65_535
MAX_KEPT_REASON = 100  # characters of what broke a gang, for each of its ranks; the event has all of it


def decide_gang(state: State, command: PlaceGang) -> Decision | Rejected:
    """All of it or nothing; the hint is for whoever reads the leader's log."""
    job = state.jobs.get(command.job_id)
    if job is None or job.gang is None or job.active or job.suspended or job.ending or job.not_before_ms:
        return Rejected("gang_moot", f"job {command.job_id} doesn't wait to start together", "plan again")
    if job.is_gang and job.in_backoff:
        return Rejected("gang_moot", f"the backoff of job {job.id} isn't over", "plan again once it is")
    indices = [index for placement in command.placements for index in placement.indices]
    if not all(each.job_id == job.id and each.indices and not each.choice for each in command.placements):
        return Rejected("gang_refused", "a part of the plan is empty, or of something else", "plan again")
    if fault := _fault_of_indices(job, indices) or _fault_of_port(state, job, command):
        return Rejected("gang_refused", fault, "plan again")
    if fault := _find_lack(state, job, command.placements):
        return Rejected("gang_no_room", fault, "plan again")
    if not _within_limits(state, job, tuple(indices)):
        return Rejected("gang_no_room", "a quota or cap leaves too little for all of it", "plan again")
    if room_in(state, job.queue, len(indices)) < len(indices):
        return Rejected("gang_no_room", f"queue {job.queue} may not run all of it now", "plan again")
    if fault := _fault_of_relations(state, job, command.placements):
        return Rejected("gang_no_room", fault, "plan again")
    events: list[Event] = []
    if job.gang.whole:
        nodes = tuple(placement.node_id for placement in command.placements)
        ranks = tuple(placement.indices for placement in command.placements)
        events.append(GangScheduled(job.id, nodes, ranks, command.port))
    events += [
        TasksScheduled(
            job.id, each.node_id, each.indices, tuple(job.attempts_made(index) + 1 for index in each.indices)
        )
        for each in command.placements
    ]
    return Decision(events, PlanTaken(len(indices), 0))


def _fault_of_indices(job: Job, indices: list[int]) -> str:
    if len(indices) < max(job.floor, 1) or (job.max_running and len(indices) > job.max_running):
        return f"{len(indices)} tasks are too few, or too many, for job {job.id} to start with"
    if len(dict.fromkeys(indices)) != len(indices) or not all(job.is_eligible(index) for index in indices):
        return f"some of the tasks of job {job.id} don't wait to start"
    if job.is_gang and (indices[0] != 0 or max(indices) != len(indices) - 1):
        return "the ranks of a gang count from 0 without a gap, and the first stands first"
    return ""


def _fault_of_port(state: State, job: Job, command: PlaceGang) -> str:
    if not job.is_gang:
        return ""
    nodes = [placement.node_id for placement in command.placements]
    if len(dict.fromkeys(nodes)) != len(nodes):
        return "a node stands twice"
    if not 0 < command.port <= MAX_PORT:
        return f"{command.port} is no port"
    master = state.nodes.get(nodes[0])
    if master is not None and command.port in ports_in_use(state, master):
        return f"port {command.port} of node {master.id} is another gang's"
    return ""


def ports_in_use(state: State, node: Node) -> dict[int, None]:
    """The ports at which rank 0 of a gang that runs here can be met."""
    gangs = (state.jobs[job_id] for job_id, index in node.attempts if index == 0)
    return {gang.gang_run.port: None for gang in gangs if gang.gang_run is not None}


def _find_lack(state: State, job: Job, placements: tuple[Placement, ...]) -> str:
    """Which node doesn't take its part, counted over all of them; empty if each does."""
    filled: dict[str, Node] = {}
    for placement in placements:
        node = filled.get(placement.node_id)
        if node is None:
            there = state.nodes.get(placement.node_id)
            if there is None or not there.takes_work or not there.admits(job.placement):
                return f"node {placement.node_id[:100]} is gone, takes no work, or is none for job {job.id}"
            node = filled[there.id] = trial_copy(there)
        for request, times in requests_of(job, placement.indices):
            if node.room_for(request, times) < times:
                return f"node {node.id} has not enough free"
            node.allocate(request, times)
    return ""


def _fault_of_relations(state: State, job: Job, placements: tuple[Placement, ...]) -> str:
    """Which relation to other tasks, or to each other, would not hold; empty if all do."""
    if job.placement is None or state.entry_version < RELATIONS_HELD_SINCE:
        return ""
    placed = [(state.nodes[each.node_id], len(each.indices)) for each in placements]
    fault = state.neighbours.fault_of(state, job, placed)
    if fault is None:
        return ""
    return f"a rule of job {job.id} ({fault.kind.value}, by {fault.place or 'node'}) would not hold"


def _within_limits(state: State, job: Job, indices: tuple[int, ...]) -> bool:
    limits = state.usage.limits
    if not (limits.any_quotas or limits.any_caps or job.semaphores):
        return True
    wanted = list(requests_of(job, indices))
    return limits.fit(group_of(job), wanted, not job.active, state.now_ms)


def trial_copy(node: Node) -> Node:
    """A node to try allocations on."""
    return msgspec.structs.replace(
        node,
        allocated_countables=dict(node.allocated_countables),
        allocated_gpu_kinds=dict(node.allocated_gpu_kinds),
    )


def requests_of(job: Job, indices: tuple[int, ...]) -> Iterator[tuple[Resources, int]]:
    """What these tasks ask for, with how many of them in a row ask for it."""
    if job.gang is None or not job.gang.groups:
        yield job.resources, len(indices)
        return
    request, times = job.request_of(indices[0]), 0
    for index in indices:
        asked = job.request_of(index)
        if asked != request:
            yield request, times
            request, times = asked, 0
        times += 1
    yield request, times


def evolve_scheduled(state: State, event: GangScheduled) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    nodes = tuple((state.nodes[node_id].number, ranks) for node_id, ranks in zip(event.nodes, event.ranks, strict=True))
    job.gang_run = GangRun(sum(map(len, event.ranks)), event.port, nodes)


def decide_follow(job: Job, ended: list[AttemptEnded]) -> list[Event]:
    """What follows for a gang from the ends of some of its attempts, which are the first of the events returned."""
    run = job.gang_run
    assert run is not None, "a gang that runs has a run"
    breaking = next((end for end in ended if end.state.final and end.state not in _ALONE), None)
    if breaking is not None:
        ended = [end if end is breaking else _taken_along(end, breaking) for end in ended]
    events: list[Event] = [*ended]
    after = {end.index: end.task_state for end in ended}
    left = job.active - len(after)
    if breaking is not None:
        running = sorted(index for index in job.active_attempts or () if index not in after)
        restarts = breaking.task_state is TaskState.PENDING
        waiting = (index for index in range(job.count) if job.task_state(index) is TaskState.PENDING)
        cancelled = () if restarts else tuple(index for index in waiting if index not in after)
        after.update(dict.fromkeys(cancelled, TaskState.CANCELLED))
        why = f"task {breaking.index} of the gang ended as {breaking.state.name}"
        why = f"{why}: {breaking.reason}" if breaking.reason else why
        events.append(GangBroken(job.id, breaking.index, restarts, tuple(running), cancelled, why))
    if left:  # before anything is made of all the tasks, for there may be thousands whose ends come one by one
        return events
    states = [after[index] if index in after else job.task_state(index) for index in range(job.count)]
    of_run = states[: run.size]
    if TaskState.PENDING in of_run:
        if reopened := tuple(rank for rank, each in enumerate(of_run) if each is TaskState.SUCCEEDED):
            events.append(GangReopened(job.id, reopened))
        return events
    if run.size < job.count and TaskState.PENDING in states[run.size :]:
        events.append(GangShrunk(job.id, run.size))
        states = of_run
    counts = [states.count(each) for each in range(len(job.counts))]  # type: ignore[arg-type]
    return [*events, JobEnded(job.id, derive_state(counts, len(states), job.cancelling))]


_ALONE = (TaskState.SUCCEEDED, TaskState.CANCELLED, TaskState.DEADLINE_EXCEEDED)  # ends that take no other task along


def _taken_along(end: AttemptEnded, breaking: AttemptEnded) -> AttemptEnded:
    """An end that came together with the one that broke the gang: if that starts again, it starts with it, for nothing."""
    if breaking.task_state is not TaskState.PENDING or end.state in _ALONE or end.state is TaskState.PENDING:
        return end
    return msgspec.structs.replace(
        end, state=TaskState.PENDING, task_state=TaskState.PENDING, kind=EndKind.GANG_RESTARTED, not_before_ms=0
    )


def evolve_broken(state: State, event: GangBroken) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    reason = event.reason[:MAX_KEPT_REASON]
    if event.restarts:
        if event.stopping:
            mark_yielding(job, event.stopping, Yield(EndKind.GANG_RESTARTED, 0, "", reason, state.now_ms, state.index))
        return
    note = Cancel(SCHEDULER, reason, state.now_ms, state.index)
    for index in event.stopping:
        active = job.attempt_of(index)
        assert active is not None, "only active tasks are told to stop"
        active.stopping, active.cancel = True, note
        active.changed_ms, active.log_index = state.now_ms, state.index
    assert all(job.phases[index] in WAITING for index in event.cancelled), "only waiting tasks end without an attempt"
    state.cancel_waiting(job, event.cancelled, note)
    state.settle(job)


def evolve_reopened(state: State, event: GangReopened) -> None:
    """Their success becomes an attempt like any other."""
    job = state.jobs[event.job_id]
    state.touch(job)
    job.histories = job.histories or {}
    for index in event.indices:
        if index not in job.histories:
            job.histories[index] = TaskHistory(attempts=list(attempt_records(state, job, index)))
        state.drop_output(job, index)
        state.move_task(job, index, TaskState.PENDING)
    state.settle(job)


def evolve_shrunk(state: State, event: GangShrunk) -> None:
    job = state.jobs[event.job_id]
    state.touch(job)
    for table in (job.histories, job.checkpoints):
        for index in [index for index in table or () if index >= event.count]:
            assert table is not None
            del table[index]
    job.histories, job.checkpoints = job.histories or None, job.checkpoints or None
    state.drop_tasks(job, event.count)
    if job.finished is not None:
        columns.shorten(job.finished, event.count)
    state.settle(job)
