"""What if: changes to a cluster that nobody has made, to be rehearsed on a state of one's own.

Each does what its real counterpart would do, by the same commands.
"""

from __future__ import annotations

from typing import TypeAlias, assert_never

import msgspec

from hasched.model.errors import HaschedError
from hasched.model.ids import JobId, NodeId
from hasched.model.policy import Policy, PolicyKind
from hasched.model.spec import JobSpec
from hasched.model.states import EndKind, NodeState
from hasched.model.wire import AttemptEnded
from hasched.model.words import counted
from hasched.scheduler.rehearsal import Rehearsal
from hasched.statemachine.commands import (
    CancelJob,
    Command,
    DrainNode,
    PutPolicy,
    RegisterNode,
    RemoveNode,
    ReportAttempts,
    SetNodeState,
    SubmitJob,
    UpdateJob,
)
from hasched.statemachine.outcomes import JobAccepted, Outcome, Rejected
from hasched.statemachine.queries.names import node_hint, with_hint
from hasched.statemachine.state import State

MAX_NEW_NODES = 10_000
SUPPOSED = "what-if"


class Impossible(HaschedError):
    """What is to be supposed can't be: there is no such node, or the state machine would refuse it."""

    code = "what_if_impossible"
    status = 422
    title = "This can't be supposed"


class _Hypothesis(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class NodesAdded(_Hypothesis, frozen=True):
    """So many nodes more with the inventory and labels of one that there is."""

    count: int
    like: NodeId


class NodeGone(_Hypothesis, frozen=True):
    """What runs there is lost, and starts elsewhere."""

    node_id: NodeId


class NodesDrained(_Hypothesis, frozen=True):
    """All nodes with this label, or the one of this name, get no new work; what runs may end, or has `wait_ms`."""

    node_id: NodeId = ""
    label: str = ""
    value: str = ""
    wait_ms: int | None = None


class PolicyChanged(_Hypothesis, frozen=True):
    kind: PolicyKind
    name: str
    body: Policy
    text: str  # the change in words


class PriorityChanged(_Hypothesis, frozen=True):
    job_id: JobId
    priority: int


class JobAdded(_Hypothesis, frozen=True):
    spec: JobSpec
    actor: str


class JobGone(_Hypothesis, frozen=True):
    """Neither what waits of it nor what runs is there any more."""

    job_id: JobId


Hypothesis: TypeAlias = NodesAdded | NodeGone | NodesDrained | PolicyChanged | PriorityChanged | JobAdded | JobGone


def suppose(rehearsal: Rehearsal, hypothesis: Hypothesis) -> str:
    """Let it be so, and say it in words. Raises Impossible."""
    state = rehearsal.state
    match hypothesis:
        case NodesAdded():
            _add_nodes(rehearsal, hypothesis)
            return f"{counted(hypothesis.count, 'more node')} like {hypothesis.like}"
        case NodeGone(node_id=node_id):
            _need_node(state, node_id)
            lost = SetNodeState(node_id=node_id, state=NodeState.DISCONNECTED, reason=SUPPOSED)
            _do(rehearsal, lost, RemoveNode(node_id=node_id, actor=SUPPOSED))
            return f"without node {node_id}"
        case NodesDrained():
            return _drain(rehearsal, hypothesis)
        case PolicyChanged(kind=kind, name=name, body=body):
            _do(rehearsal, PutPolicy(kind=kind, name=name, body=body, actor=SUPPOSED))
            return hypothesis.text
        case PriorityChanged(job_id=job_id, priority=priority):
            _need_job(state, job_id)
            _do(rehearsal, UpdateJob(job_id=job_id, actor=SUPPOSED, priority=priority))
            return f"job {job_id} with priority {priority}"
        case JobAdded(spec=spec, actor=actor):
            submit_supposed(rehearsal, spec, actor)
            return f"with job {spec.name}"
        case JobGone(job_id=job_id):
            _need_job(state, job_id)
            _remove_job(rehearsal, job_id)
            return f"without job {job_id}"
        case _:
            assert_never(hypothesis)


def submit_supposed(rehearsal: Rehearsal, spec: JobSpec, actor: str) -> JobId:
    """Submit a job that nobody has submitted. Raises Impossible with the refusal's words."""
    number = rehearsal.state.next_job_id
    (outcome,) = _do(rehearsal, SubmitJob(submission_id=f"{SUPPOSED}-{number}", actor=actor, spec=spec))
    assert isinstance(outcome, JobAccepted)
    return outcome.job_id


def _do(rehearsal: Rehearsal, *commands: Command) -> list[Outcome]:
    outcomes = rehearsal.do(*commands).outcomes
    for command, outcome in zip(commands, outcomes, strict=True):
        if isinstance(outcome, Rejected):
            refused = with_hint(outcome, command, rehearsal.state)
            raise Impossible(refused.cause, refused.hint, code=refused.code)
    return outcomes


def _add_nodes(rehearsal: Rehearsal, hypothesis: NodesAdded) -> None:
    _need_node(rehearsal.state, hypothesis.like)
    info = rehearsal.state.nodes[hypothesis.like].info
    number = 0
    for _ in range(hypothesis.count):
        number += 1
        while (node_id := f"{hypothesis.like[:100]}-new-{number}") in rehearsal.state.nodes:
            number += 1
        added = msgspec.structs.replace(info, hostname=node_id, boot_id="", table_id="")
        _do(rehearsal, RegisterNode(node_id=node_id, info=added))


def _drain(rehearsal: Rehearsal, hypothesis: NodesDrained) -> str:
    if hypothesis.node_id:
        _need_node(rehearsal.state, hypothesis.node_id)
        drained, text = [hypothesis.node_id], f"node {hypothesis.node_id} drained"
    else:
        label, value = hypothesis.label, hypothesis.value
        drained = [node.id for node in rehearsal.state.nodes.values() if node.facts.labels.get(label) == value]
        text = f"{counted(len(drained), 'node')} with {label}={value} drained"
        if not drained:
            raise Impossible(f"no node has the label {label}={value}", "see `hasched node list`", code="no_such_node")
    _do(rehearsal, *(DrainNode(node_id=node_id, actor=SUPPOSED, wait_ms=hypothesis.wait_ms) for node_id in drained))
    return text


def _remove_job(rehearsal: Rehearsal, job_id: JobId) -> None:
    job = rehearsal.state.jobs[job_id]
    if job.ended:
        return
    _do(rehearsal, CancelJob(job_id=job_id, actor=SUPPOSED))
    for index, active in sorted((job.active_attempts or {}).items()):
        now_ms = rehearsal.now_ms
        ended = AttemptEnded(job_id, index, active.attempt, active.started_ms or now_ms, now_ms, EndKind.STOPPED)
        _do(rehearsal, ReportAttempts(node_id=active.node_id, reports=(ended,)))


def _need_node(state: State, node_id: NodeId) -> None:
    if node_id not in state.nodes:
        raise Impossible(f"there is no node {node_id[:100]!r}", node_hint(state, node_id), code="no_such_node")


def _need_job(state: State, job_id: JobId) -> None:
    if job_id not in state.jobs:
        raise Impossible(f"there is no job {job_id}", "see `hasched job list`", code="no_such_job")
