"""Why a job waits, in full: every blocker, by class of node, and changes that really start it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hasched.model.answers import ChangeView, JobForecast, RemedyView, Why
from hasched.model.parse import parse_spec
from hasched.model.policy import Amounts, PolicyKind, Quota, Reservation
from hasched.model.policy_text import parse_policy, write_policy
from hasched.model.reasons import ReasonCode
from hasched.model.states import NodeState
from hasched.model.taints import parse_taint
from hasched.model.times import format_time
from hasched.model.units import HOUR_MS
from hasched.model.views import Reason
from hasched.model.wire import GpuDevice
from hasched.scheduler.explain import Known, count_ahead, explain_waiting, find_late, pending_reason
from hasched.scheduler.order import ByPriority, group_of
from hasched.scheduler.rehearsal import Rehearsal
from hasched.statemachine.commands import (
    CancelJob,
    Command,
    DrainNode,
    EndQuarantine,
    PutPolicy,
    QuarantineNode,
    ResumeJob,
    SetNodeEligibility,
    SetNodeState,
    StepClock,
    SubmitJob,
    SuspendJob,
    UndrainNode,
)
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.snapshot import restore
from hasched.statemachine.state import State
from tests.scheduler.cluster import Cluster

GIB = 2**30
A100 = GpuDevice("", "A100", 40 * GIB)
H100 = GpuDevice("", "H100", 80 * GIB)


def submit(cluster: Cluster, document: dict[str, Any]) -> Job:
    number = cluster.state.next_job_id
    command = SubmitJob(submission_id=f"s{number}", actor="ada", spec=parse_spec({"command": ["true"], **document}))
    (outcome,) = cluster.do(command).outcomes
    assert isinstance(outcome, JobAccepted)
    return cluster.state.jobs[outcome.job_id]


def why(cluster: Cluster, job: Job) -> Why:
    return explain_waiting(cluster.state, job, known=Known(kept=cluster.planner.kept))


def codes(answer: Why) -> list[str]:
    return [blocker.code for blocker in answer.blockers]


def remedies(answer: Why) -> list[str]:
    return [remedy.text for remedy in answer.remedies]


def starts_with(cluster: Cluster, job: Job, document: dict[str, Any], remedy: RemedyView) -> bool:
    """Whether a task starts once exactly this has been changed, on a copy of the cluster."""
    state = restore(cluster.snapshot())
    rehearsal = Rehearsal(state, cluster.now_ms)
    changed = {"command": ["true"], **document}
    resubmit = False
    for change in remedy.changes:
        if change.target == "node":
            rehearsal.do(_command_for(change))
        elif change.target == "policy":
            rehearsal.do(_raise_policy(state, change))
        elif change.target == "time":
            rehearsal.now_ms = max(rehearsal.now_ms, change.value)
            rehearsal.do(StepClock())
        elif change.key == "suspended":
            rehearsal.do(ResumeJob(job_id=job.id, actor="ada"))
        else:
            changed = put(changed, change.key.split("."), change.value)
            resubmit = True
    job_id = job.id
    before = state.jobs[job_id].active
    if resubmit:
        spec = parse_spec(changed)
        (outcome,) = rehearsal.do(SubmitJob(submission_id="changed", actor="ada", spec=spec)).outcomes
        assert isinstance(outcome, JobAccepted)
        rehearsal.do(CancelJob(job_id=job.id, actor="ada"))
        job_id, before = outcome.job_id, 0
    started: list[int] = []
    rehearsal = Rehearsal(state, rehearsal.now_ms, on_start=lambda now_ms, event: started.append(event.job_id))
    rehearsal.begin()
    rehearsal.settle()
    if remedy.shared or cluster.planner.held_nodes:  # then those that come before it are served first
        order = ByPriority()
        mine = order.rank(group_of(state.jobs[job_id]), job_id)
        held = rehearsal.planner.held_nodes.values()
        return any(each == job_id or order.rank(group_of(state.jobs[each]), each) < mine for each in (*started, *held))
    return state.jobs[job_id].active > before


def put(document: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """The document with `value` at a place; None: without that key."""
    key, *rest = path
    name, _, place = key.removesuffix("]").partition("[")
    changed = dict(document)
    if place:
        entries = list(changed[name])
        entries[int(place)] = put(entries[int(place)], rest, value)
        changed[name] = entries
    elif rest:
        changed[name] = put(changed.get(name, {}), rest, value)
    elif value is None:
        changed.pop(name, None)
    else:
        changed[name] = value
    return changed


def _raise_policy(state: State, change: ChangeView) -> PutPolicy:
    """As `hasched policy apply` would put it: the document with one amount raised."""
    where, _, key = change.key.partition(".")
    kind, _, name = where.partition("/")
    policy = state.policies.get(PolicyKind(kind), {}).get(name)
    document = write_policy(policy.body) if policy is not None else {}
    _, body = parse_policy(kind, name, put(document, key.split("."), change.value))
    return PutPolicy(kind=PolicyKind(kind), name=name, body=body, actor="bob")


def _command_for(change: ChangeView) -> Command:
    node_id, _, what = change.key.rpartition(".")
    match what:
        case "cordon":
            return SetNodeEligibility(node_id=node_id, eligible=True, actor="ada")
        case "drain":
            return UndrainNode(node_id=node_id, actor="ada")
        case _:
            return EndQuarantine(node_id=node_id, actor="ada")


# ── What it says ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_that_doesnt_wait_has_nothing_to_explain() -> None:
    cluster = Cluster()
    cluster.node("n1")
    job = submit(cluster, {})
    cluster.place()
    assert why(cluster, job) == Why(job_id=job.id, name="true", log_index=cluster.state.index, waiting=0)


def test_less_memory_is_suggested_as_much_as_is_free_and_no_less() -> None:
    cluster = Cluster()
    for number, gib in enumerate((28, 28, 20)):
        cluster.node(f"n{number}", cpu=8, memory=gib * GIB)
    document = {"resources": {"cpu": 1, "memory": "32Gi"}}
    answer = why(cluster, submit(cluster, document))
    assert remedies(answer) == ["ask for 28Gi memory instead of 32Gi memory"]
    assert answer.remedies[0].nodes == 2
    assert codes(answer) == ["unsatisfiable"]
    (view,) = [each for each in answer.classes if each.total.memory_bytes == 28 * GIB]
    assert (view.nodes, view.open, view.examples) == (2, 0, ["n0", "n1"])
    assert [(each.code, each.nodes) for each in view.blockers] == [("insufficient_memory", 2)]
    assert view.blockers[0].text == "it asks for 32Gi memory; the most that is free is 28Gi memory"
    assert view.blockers[0].doc == "docs/reasons.md#insufficient_memory"


def test_everything_that_is_in_the_way_is_said_at_once() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=2, memory=GIB, pool="gpu", taints=(parse_taint("gpu-only"),))
    cluster.do(SetNodeEligibility(node_id="n1", eligible=False, actor="bob"))
    document = {"resources": {"cpu": 4, "memory": "2Gi"}, "max_running": 1}
    job = submit(cluster, document)
    cluster.do(SuspendJob(job_id=job.id, actor="ada"))
    answer = why(cluster, job)
    assert codes(answer) == ["suspended", "no_nodes"]
    (view,) = answer.classes
    assert [blocker.code for blocker in view.blockers] == [
        "node_cordoned",
        "pool",
        "taint",
        "insufficient_cpu",
        "insufficient_memory",
    ]
    (remedy,) = answer.remedies
    assert [change.key for change in remedy.changes] == [
        "suspended",
        "n1.cordon",
        "placement.pool",
        "placement.tolerations",
        "resources.cpu",
        "resources.memory",
    ]
    assert starts_with(cluster, job, document, remedy)


def test_the_smallest_change_comes_first() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=1)
    cluster.node("n2", cpu=8)
    cluster.node("n3", cpu=7)
    cluster.do(SetNodeEligibility(node_id="n2", eligible=False, actor="bob"))
    answer = why(cluster, submit(cluster, {"resources": {"cpu": 8}}))
    assert remedies(answer) == ["ask for 7 CPU instead of 8 CPU", "uncordon n2"]


def test_what_a_node_has_none_of_is_told_from_what_is_in_use() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=4, gpus=1)
    submit(cluster, {"resources": {"gpus": 1}})
    cluster.place()
    answer = why(cluster, submit(cluster, {"resources": {"cpu": 1, "gpus": 1, "countables": {"fpga": 2}}}))
    assert [blocker.text for blocker in answer.classes[0].blockers] == [
        "it asks for 1 GPU; nothing is free",
        "it asks for 2 fpga; there is none",
    ]


def test_what_asks_for_more_than_another_that_is_enough_is_left_out() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.node("n2", pool="lab")
    cluster.node("n3")
    cluster.do(SetNodeEligibility(node_id="n1", eligible=False, actor="bob"))
    answer = why(cluster, submit(cluster, {"placement": {"constraints": "node == n1"}}))
    assert remedies(answer) == ["drop the constraint node == n1", "uncordon n1"], "and not with the pool of n2"


def test_gpus_of_another_model() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=8, gpus=2, gpus_known=(A100, A100))
    document = {"resources": {"cpu": 1, "gpus": 1, "gpu_model": "H100"}}
    job = submit(cluster, document)
    answer = why(cluster, job)
    assert [blocker.code for blocker in answer.classes[0].blockers] == ["gpu_model"]
    assert [(remedy.text, remedy.nodes) for remedy in answer.remedies] == [("ask for GPUs of any model", 1)]
    assert starts_with(cluster, job, document, answer.remedies[0])
    assert codes(answer) == ["unsatisfiable"]
    assert pending_reason(cluster.state, job) == Reason(
        code="unsatisfiable",
        text="no healthy node has 1 CPU, 1 GPU (H100) in all; the most of each on one node is 8 CPU, 0 GPUs",
    )


def test_constraints_are_named_one_by_one() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=8, labels={"zone": "a"})
    document = {"placement": {"constraints": ["label.zone == b", "label.zone != c"]}}
    job = submit(cluster, document)
    answer = why(cluster, job)
    assert [blocker.code for blocker in answer.classes[0].blockers] == ["constraint"]
    (remedy,) = answer.remedies
    assert starts_with(cluster, job, document, remedy)


def test_a_gang_is_told_how_many_would_start_at_once() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=2)
    cluster.node("n2", cpu=1)
    document = {"count": 4, "gang": True}
    job = submit(cluster, document)
    answer = why(cluster, job)
    assert codes(answer) == ["gang"]
    assert remedies(answer) == ["be content with 3 tasks at once instead of 4"]
    assert starts_with(cluster, job, document, answer.remedies[0])


def test_a_gang_is_told_of_the_room_beside_free_gpus() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=8, gpus=2, gpus_known=(A100, A100))
    submit(cluster, {"resources": {"cpu": 3, "gpus": 1}})
    cluster.place()
    document = {"count": 4, "gang": True}
    job = submit(cluster, document)
    cluster.place()
    answer = why(cluster, job)
    told = "its 4 tasks start together, and there is room for 2 now, and for 2 on empty nodes"
    (text,) = [blocker.text for blocker in answer.blockers if blocker.code == ReasonCode.GANG]
    assert text == f"{told}, beside the 3 CPU that each free GPU keeps"
    reason = pending_reason(cluster.state, job, cluster.planner.kept)
    assert reason is not None and reason.text == text
    assert remedies(answer) == ["be content with 2 tasks at once instead of 4"]
    assert starts_with(cluster, job, document, answer.remedies[0])


def test_room_on_nodes_that_others_have_is_no_room_for_a_gang() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=2)
    cluster.node("n2", cpu=2)
    reserve(cluster, "n2", -1)
    document = {"count": 4, "gang": True}
    job = submit(cluster, document)
    cluster.place()
    assert not job.active
    (remedy,) = why(cluster, job).remedies
    assert remedy.text == "be content with 2 tasks at once instead of 4"
    assert starts_with(cluster, job, document, remedy)
    silent = explain_waiting(cluster.state, job, known=Known(reachable=["n1"]))
    assert remedies(silent) == [remedy.text]


def test_a_gang_with_rules_is_not_told_of_a_size_that_they_may_forbid() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=2)
    cluster.node("n2", cpu=1)
    job = submit(cluster, {"count": 4, "gang": True, "placement": {"anti_affinity": [{"jobs": "self"}]}})
    answer = why(cluster, job)
    assert ("gang" in codes(answer), remedies(answer)) == (True, []), "two would start, and not three"


def test_what_must_be_apart_may_be_together_if_it_says_so() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=4)
    document = {"count": 2, "placement": {"anti_affinity": [{"jobs": "self"}]}}
    job = submit(cluster, document)
    cluster.place()
    answer = why(cluster, job)
    assert [blocker.code for blocker in answer.classes[0].blockers] == ["anti_affinity"]
    assert remedies(answer) == ["leave out placement.anti_affinity"]
    assert starts_with(cluster, job, document, answer.remedies[0])


def test_each_node_is_judged_by_the_number_that_runs_on_it_where_each_is_a_place_of_its_own() -> None:
    cluster = Cluster()
    for name in ("n1", "n2", "n3"):
        cluster.node(name, cpu=8)
    cluster.node("n4", cpu=1)
    placement = {"spread": [{"max_skew": 2}], "anti_affinity": [{"jobs": {"name": "other"}}]}
    other = submit(cluster, {"name": "other", "placement": {"constraints": ["node == n3"]}})
    cluster.place()
    job = submit(cluster, {"count": 9, "resources": {"cpu": 2}, "placement": placement})
    cluster.place()
    assert (other.active, job.active) == (1, 4)
    found = {
        view.examples[0]: sorted((each.code, each.nodes) for each in view.blockers)
        for view in why(cluster, job).classes
    }
    assert found == {
        "n1": [("anti_affinity", 1), ("spread", 2)],
        "n4": [("insufficient_cpu", 1)],
    }


def test_a_node_that_is_gone_can_not_be_wished_back() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.do(SetNodeState(node_id="n1", state=NodeState.UNHEALTHY, reason="silent"))
    answer = why(cluster, submit(cluster, {}))
    assert (codes(answer), remedies(answer)) == (["no_nodes"], [])
    assert [blocker.code for blocker in answer.classes[0].blockers] == ["node_unhealthy"]


def test_a_job_whose_turn_comes_waits_for_nothing_else() -> None:
    cluster = Cluster()
    cluster.node("n1")
    answer = why(cluster, submit(cluster, {}))
    assert (codes(answer), remedies(answer)) == (["waiting_turn"], [])
    assert answer.classes[0].open == 1


def test_a_quota_says_by_how_much_it_has_to_be_raised() -> None:
    cluster = Cluster()
    cluster.node("n1", cpu=8)
    quota = Quota(namespace="default", nominal=Amounts(cpu_milli=3000))
    cluster.do(PutPolicy(kind=PolicyKind.QUOTA, name="small", body=quota, actor="bob"))
    document = {"resources": {"cpu": 2}, "count": 2}
    job = submit(cluster, document)
    cluster.place()
    answer = why(cluster, job)
    assert codes(answer) == ["quota"]
    (remedy,) = answer.remedies
    assert remedy.shared and [change.target for change in remedy.changes] == ["policy"]
    assert starts_with(cluster, job, document, remedy)


def test_only_the_leader_knows_whom_it_reaches_and_for_whom_a_node_is_kept() -> None:
    cluster = Cluster()
    for number in range(16):
        cluster.node(f"n{number:02}", cpu=4)
    submit(cluster, {"count": 48, "resources": {"cpu": 1}})
    cluster.place()
    large, small = submit(cluster, {"resources": {"cpu": 4}, "priority": 9}), submit(cluster, {"resources": {"cpu": 3}})
    held = {"n12": large.id}
    reachable = ["n12", "n13"]
    answer = explain_waiting(cluster.state, small, known=Known(held, reachable))
    found = {blocker.code: blocker.nodes for view in answer.classes for blocker in view.blockers}
    assert (found["reserved"], found["node_unreachable"]) == (1, 14)
    for other in (large, submit(cluster, {"resources": {"cpu": 3}, "priority": 10})):
        answer = explain_waiting(cluster.state, other, known=Known(held, None))
        found = {blocker.code: blocker.nodes for view in answer.classes for blocker in view.blockers}
        assert "reserved" not in found, "neither from whom it is kept for, nor from who comes before that one"


def test_its_place_in_the_order() -> None:
    cluster = Cluster()
    for priority in (5, 1, 5, 9):
        last = submit(cluster, {"priority": priority})
    first = cluster.state.jobs[2]
    counts = {job.id: list(count_ahead(cluster.state, job, ByPriority()))[-1] for job in (first, last)}
    assert counts == {first.id: 3, last.id: 0}


def reserve(cluster: Cluster, node_id: str, in_ms: int) -> None:
    start_ms = cluster.now_ms + in_ms
    body = Reservation(nodes=(node_id,), start_ms=start_ms, end_ms=start_ms + HOUR_MS)
    cluster.do(PutPolicy(kind=PolicyKind.RESERVATION, name="works", body=body, actor="bob"))


def test_the_reservation_that_keeps_a_node_is_named_with_its_times() -> None:
    cluster = Cluster()
    cluster.node("n1")
    reserve(cluster, "n1", HOUR_MS)
    job = submit(cluster, {})
    answer = why(cluster, job)
    (blocker,) = answer.classes[0].blockers
    start_ms = cluster.now_ms + HOUR_MS
    when = f"from {format_time(start_ms)} to {format_time(start_ms + HOUR_MS)}"
    assert blocker.text == f"the reservation works keeps the node for others {when}, and the job may run into it"
    assert remedies(answer) == ["limit its time to 52m20s, before the reservation works begins"]
    assert starts_with(cluster, job, {}, answer.remedies[0])


def test_no_time_limit_is_suggested_that_no_job_may_have() -> None:
    cluster = Cluster()
    cluster.node("n1")
    reserve(cluster, "n1", 20 * 366 * 24 * HOUR_MS)
    job = submit(cluster, {})
    (remedy,) = why(cluster, job).remedies
    assert starts_with(cluster, job, {}, remedy)


def test_a_remedy_counts_the_nodes_of_every_class_on_which_it_helps() -> None:
    cluster = Cluster()
    for number, cpu in enumerate((4, 4, 8, 16)):
        cluster.node(f"n{number}", cpu=cpu, pool="lab")
    answer = why(cluster, submit(cluster, {}))
    assert [(remedy.text, remedy.nodes) for remedy in answer.remedies] == [("allow the pool lab", 4)]


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        pytest.param(
            {"gpus": 9}, "; the largest that could ever fit asks for 8 GPUs instead of 9 GPUs, on n1 and 1 more"
        ),
        pytest.param({"cpu": 17}, "; the largest that could ever fit asks for 16 CPU instead of 17 CPU, on n3"),
        pytest.param({"cpu": 1, "countables": {"licence": 2}}, "", id="what no node has"),
    ],
)
def test_what_no_node_has_is_answered_with_the_most_that_one_has(resources: dict[str, Any], told: str) -> None:
    cluster = Cluster()
    for node_id, cpu, gpus in (("n1", 8, 8), ("n2", 8, 8), ("n3", 16, 4)):
        cluster.node(node_id, cpu=cpu, gpus=gpus, gpus_known=(A100,) * gpus)
    for _ in range(3):
        submit(cluster, {"resources": {"cpu": 8}})
    cluster.place()  # so that nothing is free
    submit(cluster, {"resources": {"cpu": 8}})
    cluster.place()
    answer = why(cluster, submit(cluster, {"resources": resources}))
    assert remedies(answer) == []
    (blocker,) = answer.blockers
    assert (blocker.code, blocker.text) == (
        "unsatisfiable",
        f"none of the 3 nodes that may run it has so much in all{told}",
    )


def test_one_node_is_spoken_of_as_one() -> None:
    cluster = Cluster()
    assert [each.text for each in why(cluster, submit(cluster, {})).blockers] == [
        "there is no node yet: no agent has come"
    ]
    cluster.node("n1", cpu=2)
    answer = why(cluster, submit(cluster, {"resources": {"cpu": 2}}))
    assert answer.blockers[0].text == "1 of 1 node has room: it starts as soon as its turn comes"
    cluster.place()
    answer = why(cluster, submit(cluster, {"resources": {"cpu": 2}}))
    assert answer.blockers[0].text == "the only node that may run it hasn't enough free now"


# ── Reasons are complete ────────────────────────────────────────────────────────────────────────────────────────────


def _sound(document: dict[str, Any]) -> dict[str, Any]:
    """A GPU's model is only asked for together with GPUs, and gangs have neither a part of them running nor relations."""
    asked = document["resources"]
    if document.get("gang"):
        placement = document.get("placement", {})
        kept = {key: placement[key] for key in placement if key not in ("anti_affinity", "spread")}
        document = {key: document[key] for key in document if key != "max_running"} | {"placement": kept}
    return {**document, "resources": {key: asked[key] for key in asked if key != "gpu_model" or "gpus" in asked}}


nodes = st.lists(
    st.fixed_dictionaries(
        {
            "cpu": st.integers(1, 6),
            "memory": st.integers(0, 6),
            "gpus": st.lists(st.sampled_from([A100, H100]), max_size=2),
            "pool": st.sampled_from(["default", "default", "gpu"]),
            "taints": st.sampled_from([(), (), ("dedicated=ml",)]),
            "zone": st.sampled_from(["a", "b"]),
            "control": st.sampled_from(["", "", "", "cordon", "drain", "quarantine", "unhealthy"]),
        }
    ),
    min_size=1,
    max_size=5,
)
documents = st.fixed_dictionaries(
    {
        "resources": st.fixed_dictionaries(
            {"cpu": st.integers(1, 6)},
            optional={
                "memory": st.integers(1, 6).map(lambda gib: f"{gib}Gi"),
                "gpus": st.integers(1, 2),
                "gpu_model": st.sampled_from(["A100", "H100"]),
                "countables": st.just({"licence": 2}),
            },
        ),
        "count": st.integers(1, 3),
        "priority": st.integers(0, 2),
    },
    optional={
        "max_running": st.integers(1, 2),
        "gang": st.just(True),
        "placement": st.fixed_dictionaries(
            {},
            optional={
                "pool": st.sampled_from([["gpu"], ["default", "gpu"]]),
                "constraints": st.just(["label.zone == a"]),
                "tolerations": st.just(["dedicated"]),
                "anti_affinity": st.just([{"jobs": "self"}]),
                "spread": st.just([{"label": "zone", "max_skew": 1}]),
            },
        ),
    },
).map(_sound)


_ABOUT_THE_JOB = (ReasonCode.SUSPENDED, ReasonCode.MAX_RUNNING, ReasonCode.GANG)
_TWO_GPUS = {
    "cpu": 6,
    "memory": 0,
    "gpus": [A100, A100],
    "pool": "default",
    "taints": (),
    "zone": "a",
    "control": "",
}
_ONE_GPU = {"resources": {"cpu": 2, "gpus": 1}, "count": 1, "priority": 0}
_ONE_CORE = {"resources": {"cpu": 1}, "count": 1, "priority": 0}


# The GPU that is free keeps 2 CPU of the 4 that are, from gangs and from single tasks.
@example(nodes=[_TWO_GPUS], wanted=[_ONE_GPU, {**_ONE_CORE, "count": 4, "gang": True}], suspended=False)
@example(nodes=[_TWO_GPUS], wanted=[_ONE_GPU, {**_ONE_CORE, "count": 5, "gang": True}], suspended=False)
@example(nodes=[{**_TWO_GPUS, "cpu": 5}], wanted=[*[_ONE_CORE] * 3, _ONE_GPU], suspended=True)
@settings(max_examples=60, deadline=None)
@given(nodes=nodes, wanted=st.lists(documents, min_size=1, max_size=6), suspended=st.booleans())
def test_whatever_is_suggested_starts_a_task(
    nodes: list[dict[str, Any]], wanted: list[dict[str, Any]], suspended: bool
) -> None:
    cluster = Cluster()
    for number, node in enumerate(nodes):
        _add(cluster, f"n{number}", **node)
    submitted = {submit(cluster, document).id: document for document in wanted}
    if suspended:
        cluster.do(SuspendJob(job_id=1, actor="ada"))
    cluster.place()
    for job_id, document in submitted.items():
        job = cluster.state.jobs[job_id]
        answer = why(cluster, job)
        if not answer.waiting:
            continue
        of_job = [blocker for blocker in answer.blockers if blocker.code in _ABOUT_THE_JOB]
        assert of_job or cluster.planner.held_nodes or not any(view.open for view in answer.classes), (
            "all has been placed, so something is in the way"
        )
        assert sum(view.nodes for view in answer.classes) == len(nodes)
        for remedy in answer.remedies:
            assert starts_with(cluster, job, document, remedy), remedy
        lacking = {blocker.code for view in answer.classes for blocker in view.blockers}
        if not answer.remedies and not job.starts_together and not any(view.open for view in answer.classes):
            hopeless = {"node_unhealthy", *(code for code in lacking if code.startswith("insufficient_"))}
            assert lacking & hopeless, "what can be lifted has a remedy"


def _add(cluster: Cluster, node_id: str, **node: Any) -> None:
    resources = {"cpu": node["cpu"], "memory": node["memory"] * GIB, "gpus": len(node["gpus"])}
    cluster.node(
        node_id,
        **resources,
        gpus_known=tuple(node["gpus"]),
        pool=node["pool"],
        taints=tuple(map(parse_taint, node["taints"])),
        labels={"zone": node["zone"]},
        countables=(("licence", 3),),
    )
    match node["control"]:
        case "cordon":
            cluster.do(SetNodeEligibility(node_id=node_id, eligible=False, actor="bob"))
        case "drain":
            cluster.do(DrainNode(node_id=node_id, actor="bob"))
        case "quarantine":
            cluster.do(QuarantineNode(node_id=node_id, reason="launches failed", wait_ms=60_000))
        case "unhealthy":
            cluster.do(SetNodeState(node_id=node_id, state=NodeState.UNHEALTHY, reason="silent"))


@pytest.mark.parametrize(
    ("document", "told", "value_ms"),
    [
        pytest.param({"timeout": "1h", "deadline": "90m"}, "", 0, id="it can still end in time"),
        pytest.param({"deadline": "1m"}, "", 0, id="it says of no time limit that it needs it"),
        pytest.param({"timeout": "1h"}, "", 0, id="it has no deadline"),
        pytest.param(
            {"timeout": "2h", "deadline": "90m"}, "has not started and may take 2h", 2 * HOUR_MS, id="too short"
        ),
        pytest.param(
            {"timeout": "1h", "deadline": "90m", "not_before": "45m"}, "may take 1h", HOUR_MS * 7 // 4, id="too late"
        ),
    ],
)
def test_a_deadline_that_can_not_be_met_is_told(document: dict[str, Any], told: str, value_ms: int) -> None:
    cluster = Cluster()
    job = submit(cluster, document)
    late = find_late(cluster.state, job, None)
    assert (late is not None) is bool(told)
    if late is not None and late.change is not None:
        assert late.code is ReasonCode.DEADLINE and told in late.text
        assert late.change.value == format_time(cluster.state.now_ms + value_ms)


def test_a_deadline_is_held_against_when_the_job_is_expected_to_start() -> None:
    cluster = Cluster()
    job = submit(cluster, {"timeout": "1h", "deadline": "90m", "count": 2})
    now_ms = cluster.state.now_ms
    foreseen = JobForecast(job_id=job.id, name="job", waiting=2, starting=2, start_ms=now_ms, last_start_ms=now_ms)
    assert find_late(cluster.state, job, foreseen) is None
    foreseen = replace(foreseen, last_start_ms=now_ms + HOUR_MS)
    late = find_late(cluster.state, job, foreseen)
    assert late is not None and late.change is not None
    assert f"it is expected to start at {format_time(now_ms + HOUR_MS)} and may take 1h" in late.text
    assert late.change.value == format_time(now_ms + 2 * HOUR_MS)
    never = replace(foreseen, starting=0, reason=Reason(code=ReasonCode.DEADLINE, text="not before its deadline"))
    late = find_late(cluster.state, job, never)
    assert late is not None and "not all of it is expected to start before its deadline" in late.text
