"""Plans and comparisons: what would be, and nothing of it is."""

from __future__ import annotations

import pytest

from hasched.model.answers import Plan, PlannedPlacement, Preempted, WhatIf
from hasched.model.policy import Amounts, PolicyKind, Price, Quota
from hasched.model.spec import JobSpec, Resources
from hasched.scheduler.hypotheses import (
    Hypothesis,
    Impossible,
    JobAdded,
    JobGone,
    NodeGone,
    NodesAdded,
    NodesDrained,
    PolicyChanged,
    PriorityChanged,
)
from hasched.scheduler.questions import AskPlan, AskWhatIf, answer
from hasched.statemachine.commands import PutPolicy
from tests.scheduler.cluster import MINUTE, T0, Cluster, make_spec

DAY = 24 * 60 * MINUTE


def plan(cluster: Cluster, *specs: JobSpec) -> Plan:
    question = AskPlan(now_ms=cluster.now_ms, until_ms=cluster.now_ms + DAY, specs=specs, actor="ada")
    planned = answer(question, cluster.snapshot())
    assert isinstance(planned, Plan)
    return planned


def what_if(cluster: Cluster, *hypotheses: Hypothesis) -> WhatIf:
    question = AskWhatIf(now_ms=cluster.now_ms, until_ms=cluster.now_ms + DAY, hypotheses=hypotheses)
    compared = answer(question, cluster.snapshot())
    assert isinstance(compared, WhatIf)
    return compared


def starts(compared: WhatIf) -> dict[int, tuple[int | None, int | None]]:
    """By job, in minutes from the beginning, now and then; None: not known, or not there."""
    return {
        job.job_id: tuple(  # type: ignore[misc]
            (side.start_ms - T0) // MINUTE if side is not None and side.start_ms else None
            for side in (job.now, job.then)
        )
        for job in compared.jobs
    }


def test_a_plan_says_what_starts_where_now_and_when_the_rest_does() -> None:
    cluster = Cluster()
    cluster.node("n1", 2)
    cluster.node("n2", 2)
    cluster.submit(10)
    cluster.place()
    planned = plan(cluster, make_spec(5, count=4), make_spec(5, cpu=9))
    small, large = planned.jobs
    assert planned.check_index == cluster.state.index
    assert sum(each.tasks for each in small.placements) == small.starting_now == 3
    assert {each.node_id for each in small.placements} == {"n1", "n2"}
    assert small.later is not None and small.later.last_start_ms == T0 + 5 * MINUTE
    assert large.starting_now == 0 and large.later is not None and large.later.reason is not None
    assert large.later.reason.code == "unsatisfiable"
    assert small.remedies == [], "everything is full"


def test_an_elastic_gang_that_starts_smaller_leaves_nothing_for_later() -> None:
    cluster = Cluster()
    cluster.node("n1", 4)
    (job,) = plan(cluster, make_spec(5, count=9, gang=True, min_count=2)).jobs
    assert (job.tasks, job.starting_now, job.later) == (9, 4, None)


def test_a_plan_says_what_would_start_at_once() -> None:
    cluster = Cluster()
    cluster.node("n1", 2)
    (job,) = plan(cluster, make_spec(5, cpu=3)).jobs
    assert [remedy.text for remedy in job.remedies] == ["ask for 2 CPU instead of 3 CPU"]


def test_the_second_job_of_a_plan_comes_after_the_first() -> None:
    cluster = Cluster()
    cluster.node("n1")
    first, second = plan(cluster, make_spec(5), make_spec(5)).jobs
    assert first.placements == [PlannedPlacement(node_id="n1", tasks=1)] and first.later is None
    assert second.placements == [] and second.later is not None and second.later.start_ms == T0 + 5 * MINUTE


def test_a_plan_counts_with_what_waits_already() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit(10)
    (job,) = plan(cluster, make_spec(5)).jobs
    assert job.later is not None and job.later.start_ms == T0 + 10 * MINUTE


def test_a_job_that_would_be_refused_says_why() -> None:
    (job,) = plan(Cluster(), make_spec(resources=Resources(cpu_milli=-1))).jobs
    assert job.refused is not None and job.refused.code == "invalid_spec"


def test_a_plan_says_who_would_give_way() -> None:
    cluster = Cluster()
    cluster.node("n1")
    low = cluster.submit(600, priority_class="low", kill_grace_ms=4000)
    cluster.place()
    (job,) = plan(cluster, make_spec(5, priority_class="high")).jobs
    assert job.preempts == [Preempted(job_id=low.id, task_index=0, node_id="n1")]
    assert job.starting_now == 0 and job.later is not None and job.later.start_ms == T0 + 4000
    assert low.active == 1, "nothing has happened"


def test_a_plan_names_all_who_give_way_at_once_a_gang_whole() -> None:
    cluster = Cluster()
    for number in range(3):
        cluster.node(f"n{number}", cpu=2)
    gang = cluster.submit(10, gang=True, count=4)
    cluster.place()
    low = cluster.submit(10, count=2)
    cluster.place()
    (job,) = plan(cluster, make_spec(10, count=3, priority_class="high")).jobs
    given_way = {(each.job_id, each.task_index) for each in job.preempts}
    assert given_way == {(low.id, 0), (low.id, 1), *((gang.id, rank) for rank in range(4))}


def test_a_plan_says_what_it_costs_where_there_are_prices() -> None:
    cluster = Cluster()
    cluster.node("n1")
    (free,) = plan(cluster, make_spec(30)).jobs
    price = Price(currency="EUR", cpu_micro=100_000)
    cluster.do(PutPolicy(kind=PolicyKind.PRICE, name="default", body=price, actor="bob"))
    (priced,) = plan(cluster, make_spec(30, count=2)).jobs
    assert free.cost is None and priced.cost is not None
    assert (priced.cost.cost_micro, priced.cost.currency) == (100_000, "EUR")


def test_a_larger_quota_lets_more_start() -> None:
    cluster = Cluster()
    cluster.node("n1", 4)
    quota = Quota(namespace="default", nominal=Amounts(cpu_milli=1000))
    cluster.do(PutPolicy(kind=PolicyKind.QUOTA, name="small", body=quota, actor="bob"))
    cluster.submit(10, count=3)
    cluster.place()
    larger = Quota(namespace="default", nominal=Amounts(cpu_milli=2000))
    change = PolicyChanged(kind=PolicyKind.QUOTA, name="small", body=larger, text="twice as much")
    (job,) = what_if(cluster, change).jobs
    assert job.now is not None and job.then is not None
    assert (job.now.start_ms, job.then.start_ms) == (T0 + 10 * MINUTE, T0)


def queueing() -> Cluster:
    """n1 runs job 1 for 10 minutes; 2, 3 and 4 wait for it, 5 minutes each."""
    cluster = Cluster()
    cluster.node("n1", labels={"rack": "r1"})
    cluster.submit(10)
    cluster.place()
    for _ in range(3):
        cluster.submit(5)
    return cluster


def test_more_nodes_start_what_waits_at_once() -> None:
    compared = what_if(queueing(), NodesAdded(count=2, like="n1"))
    assert starts(compared) == {2: (10, 0), 3: (15, 0), 4: (20, 5)}
    assert [job.change_ms for job in compared.jobs] == [-10 * MINUTE, -15 * MINUTE, -15 * MINUTE]
    assert compared.changes == ["2 more nodes like n1"]


def test_what_starts_when_it_would_anyhow_is_only_counted() -> None:
    compared = what_if(queueing(), PriorityChanged(job_id=4, priority=10))
    assert starts(compared) == {2: (10, 15), 3: (15, 20), 4: (20, 10)}
    assert what_if(queueing(), PriorityChanged(job_id=2, priority=10)).unchanged == 3


def test_a_node_that_goes_takes_its_tasks_with_it() -> None:
    cluster = queueing()
    cluster.node("n2")
    cluster.submit(5, cpu=1)
    cluster.place()
    compared = what_if(cluster, NodeGone(node_id="n1"))
    assert compared.lost == 1
    assert compared.jobs[0].job_id == 1 and compared.jobs[0].now is None
    assert starts(compared)[1] == (None, 5)


def test_a_drained_rack_lets_what_runs_end() -> None:
    compared = what_if(queueing(), NodesDrained(label="rack", value="r1"))
    assert compared.lost == 0 and compared.changes == ["1 node with rack=r1 drained"]
    assert starts(compared) == {2: (10, None), 3: (15, None), 4: (20, None)}
    assert compared.jobs[0].then is not None and compared.jobs[0].then.reason is not None
    assert compared.jobs[0].then.reason.code == "no_nodes"


def test_what_still_runs_at_the_deadline_of_a_drain_starts_again_elsewhere_or_waits() -> None:
    cluster = Cluster()
    cluster.node("n1", labels={"rack": "r1"})
    cluster.submit(10)
    cluster.place()
    drained = NodesDrained(label="rack", value="r1", wait_ms=2 * MINUTE)
    alone = what_if(cluster, drained)
    assert [(job.job_id, job.runs, job.now) for job in alone.jobs] == [(1, True, None)]
    assert alone.jobs[0].then is not None and alone.jobs[0].then.waiting == 1 and alone.jobs[0].then.start_ms == 0
    cluster.node("n2")
    assert starts(what_if(cluster, drained)) == {1: (None, 2)}
    assert what_if(cluster, NodesDrained(label="rack", value="r1")).jobs == [], "without a deadline it ends"
    assert what_if(cluster, NodesDrained(label="rack", value="r1", wait_ms=11 * MINUTE)).jobs == [], "it ends before"


def test_who_would_have_to_make_room_for_a_job_is_told() -> None:
    cluster = Cluster()
    cluster.node("n1")
    cluster.submit(10)
    cluster.place()
    urgent = make_spec(5, priority_class="high")
    compared = what_if(cluster, JobAdded(spec=urgent, actor="ada"))
    assert [(job.job_id, job.runs) for job in compared.jobs] == [(1, True), (2, False)]
    assert starts(compared) == {1: (None, 5), 2: (None, 0)}


def test_a_job_more_and_a_job_less() -> None:
    compared = what_if(queueing(), JobAdded(spec=make_spec(5, priority=9), actor="ada"), JobGone(job_id=1))
    assert starts(compared) == {2: (10, 5), 3: (15, 10), 4: (20, 15), 5: (None, 0)}


@pytest.mark.parametrize(
    ("hypothesis", "code"),
    [
        pytest.param(NodeGone(node_id="n9"), "no_such_node", id="no such node"),
        pytest.param(NodesAdded(count=1, like="n9"), "no_such_node", id="like no such node"),
        pytest.param(JobGone(job_id=9), "no_such_job", id="no such job"),
        pytest.param(NodesDrained(label="rack", value="r9"), "no_such_node", id="no node with such a label"),
    ],
)
def test_what_cant_be_is_said(hypothesis: Hypothesis, code: str) -> None:
    with pytest.raises(Impossible) as raised:
        what_if(queueing(), hypothesis)
    assert raised.value.extra.get("code", raised.value.code) == code
