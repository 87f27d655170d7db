"""What is kept of nodes from one question to the next: it says what would be found out anew, whatever has happened between."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hasched.model.parse import parse_spec
from hasched.model.states import NodeState
from hasched.model.taints import parse_taint
from hasched.model.wire import GpuDevice
from hasched.scheduler.explain import Known, NodeClasses, explain_waiting, show_resources
from hasched.scheduler.explain.classes import FOLLOW_SLICE
from hasched.statemachine.commands import (
    DrainNode,
    RemoveNode,
    SetNodeEligibility,
    SetNodeState,
    SubmitJob,
    UndrainNode,
)
from hasched.statemachine.snapshot import restore
from tests.scheduler.cluster import Cluster

GIB = 2**30
NODES = [f"n{number}" for number in range(5)]
A100, H100 = GpuDevice("", "A100", 40 * GIB), GpuDevice("", "H100", 80 * GIB)
KINDS: list[dict[str, Any]] = [
    {"cpu": 4, "memory": 8 * GIB},
    {"cpu": 16, "memory": 64 * GIB, "labels": {"rack": "r1"}},
    {"cpu": 16, "memory": 64 * GIB, "labels": {"rack": "r2"}, "countables": (("licences", 2),)},
    {"cpu": 16, "memory": 64 * GIB, "gpus": 2, "gpus_known": (A100, A100), "labels": {"rack": "r1"}},
    {"cpu": 16, "memory": 64 * GIB, "gpus": 2, "gpus_known": (A100, H100), "taints": (parse_taint("gpu-only"),)},
]
JOBS: list[dict[str, Any]] = [
    {"resources": {"cpu": 1, "memory": "1Gi"}, "count": 6},
    {"resources": {"cpu": 2, "gpus": 1}, "count": 3, "placement": {"tolerations": ["gpu-only"]}},
    {"resources": {"cpu": 1, "gpus": 1, "gpu_model": ["H100"]}, "placement": {"tolerations": ["gpu-only"]}},
    {"resources": {"cpu": 1, "countables": {"licences": 1}}, "count": 3},
    {"resources": {"cpu": 3}, "placement": {"constraints": ["label.rack == r1"]}, "count": 4},
    {"resources": {"cpu": 2}, "placement": {"spread": [{"label": "rack"}]}, "count": 5},
    {"resources": {"cpu": 1}, "placement": {"anti_affinity": [{"jobs": "self"}]}, "count": 4},
    {"placement": {"any_of": [{"cpu": 8, "gpus": 2}, {"cpu": 12}]}, "count": 2},
    {"resources": {"cpu": 6}, "count": 5, "gang": True},
    {
        "gang": True,
        "groups": [
            {"name": "a", "count": 1, "resources": {"cpu": 9}},
            {"name": "b", "count": 4, "resources": {"cpu": 5}},
        ],
    },
]


def ask(cluster: Cluster, classes: NodeClasses) -> list[object]:
    """Every question about the cluster as it is."""
    known = Known(cluster.planner.held_nodes, NODES[1:], cluster.planner.kept)
    waiting = [job for job in cluster.state.jobs.values() if job.eligible]
    answers: list[object] = [explain_waiting(cluster.state, job, classes, known) for job in waiting]
    return [*answers, show_resources(cluster.state, "class", classes)]


def happen(cluster: Cluster, what: str, number: int, kind: int) -> None:
    node_id = NODES[number]
    node = cluster.state.nodes.get(node_id)
    match what:
        case "submit":
            spec = parse_spec({"name": "job", "command": ["true"], **JOBS[(number * len(KINDS) + kind) % len(JOBS)]})
            name = f"s{cluster.state.next_job_id}"
            cluster.do(SubmitJob(submission_id=name, actor="ada", spec=spec))
        case "come":
            cluster.node(node_id, **KINDS[kind])
        case "place":
            cluster.place()
        case "end" if node is not None and node.attempts:
            (job_id, index), attempt = next(iter(node.attempts.items()))
            cluster.end(job_id, index, attempt, node_id)
        case "cordon" if node is not None:
            cluster.do(SetNodeEligibility(node_id=node_id, eligible=bool(kind % 2), actor="ada"))
        case "drain" if node is not None:
            drain = DrainNode(node_id=node_id, actor="ada")
            cluster.do(UndrainNode(node_id=node_id, actor="ada") if kind % 2 else drain)
        case "go" if node is not None:
            cluster.do(SetNodeState(node_id=node_id, state=NodeState.DISCONNECTED, reason="gone"))
            if kind % 2:
                cluster.do(RemoveNode(node_id=node_id, actor="ada"))


WHAT = ("submit", "come", "place", "end", "end", "cordon", "drain", "go")
STEPS = st.lists(
    st.tuples(st.sampled_from(WHAT), st.integers(0, 4), st.integers(0, 4), st.booleans()), min_size=3, max_size=15
)


@given(STEPS)
def test_answers_are_those_of_whoever_knew_nothing_before(steps: list[tuple[str, int, int, bool]]) -> None:
    cluster, kept = Cluster(), NodeClasses()
    for number, info in enumerate(KINDS):
        cluster.node(NODES[number], **info)
        happen(cluster, "submit", number, number)
    cluster.place()
    assert ask(cluster, kept) == ask(cluster, NodeClasses())
    for what, number, kind, asks in steps:
        happen(cluster, what, number, kind)
        if asks:
            assert ask(cluster, kept) == ask(cluster, NodeClasses())
    assert ask(cluster, kept) == ask(cluster, NodeClasses())
    cluster.state = restore(cluster.snapshot())  # another state: what is kept is of no use
    assert ask(cluster, kept) == ask(cluster, NodeClasses())


def test_many_nodes_are_taken_in_step_by_step_and_then_only_those_that_change() -> None:
    cluster, classes = Cluster(), NodeClasses()
    for number in range(3 * FOLLOW_SLICE):
        cluster.node(f"n{number}")
    assert len(list(classes.follow(cluster.state))) == 3
    assert list(classes.follow(cluster.state)) == []
    job = cluster.submit(cpu=1)
    cluster.place()
    assert job.active
    assert len(list(classes.follow(cluster.state))) == 1
    (members,) = classes.members(cluster.state)
    assert sum(members.cpu_milli) == (3 * FOLLOW_SLICE - 1) * 1000
