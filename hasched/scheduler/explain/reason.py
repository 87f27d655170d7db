"""Why a job's waiting tasks wait: one code from a closed list, and a sentence with the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from hasched.model.eligibility import is_in_pool
from hasched.model.policy import THE_GPU_ROOM, GpuRoom
from hasched.model.reasons import ReasonCode
from hasched.model.spec import ANYWHERE, Resources
from hasched.model.states import NodeState
from hasched.model.times import format_time
from hasched.model.views import Reason
from hasched.model.words import none_of
from hasched.scheduler.explain.gangs import gang_reason
from hasched.scheduler.explain.lacks import is_kept_from, tell_kept
from hasched.scheduler.filters import find_blockers
from hasched.scheduler.gates import QueueRoom
from hasched.scheduler.keeping import NOTHING, Kept, said_by
from hasched.scheduler.limits import LimitGate
from hasched.scheduler.order import Account
from hasched.scheduler.shapes import NEVER_MS, limit_of, rounded_up
from hasched.scheduler.slots import MAX_ATTEMPTS_PER_NODE
from hasched.scheduler.windows import Windows
from hasched.statemachine.capacity import room_when_empty, tell_most, tell_request
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.policies import find_policy
from hasched.statemachine.rules.dependencies import tell_waits
from hasched.statemachine.state import State


def pending_reason(state: State, job: Job, kept: Kept = NOTHING) -> Reason | None:
    """Why the tasks of `job` that wait do so; None when none waits. What the user can change comes first.

    `kept`: by free GPUs, as the leader's planner knows; others know it where a policy says it.
    """
    if not job.eligible and not job.in_backoff:
        return None
    if job.suspended:
        return Reason(code=ReasonCode.SUSPENDED, text="the job is suspended; resume it to start more of it")
    if job.not_before_ms:
        return Reason(code=ReasonCode.NOT_BEFORE, text=f"it may not start before {format_time(job.not_before_ms)}")
    if not job.eligible and job.held_back:
        return Reason(code=ReasonCode.DEPENDENCY, text=tell_waits(state, job))
    if not job.eligible:
        return Reason(
            code=ReasonCode.BACKOFF, text=f"{_tasks(job.in_backoff)} until the wait before the next attempt is over"
        )
    if job.max_running and job.active >= job.max_running:
        return Reason(code=ReasonCode.MAX_RUNNING, text=f"as many tasks run as max_running allows: {job.max_running}")
    for short in (*QueueRoom().blockers(state, job), *LimitGate().blockers(state, job)):
        return Reason(code=short.code, text=short.text)
    healthy = [node for node in state.nodes.values() if node.takes_work]
    if not healthy:
        return Reason(code=ReasonCode.NO_NODES, text=_no_nodes(state))
    kept = kept if kept != NOTHING else _kept_by_policy(state)
    if job.starts_together and (reason := gang_reason(state, job, kept)) is not None:
        return reason
    eligible = [node for node in healthy if node.admits(job.placement)]
    if not eligible:
        return _not_admitted(state, job, healthy)
    healthy = eligible
    request = job.resources
    requests = (job.placement.any_of if job.placement is not None else ()) or (request,)
    if not any(room_when_empty(node, each, 1) for node in healthy for each in requests):
        return Reason(
            code=ReasonCode.UNSATISFIABLE,
            text=f"no healthy node has {tell_request(request)} in all; {tell_most(request, healthy)}",
        )
    if not any(_has_room(node, each) for node in healthy for each in requests):
        return Reason(code=ReasonCode.INSUFFICIENT_RESOURCES, text=f"no node has {tell_request(request)} free now")
    with_room = (node for node in healthy if any(_has_room(node, each) for each in requests))
    if (reason := _reserved(state, job, with_room)) is not None:
        return reason
    if kept != NOTHING and all(
        is_kept_from(each, node, kept) for node in healthy for each in requests if _has_room(node, each)
    ):
        text = f"no node has {tell_request(request)} free beside the {tell_kept(kept)} that each free GPU keeps"
        return Reason(code=ReasonCode.KEPT_FOR_GPUS, text=text)
    rules = job.placement if job.starts_together else None
    ruled = rules is not None and bool(rules.near or rules.apart or rules.spread)
    may = ", and its rules toward other tasks let all of it start" if ruled else ""
    return Reason(code=ReasonCode.WAITING_TURN, text=f"it will be started as soon as its turn comes{may}")


def _kept_by_policy(state: State) -> Kept:
    policy = find_policy(state.policies, GpuRoom, THE_GPU_ROOM)
    return (said_by(policy) if policy is not None and policy.enabled else None) or NOTHING


_COMPARED = 64  # nodes, of which the nearest is told of
_AWAY = {
    "cordoned": ReasonCode.NODE_CORDONED,
    "draining": ReasonCode.NODE_DRAINING,
    "drained": ReasonCode.NODE_DRAINING,
    "quarantined": ReasonCode.NODE_QUARANTINED,
}


def _not_admitted(state: State, job: Job, nodes: Sequence[Node]) -> Reason:
    """What keeps the job from the nearest of those that take work; `hasched job why` has the others.

    Where the job may run on nodes that take none, that is what it waits for.
    """
    away = [node for node in state.nodes.values() if not node.takes_work and node.admits(job.placement)]
    if away:
        return _away(away)
    rules = job.placement if job.placement is not None else ANYWHERE
    near = list(islice((node for node in nodes if is_in_pool(node.facts, rules)), _COMPARED)) or nodes[:1]
    node, blockers = min(((node, find_blockers(node.facts, job)) for node in near), key=lambda pair: len(pair[1]))
    rest = f", and none of {len(nodes)} in service may run it" if len(nodes) > 1 else ""
    return Reason(code=blockers[0].code, text=f"node {node.id}: {blockers[0].text}{rest}")


def _away(nodes: Sequence[Node]) -> Reason:
    words: dict[str, int] = {}
    for node in nodes:
        word = _word_of(node)
        words[word] = words.get(word, 0) + 1
    code = _AWAY.get(_word_of(nodes[0]), ReasonCode.NODE_UNHEALTHY)
    if len(nodes) == 1:
        return Reason(code=code, text=f"the only node that may run it, {nodes[0].id}, is {_word_of(nodes[0])}")
    told = ", ".join(f"{number} {word}" for word, number in sorted(words.items()))
    return Reason(code=code, text=f"none of the {len(nodes)} nodes that may run it takes work: {told}")


def _word_of(node: Node) -> str:
    """What keeps work away from it, above all: `drained`, `disconnected`."""
    state, *others = node.status.split(",")
    return others[0] if others and node.state is NodeState.HEALTHY else state


def _reserved(state: State, job: Job, nodes: Iterable[Node]) -> Reason | None:
    """The reservation that keeps others' nodes from the job, where only such nodes have room."""
    windows = Windows()
    windows.refresh(state)
    if not windows:
        return None
    account, limit_ms = Account(*job.account), limit_of(job)
    access = windows.access(account)
    end_ms = min(state.now_ms + (limit_ms if limit_ms == NEVER_MS else rounded_up(limit_ms)), NEVER_MS)
    closing: list[tuple[int, str]] = []
    for node in nodes:
        closes_ms = windows.closes_ms(node.id, access)
        if closes_ms >= end_ms:
            return None
        closing.append((closes_ms, node.id))
    if not closing:
        return None
    closes_ms, node_id = max(closing)
    name = windows.closed_by(node_id, access)
    when = f"from {format_time(closes_ms)} to {format_time(windows.end_ms(name))}"
    text = f"the reservation {name} keeps node {node_id} for others {when}, and the job may run into it"
    return Reason(code=ReasonCode.RESERVATION, text=text)


def _no_nodes(state: State) -> str:
    """Says also what keeps work away from the nodes that are healthy."""
    if not state.nodes:
        return "there is no node yet: no agent has come"
    kept: dict[str, int] = {}
    for node in state.nodes.values():
        if node.state is NodeState.HEALTHY:
            for word in node.status.split(",")[1:]:
                kept[word] = kept.get(word, 0) + 1
    text = f"{none_of(len(state.nodes), 'node')} is healthy"
    return f"{text} and takes work: {', '.join(f'{n} {word}' for word, n in sorted(kept.items()))}" if kept else text


def _has_room(node: Node, request: Resources) -> bool:
    return len(node.attempts) < MAX_ATTEMPTS_PER_NODE and node.room_for(request, 1) > 0


def _tasks(number: int) -> str:
    return "1 task waits" if number == 1 else f"{number} tasks wait"
