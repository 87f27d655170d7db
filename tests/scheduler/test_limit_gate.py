"""The planner and the limits: it proposes nothing that a quota or a cap refuses, and comes back when something is given back."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hasched.model.policy import PolicyKind
from hasched.model.policy_text import parse_policy
from hasched.model.spec import JobSpec, PlacementRules, Resources
from hasched.model.states import NodeState
from hasched.scheduler.blockers import Blocker
from hasched.scheduler.explain import explain_waiting
from hasched.scheduler.gates import QueueRoom
from hasched.scheduler.limits import LimitGate
from hasched.statemachine.commands import (
    CancelJob,
    DeletePolicy,
    PutPolicy,
    SetNodeEligibility,
    SetNodeState,
    StepClock,
    SubmitJob,
    UpdateJob,
)
from hasched.statemachine.invariants import check, check_limits
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import JobAccepted, Rejected
from hasched.statemachine.weeks import start_of_week, week_of
from tests.scheduler.world import World


class Limited(World):
    def put(self, kind: str, name: str, **document: Any) -> None:
        known, body = parse_policy(kind, name, document)
        outcome = self.do(PutPolicy(kind=known, name=name, body=body, actor="ada"))
        assert not isinstance(outcome, Rejected), outcome

    def enter(self, actor: str = "ada", **fields: Any) -> Job:
        self.submitted += 1
        fields = {"name": "job", "command": ("true",), "resources": Resources(cpu_milli=1000), **fields}
        outcome = self.do(SubmitJob(submission_id=f"s{self.submitted}", actor=actor, spec=JobSpec(**fields)))
        assert isinstance(outcome, JobAccepted), outcome
        return self.state.jobs[outcome.job_id]

    def blocker(self, job: Job) -> Blocker:
        (blocker,) = LimitGate().blockers(self.state, job)
        return blocker


@pytest.fixture
def world() -> Limited:
    world = Limited()
    for name in ("n1", "n2"):
        world.node(name, cpu=50, gpus=8)
    for name in ("red", "blue"):
        world.put("namespace", name)
    return world


def test_nothing_is_proposed_beyond_a_quota(world: Limited) -> None:
    world.put("quota", "red", namespace="red", limits={"cpu": 3})
    red, other = world.enter(namespace="red", count=9), world.enter(count=9)
    world.settle()
    assert (red.active, other.active) == (3, 9)
    spent = world.planner.units_spent
    assert not world.planner.ready, "who is blocked costs nothing"
    world.end(other.id, 0)
    while world.planner.ready:
        assert world.plan() is None
    assert world.planner.units_spent <= spent + 2
    world.end(red.id, 0)
    world.end(red.id, 1)
    world.settle()
    assert red.active == 3


def test_what_is_on_its_way_counts(world: Limited) -> None:
    """Three plans are made before the first is decided."""
    world.put("quota", "red", namespace="red", limits={"running_tasks": 5, "running_jobs": 2})
    jobs = [world.enter(namespace="red", count=2) for _ in range(4)]
    plans = [plan for _ in range(6) if (plan := world.plan(budget=2)) is not None]
    assert sum(len(each.indices) for plan in plans for each in plan.placements) == 4
    for plan in plans:
        assert world.decide(plan).refused == 0
    world.settle()
    assert [job.active for job in jobs] == [2, 2, 0, 0]


def test_what_is_refused_on_its_way_is_given_back(world: Limited) -> None:
    """The plan names a node that is lost before it is decided; somebody else then takes its place in the quota."""
    world.put("quota", "red", namespace="red", limits={"running_tasks": 1})
    first, second = world.enter(namespace="red"), world.enter(namespace="red")
    plan = world.plan()
    assert plan is not None
    while world.planner.ready:
        assert world.plan() is None
    world.do(CancelJob(job_id=first.id, actor="ada"))
    assert world.decide(plan).refused == 1
    world.settle()
    assert second.active == 1


def test_a_higher_limit_lets_them_through_at_once(world: Limited) -> None:
    world.put("quota", "red", namespace="red", limits={"cpu": 1})
    world.put("cap", "web", subject="name", match="web", units=1)
    red, web = world.enter(namespace="red", count=3), world.enter(name="web", count=3)
    world.settle()
    world.put("quota", "red", namespace="red", limits={"cpu": 2})
    world.put("cap", "web", subject="name", match="web", units=2)
    world.settle()
    assert (red.active, web.active) == (2, 2)
    for kind, name in ((PolicyKind.QUOTA, "red"), (PolicyKind.CAP, "web")):
        world.do(DeletePolicy(kind=kind, name=name, actor="ada"))
    world.settle()
    assert (red.active, web.active) == (3, 3)


def test_a_small_task_passes_a_large_one(world: Limited) -> None:
    world.put("quota", "red", namespace="red", limits={"cpu": 3})
    large = world.enter(namespace="red", count=2, resources=Resources(cpu_milli=2000), priority=9)
    small = world.enter(namespace="red", count=2)
    world.settle()
    assert (large.active, small.active) == (1, 1)


def test_a_task_starts_by_whichever_alternative_is_within_the_quota(world: Limited) -> None:
    world.put("quota", "red", namespace="red", limits={"cpu": 4, "gpus": 1})
    by_cpu, by_gpu = Resources(cpu_milli=3000), Resources(cpu_milli=1000, gpus=1)
    rules = PlacementRules(any_of=(by_gpu, by_cpu))
    job = world.enter(namespace="red", count=4, resources=by_gpu, placement=rules)
    world.settle()
    assert sorted(map(job.part_of, job.active_attempts or ())) == [0, 1]
    assert not world.planner.ready
    for _ in range(2):
        world.end(job.id, next(iter(job.active_attempts or ())))
        world.settle()
        assert job.active == 2


class Barred(NamedTuple):
    """A job of which one alternative has room and no quota, and the other a quota and no room; what takes the room."""

    world: Limited
    job: Job
    filler: Job

    @property
    def choices(self) -> list[int]:
        return sorted(map(self.job.part_of, self.job.active_attempts or ()))


@pytest.fixture
def barred(world: Limited) -> Barred:
    world.put("quota", "red", namespace="red", limits={"gpus": 0})
    filler = world.enter(count=5, resources=Resources(cpu_milli=20_000))
    world.settle()
    assert filler.active == 4, "10 cores are left on each node"
    by_gpu, by_cpu = Resources(cpu_milli=1000, gpus=1), Resources(cpu_milli=20_000)
    rules = PlacementRules(any_of=(by_gpu, by_cpu))
    job = world.enter(namespace="red", resources=by_gpu, placement=rules, priority=9)
    free = world.enter(namespace="blue", resources=by_gpu, placement=rules)
    entries = world.state.index
    world.settle()
    assert (job.active, free.active) == (0, 1), "others of its kind don't wait for it"
    assert world.state.index <= entries + 1 and not world.planner.ready, "nothing is proposed that is refused"
    return Barred(world, job, filler)


def test_why_tells_of_the_alternative_that_no_limit_keeps_back(barred: Barred) -> None:
    answer = explain_waiting(barred.world.state, barred.job)
    assert [blocker.code for blocker in answer.blockers] == ["insufficient_resources"]
    assert not sum(each.open for each in answer.classes)


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        pytest.param(("queue", "default", {"max_running": 2}), "queue/default.max_running", id="a queue"),
        pytest.param(("cap", "web", {"subject": "name", "units": 2}), "cap/web.units", id="a cap"),
        pytest.param(
            ("quota", "all", {"limits": {"running_tasks": 2}}), "quota/all.limits.running_tasks", id="a quota"
        ),
    ],
)
def test_what_starts_together_and_never_can_says_so_and_what_would_let_it(
    world: Limited, policy: tuple[str, str, dict[str, Any]], key: str
) -> None:
    """The limit was set after it was submitted."""
    for node_id in ("n1", "n2"):
        world.do(SetNodeEligibility(node_id=node_id, eligible=False, actor="ada"))
    gang = world.enter(name="web", count=3, gang=True)
    world.put(*policy[:2], **policy[2])
    for node_id in ("n1", "n2"):
        world.do(SetNodeEligibility(node_id=node_id, eligible=True, actor="ada"))
    world.settle()
    assert gang.active == 0
    (blocker,) = explain_waiting(world.state, gang).blockers
    assert blocker.text.endswith("it could never start")
    assert blocker.change is not None and (blocker.change.key, blocker.change.value) == (key, 3)
    kind, name, document = policy
    field = key.rpartition(".")[2]
    raised = {field: 3} if field in document else {"limits": {field: 3}}
    world.put(kind, name, **{**document, **raised})
    world.settle()
    assert gang.active == 3


def test_it_starts_by_the_other_alternative_when_there_is_room(barred: Barred) -> None:
    barred.world.end(barred.filler.id, 0)
    barred.world.settle()
    assert barred.choices == [1]


def test_it_starts_by_the_alternative_that_was_barred_when_the_quota_grows(barred: Barred) -> None:
    barred.world.put("quota", "red", namespace="red", limits={"gpus": 1})
    barred.world.settle()
    assert barred.choices == [0]


def test_a_node_that_comes_gives_it_room(barred: Barred) -> None:
    barred.world.node("n3", cpu=50)
    barred.world.settle()
    assert barred.choices == [1]


def test_a_part_waits_for_the_whole(world: Limited) -> None:
    world.put("quota", "company", cohort=True, limits={"running_tasks": 3})
    for name in ("red", "blue"):
        world.put("quota", name, namespace=name, parent="company")
    red, blue = world.enter(namespace="red", count=3), world.enter(namespace="blue", count=3)
    world.settle()
    assert (red.active, blue.active) == (3, 0)
    world.end(red.id, 1)
    world.settle()
    assert blue.active == 1


def test_a_gang_waits_until_all_of_it_is_within_the_quota(world: Limited) -> None:
    world.put("quota", "red", namespace="red", limits={"running_tasks": 4})
    first = world.enter(namespace="red", count=2)
    world.settle()
    gang = world.enter(namespace="red", count=3, gang=True, priority=9)
    world.settle()
    assert gang.active == 0
    world.end(first.id, 0)
    world.settle()
    assert gang.active == 3


def test_the_week_ends(world: Limited) -> None:
    world.put("quota", "red", namespace="red", limits={"gpu_hours_per_week": 1})
    job = world.enter(namespace="red", resources=Resources(gpus=1))
    world.settle()
    world.now_ms += 3_600_000
    later = world.enter(namespace="red", resources=Resources(gpus=1))
    world.settle()
    assert (job.active, later.active) == (1, 0)
    assert world.blocker(later).text == "quota red: 1 of 1 GPU-hours a week are used"
    world.end(job.id, 0)
    world.now_ms = start_of_week(week_of(world.now_ms) + 1)
    world.do(StepClock())
    world.settle()
    assert later.active == 1


@pytest.mark.parametrize(
    ("kind", "name", "document", "code", "text", "key", "value"),
    [
        (
            "quota",
            "red",
            {"namespace": "red", "limits": {"cpu": 2.5}},
            "quota",
            "quota red: 1 CPU asked for, 2 of 2.5 in use, 0.5 too little",
            "quota/red.limits.cpu",
            3,
        ),
        (
            "quota",
            "people",
            {"each_user": True, "limits": {"running_tasks": 1}},
            "quota",
            "quota people of user ada: 1 running task asked for, 1 of 1 in use, 1 too little",
            "quota/people.limits.running_tasks",
            2,
        ),
        (
            "cap",
            "night",
            {"subject": "tag", "units": 1},
            "cap",
            "cap night of x: 1 running task asked for, 1 of 1 in use, 1 too little",
            "cap/night.units",
            2,
        ),
        (
            "cap",
            "licence",
            {"units": 3},
            "semaphore",
            "semaphore licence: 2 units asked for, 2 of 3 in use, 1 too little",
            "cap/licence.units",
            4,
        ),
    ],
)
def test_who_waits_is_told_which_limit_and_what_would_be_enough(
    world: Limited, kind: str, name: str, document: dict[str, Any], code: str, text: str, key: str, value: Any
) -> None:
    """The change that is named admits one more task, and one that is smaller by the least wouldn't."""
    world.put("cap", "licence", units=99)
    world.put(kind, name, **document)
    job = world.enter(namespace="red", count=9, tags=("x",), semaphores=(("licence", 2),))
    world.settle()
    before, blocker = job.active, world.blocker(job)
    assert (blocker.code, blocker.text) == (code, text)
    assert blocker.change is not None and (blocker.change.key, blocker.change.value) == (key, value)
    *_, field = key.split(".")
    changed = {**document, field: value} if field == "units" else {**document, "limits": {field: value}}
    world.put(kind, name, **changed)
    world.settle()
    assert job.active == before + 1


def test_the_change_is_of_what_is_short(world: Limited) -> None:
    """What a part may borrow is there, but another part uses it: the whole has to grow, by what is missing."""
    world.put("quota", "company", cohort=True, limits={"cpu": 3})
    world.put("quota", "red", namespace="red", parent="company", limits={"cpu": 1})
    world.put("quota", "blue", namespace="blue", parent="company", limits={"cpu": 1})
    world.enter(namespace="blue", count=9)
    red = world.enter(namespace="red", resources=Resources(cpu_milli=2000))
    world.settle()
    blocker = world.blocker(red)
    assert blocker.text == "quota company: 2 CPU asked for, 5 of 5 in use, 2 too little"
    assert blocker.change is not None and (blocker.change.key, blocker.change.value) == ("quota/company.limits.cpu", 5)


class AnyLimits(RuleBasedStateMachine):
    """Plans are decided in the order they were made; in the end nothing waits that the limits would let start."""

    @initialize()
    def begin(self) -> None:
        self.world = Limited()
        self.on_their_way: list[Any] = []
        self.calm = True
        for name in ("n1", "n2"):
            self.world.node(name, cpu=1000, gpus=500)  # more than all tasks of a run
        for name in ("red", "blue"):
            self.world.put("namespace", name)
        self.world.put("quota", "all", cohort=True, limits={"running_tasks": 6, "gpus": 4})

    @rule(
        name=st.sampled_from(["red", "blue"]),
        limits=st.dictionaries(st.sampled_from(["cpu", "gpus", "running_tasks", "running_jobs"]), st.integers(2, 4)),
        borrow=st.dictionaries(st.sampled_from(["running_tasks", "gpus"]), st.integers(0, 2)),
        lend=st.dictionaries(st.sampled_from(["running_tasks", "gpus"]), st.integers(0, 2)),
    )
    def put_quota(self, name: str, **document: Any) -> None:
        self.calm = False
        self.world.put("quota", name, namespace=name, parent="all", **document)

    @rule(subject=st.sampled_from(["user", "tag", "name"]), units=st.integers(1, 3))
    def put_cap(self, subject: str, units: int) -> None:
        self.calm = False
        self.world.put("cap", "c", subject=subject, units=units)

    @rule(most=st.integers(0, 4))
    def put_queue(self, most: int) -> None:
        self.calm = False
        self.world.put("queue", "night", max_running=most)

    @rule(data=st.data(), queue=st.sampled_from(["default", "night"]))
    def change_queue(self, data: st.DataObject, queue: str) -> None:
        self.calm = False
        if live := [job.id for job in self.world.state.jobs.values() if not job.ended]:
            self.world.do(UpdateJob(job_id=data.draw(st.sampled_from(live)), actor="ada", queue=queue))

    @rule(
        actor=st.sampled_from(["ada", "bob"]),
        namespace=st.sampled_from(["default", "red", "blue"]),
        count=st.integers(1, 4),
        gpus=st.integers(0, 2),
        tags=st.sampled_from([(), ("x",)]),
        priority=st.integers(0, 2),
        queue=st.sampled_from(["default", "night"]),
        instead=st.sampled_from([None, Resources(cpu_milli=1000), Resources(cpu_milli=3000, gpus=1)]),
    )
    def submit(self, actor: str, gpus: int, instead: Resources | None, **fields: Any) -> None:
        self.world.submitted += 1
        request = Resources(cpu_milli=1000, gpus=gpus)
        if instead is not None:
            fields["placement"] = PlacementRules(any_of=(request, instead))
            self.calm = False  # what one alternative takes, of what another may, is known when it is taken
        spec = JobSpec(name="job", command=("true",), resources=request, **fields)
        self.world.do(SubmitJob(submission_id=f"s{self.world.submitted}", actor=actor, spec=spec))

    @rule(budget=st.integers(1, 9))
    def plan(self, budget: int) -> None:
        if self.world.planner.ready and (plan := self.world.plan(budget)) is not None:
            self.on_their_way.append(plan)

    @rule()
    def decide(self) -> None:
        if self.on_their_way:
            taken = self.world.decide(self.on_their_way.pop(0))
            assert not self.calm or taken.refused == 0
            self.calm = self.calm or not self.on_their_way

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if active := self.world.active():
            attempt = data.draw(st.sampled_from(active))
            self.world.end(attempt.job_id, attempt.index)

    @rule(node=st.sampled_from(["n1", "n2"]))
    def lose(self, node: str) -> None:
        self.calm = False
        self.world.do(SetNodeState(node_id=node, state=NodeState.DISCONNECTED, reason="silent"))
        self.world.node(node, cpu=1000, gpus=500)

    @invariant()
    def sums_are_true(self) -> None:
        assert check(self.world.state) == []

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for plan in self.on_their_way:
            self.world.decide(plan)
        while self.world.planner.ready:
            if (plan := self.world.plan()) is not None:
                self.world.decide(plan)
        for job in self.world.state.jobs.values():
            if job.eligible:
                allowed = min(gate.allowed(self.world.state, job, 1) for gate in (LimitGate(), QueueRoom()))
                assert allowed == 0, f"job {job.id} waits, and could start"


TestAnyLimits = AnyLimits.TestCase
TestAnyLimits.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_limits_set_lower_than_what_runs_only_keep_more_from_starting(world: Limited) -> None:
    job = world.enter(namespace="red", count=5)
    world.settle()
    world.put("quota", "red", namespace="red", limits={"cpu": 2})
    assert check_limits(world.state) == ["quota red has 5000 of cpu_milli in use, and may have 2000"]
    more = world.enter(namespace="red")
    for index in range(4):
        world.settle()
        assert more.active == 0 or job.active < 2
        world.end(job.id, index)
    world.settle()
    assert more.active == 1
