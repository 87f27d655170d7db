"""Quotas and caps in the state: who counts where, what is lent and borrowed, what is refused and what is never exceeded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hasched.model.policy import Amounts, Cap, CapSubject, Namespace, Policy, PolicyKind, Quota, QuotaScope, kind_of
from hasched.model.policy_text import parse_policy
from hasched.model.spec import JobSpec, PlacementRules, Resources
from hasched.model.states import EndKind
from hasched.statemachine.commands import DeletePolicy, Placement, PlacePlan, PutPolicy, SubmitJob, UpdateJob
from hasched.statemachine.events import WeekBegan
from hasched.statemachine.limits import Group, Limits
from hasched.statemachine.outcomes import JobAccepted, Rejected
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.running import Running
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import Job
from hasched.statemachine.weeks import WEEK_MS, start_of_week, week_of
from tests.statemachine.machine import GIB, Machine, retries


def put(machine: Machine, kind: str, name: str, **document: Any) -> None:
    known, body = parse_policy(kind, name, document)
    outcome = machine.outcome(PutPolicy(kind=known, name=name, body=body, actor="ada"))
    assert not isinstance(outcome, Rejected), outcome


def submit(machine: Machine, actor: str = "ada", **fields: Any) -> Job | Rejected:
    spec = JobSpec(**{"name": "job", "command": ("true",), **fields})
    outcome = machine.outcome(SubmitJob(submission_id=f"s{machine.state.index}", actor=actor, spec=spec))
    if isinstance(outcome, Rejected):
        return outcome
    assert isinstance(outcome, JobAccepted)
    return machine.state.jobs[outcome.job_id]


def job_of(machine: Machine, actor: str = "ada", **fields: Any) -> Job:
    job = submit(machine, actor, **fields)
    assert isinstance(job, Job), job
    return job


def started(machine: Machine, job: Job, count: int | None = None) -> int:
    """How many tasks of the job run after all (or so many) were placed."""
    machine.place(job, *range(job.count if count is None else count))
    return job.active


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.node(cpu=1000, gpus=100, disk_bytes=2**40, countables=(("licence", 50),))
    for name in ("red", "blue"):
        put(machine, "namespace", name)
    return machine


@pytest.mark.parametrize(
    ("limits", "asked", "fit"),
    [
        ({"cpu": 4}, {"cpu_milli": 1500}, 2),
        ({"memory": "4Gi"}, {"memory_bytes": GIB}, 4),
        ({"gpus": 5}, {"gpus": 2}, 2),
        ({"disk": "1Gi"}, {"disk_bytes": GIB // 4}, 4),
        ({"countables": {"licence": 3}}, {"countables": (("licence", 1),)}, 3),
        ({"running_tasks": 3}, {}, 3),
        ({"running_jobs": 1}, {}, 9),
        ({"cpu": 9, "gpus": 3}, {"cpu_milli": 1000, "gpus": 1}, 3),
        ({"gpus": 3}, {"cpu_milli": 1000}, 9),
    ],
)
def test_no_placement_exceeds_a_quota(machine: Machine, limits: Any, asked: Any, fit: int) -> None:
    put(machine, "quota", "red", namespace="red", limits=limits)
    job = job_of(machine, namespace="red", count=9, resources=Resources(**asked))
    assert started(machine, job) == fit
    if fit < 9:
        machine.end(job, 0)
        assert started(machine, job) == fit
    assert started(machine, job_of(machine, namespace="blue", count=9, resources=Resources(**asked))) == 9


def test_a_job_more_is_a_job_more(machine: Machine) -> None:
    put(machine, "quota", "red", namespace="red", limits={"running_jobs": 1})
    first, second = job_of(machine, namespace="red", count=3), job_of(machine, namespace="red")
    assert (started(machine, first, 1), started(machine, second), started(machine, first)) == (1, 0, 3)
    machine.cancel(first)
    for index in range(3):
        machine.end(first, index)
    assert started(machine, second) == 1


def test_a_user_has_a_part_and_the_others_share_the_rest(machine: Machine) -> None:
    """A job counts in the most exact quota of a tree, and in no other of it but through that."""
    put(machine, "quota", "red", namespace="red", limits={"running_tasks": 4})
    put(
        machine,
        "quota",
        "red-ada",
        namespace="red",
        user="ada",
        parent="red",
        limits={"running_tasks": 1},
        borrow={"running_tasks": 1},
    )
    ada, bob = (job_of(machine, user, namespace="red", count=9) for user in ("ada", "bob"))
    assert started(machine, ada) == 2
    assert started(machine, bob) == 3
    quotas = machine.state.usage.limits.quotas
    assert (quotas["red-ada", ""].shares["running_tasks"].used, quotas["red", ""].shares["running_tasks"].used) == (
        2,
        5,
    )


def test_each_user_counts_alone(machine: Machine) -> None:
    put(machine, "quota", "people", each_user=True, limits={"running_tasks": 2})
    assert [started(machine, job_of(machine, user, count=3)) for user in ("ada", "bob")] == [2, 2]
    assert started(machine, job_of(machine, "ada", namespace="red")) == 0


def test_what_is_lent_is_borrowed_and_no_more(machine: Machine) -> None:
    put(machine, "quota", "company", cohort=True)
    put(
        machine,
        "quota",
        "red",
        namespace="red",
        parent="company",
        limits={"running_tasks": 4},
        lend={"running_tasks": 1},
    )
    put(
        machine,
        "quota",
        "blue",
        namespace="blue",
        parent="company",
        limits={"running_tasks": 2},
        borrow={"running_tasks": 2},
    )
    red, blue, other = (job_of(machine, namespace=name, count=9) for name in ("red", "blue", "default"))
    assert started(machine, blue) == 3, "its own two, and the one that red lends"
    assert started(machine, red) == 3, "what it doesn't lend is its own"
    assert started(machine, other) == 9, "a cohort counts nothing but its parts"
    machine.end(blue, 0)
    assert started(machine, red) == 4
    assert started(machine, blue) == 2


def test_borrowing_has_its_own_limit(machine: Machine) -> None:
    put(machine, "quota", "company", cohort=True, limits={"running_tasks": 9})
    put(
        machine,
        "quota",
        "red",
        namespace="red",
        parent="company",
        limits={"running_tasks": 1},
        borrow={"running_tasks": 2},
    )
    put(machine, "quota", "blue", namespace="blue", parent="company")
    assert started(machine, job_of(machine, namespace="red", count=9)) == 3
    assert started(machine, job_of(machine, namespace="blue", count=9)) == 7


@pytest.mark.parametrize(
    ("document", "match", "starts"),
    [
        ({"subject": "name", "match": "etl"}, {"name": "etl"}, 2),
        ({"subject": "name", "match": "etl"}, {"name": "web"}, 5),
        ({"subject": "name"}, {"name": "web"}, 2),
        ({"subject": "user", "match": "ada"}, {}, 2),
        ({"subject": "user", "match": "bob"}, {}, 5),
        ({"subject": "tag", "match": "night"}, {"tags": ("day", "night")}, 2),
        ({"subject": "tag", "match": "night"}, {"tags": ("day",)}, 5),
        ({"subject": "tag", "namespace": "red"}, {"tags": ("day",)}, 5),
    ],
)
def test_no_placement_exceeds_a_cap(machine: Machine, document: Any, match: Any, starts: int) -> None:
    put(machine, "cap", "c", units=2, **document)
    first = job_of(machine, count=5, **match)
    assert started(machine, first) == starts
    if starts == 2:
        assert started(machine, job_of(machine, count=5, **match)) == 0
        machine.end(first, 1)
        assert started(machine, first) == 2


def test_any_number_of_names_may_be_capped_each_by_itself(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody uses any more is forgotten."""
    monkeypatch.setattr("hasched.statemachine.limits._REMEMBERED", 8)
    put(machine, "cap", "c", subject="name", units=1)
    kept = job_of(machine, name="kept", count=2)
    assert started(machine, kept) == 1
    for number in range(40):
        job = job_of(machine, name=f"job-{number}")
        assert started(machine, job) == 1
        machine.end(job)
    assert len(machine.state.usage.limits.caps) <= 16
    assert started(machine, kept) == 1


def test_a_semaphore_is_taken_and_given_back(machine: Machine) -> None:
    refused = submit(machine, semaphores=(("licence-x", 2),))
    assert isinstance(refused, Rejected) and refused.code == "unknown_semaphore"
    put(machine, "cap", "licence-x", units=5)
    first, second = (job_of(machine, count=4, semaphores=(("licence-x", units),)) for units in (2, 1))
    assert (started(machine, first), started(machine, second)) == (2, 1)
    machine.end(first, 0)
    assert started(machine, second) == 3
    too_many = submit(machine, semaphores=(("licence-x", 6),))
    assert isinstance(too_many, Rejected) and too_many.code == "cap_exceeded"
    assert too_many.cause == (
        "semaphore licence-x: 6 units asked for, 0 of 5 in use, 1 too little; it could never start"
    )
    delete = DeletePolicy(kind=PolicyKind.CAP, name="licence-x", actor="ada")
    assert machine.refusal(delete) == "policy_in_use"
    change = PutPolicy(kind=PolicyKind.CAP, name="licence-x", body=Cap(units=1, subject=CapSubject.USER), actor="ada")
    assert machine.refusal(change) == "policy_in_use"
    for job in (first, second):
        machine.cancel(job)
        for index in list(job.active_attempts or ()):
            machine.end(job, index)
    assert not isinstance(machine.outcome(delete), Rejected)


@pytest.mark.parametrize(
    ("limits", "fields", "complaint"),
    [
        (
            {"gpus": 4},
            {"resources": Resources(gpus=8)},
            "8 GPUs asked for, 0 of 4 in use, 4 too little; it could never",
        ),
        ({"memory": "1Gi"}, {"resources": Resources(memory_bytes=2 * GIB)}, "2Gi memory asked for, 0 of 1Gi in use"),
        ({"running_jobs": 0}, {}, "1 running job asked for, 0 of 0 in use"),
        ({"queued_tasks": 3}, {"count": 4}, "4 queued tasks asked for, 0 of 3 in use, 1 too little"),
        ({"gpu_hours_per_week": 0}, {"resources": Resources(gpus=1)}, "0 of 0 GPU-hours a week are used"),
        ({"gpus": 3}, {"resources": Resources(gpus=1), "count": 4, "gang": True}, "4 GPUs asked for, 0 of 3 in use"),
    ],
)
def test_what_could_never_start_is_refused(machine: Machine, limits: Any, fields: Any, complaint: str) -> None:
    put(machine, "quota", "red", namespace="red", limits=limits)
    refused = submit(machine, namespace="red", **fields)
    assert isinstance(refused, Rejected) and refused.code == "quota_exceeded"
    assert refused.cause.startswith(f"quota red: {complaint}")
    assert isinstance(submit(machine, **fields), Job)


def test_what_could_start_if_others_lent_it_may_wait(machine: Machine) -> None:
    put(machine, "quota", "company", cohort=True, limits={"gpus": 4})
    put(machine, "quota", "red", namespace="red", parent="company", limits={"gpus": 4})
    assert isinstance(submit(machine, namespace="red", resources=Resources(gpus=8)), Job)
    assert isinstance(submit(machine, namespace="red", resources=Resources(gpus=9)), Rejected)


def test_no_more_waits_than_may(machine: Machine) -> None:
    put(machine, "quota", "red", namespace="red", limits={"queued_jobs": 2})
    first, _ = job_of(machine, namespace="red"), job_of(machine, namespace="red")
    refused = submit(machine, namespace="red")
    assert isinstance(refused, Rejected)
    assert refused.cause == "quota red: 1 queued job asked for, 2 of 2 in use, 1 too little"
    started(machine, first)
    assert isinstance(submit(machine, namespace="red"), Job)


def test_a_gang_starts_within_its_quota_or_not_at_all(machine: Machine) -> None:
    from hasched.statemachine.commands import PlaceGang

    put(machine, "quota", "red", namespace="red", limits={"running_tasks": 4})
    put(machine, "cap", "night", units=4, subject="tag", match="night")
    other = job_of(machine, namespace="red", count=2)
    gang = job_of(machine, namespace="red", count=3, gang=True)
    capped = job_of(machine, count=4, gang=True, tags=("night",))
    put(machine, "cap", "night", units=3, subject="tag", match="night")
    command = PlaceGang(job_id=gang.id, placements=(Placement(gang.id, "n1", (0, 1, 2)),), port=20_000)
    started(machine, other)
    assert machine.refusal(command) == "gang_no_room"
    machine.end(other, 0)
    assert not isinstance(machine.outcome(command), Rejected)
    assert gang.active == 3
    whole = PlaceGang(job_id=capped.id, placements=(Placement(capped.id, "n1", (0, 1, 2, 3)),), port=20_001)
    assert machine.refusal(whole) == "gang_no_room"


@pytest.mark.parametrize(
    ("fields", "code", "told"),
    [
        pytest.param({"queue": "small"}, "queue_exceeded", "queue small runs 3 at most", id="a queue"),
        pytest.param({"tags": ("night",)}, "cap_exceeded", "cap night: 4 running tasks asked for, 0 of 3", id="a tag"),
        pytest.param({"name": "web"}, "cap_exceeded", "cap web: 4 running tasks asked for, 0 of 3", id="a name"),
        pytest.param({"semaphores": (("licence", 1),)}, "cap_exceeded", "semaphore licence: 4 units", id="a semaphore"),
        pytest.param(
            {"namespace": "red"}, "quota_exceeded", "quota red: 4 running tasks asked for, 0 of 3", id="a quota"
        ),
    ],
)
def test_what_starts_together_and_never_could_is_refused(
    machine: Machine, fields: dict[str, Any], code: str, told: str
) -> None:
    put(machine, "queue", "small", max_running=3)
    put(machine, "cap", "night", units=3, subject="tag", match="night")
    put(machine, "cap", "web", units=3, subject="name", match="web")
    put(machine, "cap", "licence", units=3)
    put(machine, "quota", "red", namespace="red", limits={"running_tasks": 3})
    fields = {"name": "job", **fields}
    for shape in ({"gang": True}, {"min_count": 4}):
        refused = submit(machine, count=4, **shape, **fields)
        assert isinstance(refused, Rejected) and refused.code == code
        assert told in refused.cause and refused.cause.endswith("it could never start")
    job = job_of(machine, count=4, min_count=3, **fields)
    assert isinstance(submit(machine, count=4, **fields), Job)
    other = job_of(machine, count=4, gang=True)
    if code == "queue_exceeded":
        assert machine.refusal(UpdateJob(job_id=other.id, actor="ada", queue="small")) == code
        assert not isinstance(machine.outcome(UpdateJob(job_id=job.id, actor="ada", queue="small")), Rejected)


def test_one_alternative_that_could_start_is_enough(machine: Machine) -> None:
    put(machine, "quota", "red", namespace="red", limits={"gpus": 0, "cpu": 2})
    by_gpu, by_cpu, large = Resources(gpus=1), Resources(cpu_milli=2000), Resources(cpu_milli=3000)
    for second, accepted in ((by_cpu, True), (large, False)):
        rules = PlacementRules(any_of=(by_gpu, second))
        outcome = submit(machine, namespace="red", resources=by_gpu, placement=rules)
        assert isinstance(outcome, Job) is accepted


# ── Weeks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_weeks_begin_on_mondays() -> None:
    monday_ms = 1_699_833_600_000  # 2023-11-13T00:00:00Z
    assert start_of_week(week_of(monday_ms)) == monday_ms
    assert week_of(monday_ms - 1) == week_of(monday_ms) - 1
    assert week_of(monday_ms + WEEK_MS - 1) == week_of(monday_ms)


def test_gpu_time_of_a_week_runs_out_and_comes_back_on_monday(machine: Machine) -> None:
    put(machine, "quota", "company", limits={"gpu_hours_per_week": 3})
    put(machine, "quota", "red", namespace="red", parent="company", limits={"gpu_hours_per_week": 2})
    machine.now_ms = start_of_week(week_of(machine.now_ms) + 1) + WEEK_MS // 2
    machine.wait(0)
    meter = machine.state.usage.limits.quotas["company", ""].meter
    first = job_of(machine, namespace="red", resources=Resources(gpus=1))
    started(machine, first)
    machine.wait(3_600_000)
    assert meter.used(machine.state.now_ms) == 3_600_000
    second = job_of(machine, namespace="red", count=2, resources=Resources(gpus=1))
    assert started(machine, second, 1) == 1
    machine.wait(1_800_000)
    assert started(machine, second) == 1, "two GPU-hours are used"
    assert started(machine, job_of(machine, resources=Resources(gpus=1))) == 1, "company has one left"
    machine.end(first)
    assert next_deadline(machine.state) == start_of_week(machine.state.week + 1)
    machine.now_ms = start_of_week(machine.state.week + 1)
    machine.wait(0)
    assert any(isinstance(event, WeekBegan) for event in machine.events)
    assert meter.used(machine.state.now_ms) == 0
    assert started(machine, second) == 2


def test_a_snapshot_has_what_was_used_of_the_week(machine: Machine) -> None:
    put(machine, "quota", "red", namespace="red", limits={"gpu_hours_per_week": 9})
    machine.now_ms = start_of_week(week_of(machine.now_ms) + 1) - 1_800_000
    jobs = [job_of(machine, namespace="red", resources=Resources(gpus=2)) for _ in range(2)]
    for job in jobs:
        started(machine, job)
        machine.now_ms += 600_000
    machine.wait(3_600_000)
    machine.end(jobs[0])
    machine.wait(60_000)
    used = machine.state.usage.limits.quotas["red", ""].meter.used(machine.state.now_ms)
    captured = capture(machine.state)
    machine.state = restore(iter(captured.next_chunk, None))
    assert machine.state.usage.limits.quotas["red", ""].meter.used(machine.state.now_ms) == used
    assert used == 2 * (3_000_000 + 3_060_000)
    machine.end(jobs[1])


def test_quotas_of_workflows_count_no_job(machine: Machine) -> None:
    body = Quota(scope=QuotaScope.WORKFLOW, nominal=Amounts(running_tasks=0))
    machine.do(PutPolicy(kind=PolicyKind.QUOTA, name="flows", body=body, actor="ada"))
    assert started(machine, job_of(machine)) == 1


def test_a_namespace_with_jobs_stays(machine: Machine) -> None:
    job = job_of(machine, namespace="red")
    delete = DeletePolicy(kind=PolicyKind.NAMESPACE, name="red", actor="ada")
    assert machine.refusal(delete) == "policy_in_use"
    machine.cancel(job)
    assert not isinstance(machine.outcome(delete), Rejected)


# ── Any order ───────────────────────────────────────────────────────────────────────────────────────────────────────

LIMITED = st.sampled_from(["running_tasks", "running_jobs", "queued_jobs", "queued_tasks", "gpus", "cpu_milli"])
AMOUNT = st.builds(
    lambda names, number: Amounts(**{name: number * (1000 if name == "cpu_milli" else 1) for name in names}),
    st.lists(LIMITED, max_size=3, unique=True),
    st.integers(0, 4),
)
QUOTAS = st.builds(
    Quota,
    namespace=st.sampled_from(["", "red", "blue"]),
    user=st.sampled_from(["", "ada"]),
    parent=st.sampled_from(["", "a", "b"]),
    cohort=st.booleans(),
    nominal=AMOUNT,
    borrow_limit=AMOUNT,
    lend_limit=AMOUNT,
)
CAPS = st.builds(
    Cap,
    units=st.integers(0, 4),
    subject=st.sampled_from(CapSubject),
    match=st.sampled_from(["", "ada", "x"]),
    namespace=st.sampled_from(["", "red"]),
)


class Limited(RuleBasedStateMachine):
    """`Machine` compares every sum with a count from nothing, and lets no placement exceed a limit."""

    @initialize()
    def begin(self) -> None:
        self.machine = Machine()
        self.machine.node("n1", cpu=100, gpus=20)
        self.machine.node("n2", cpu=100, gpus=20)
        for name in ("red", "blue"):
            self.put(name, Namespace())

    def put(self, name: str, body: Policy) -> None:
        self.machine.do(PutPolicy(kind=kind_of(body), name=name, body=body, actor="ada"))

    @rule(
        name=st.sampled_from(["a", "b", "c"]), body=QUOTAS | st.builds(Quota, each_user=st.just(True), nominal=AMOUNT)
    )
    def put_quota(self, name: str, body: Quota) -> None:
        self.put(name, body)

    @rule(name=st.sampled_from(["x", "y"]), body=CAPS)
    def put_cap(self, name: str, body: Cap) -> None:
        self.put(name, body)

    @rule(kind=st.sampled_from([PolicyKind.QUOTA, PolicyKind.CAP]), name=st.sampled_from(["a", "b", "c", "x", "y"]))
    def delete(self, kind: PolicyKind, name: str) -> None:
        self.machine.do(DeletePolicy(kind=kind, name=name, actor="ada"))

    @rule(
        actor=st.sampled_from(["ada", "bob"]),
        namespace=st.sampled_from(["default", "red", "blue"]),
        count=st.integers(1, 4),
        gpus=st.integers(0, 2),
        tags=st.sampled_from([(), ("x",)]),
        semaphores=st.sampled_from([(), (), (("x", 1),), (("x", 2), ("y", 1))]),
    )
    def submit(self, actor: str, gpus: int, **fields: Any) -> None:
        resources = Resources(cpu_milli=1000, gpus=gpus)
        submit(self.machine, actor, resources=resources, retries=retries(1), **fields)

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), node_id=st.sampled_from(["n1", "n2"]), count=st.integers(1, 4))
    def place(self, number: int, node_id: str, count: int) -> None:
        jobs = list(self.machine.state.jobs.values())
        job = jobs[number % len(jobs)]
        self.machine.do(PlacePlan(placements=(Placement(job.id, node_id, tuple(range(count))),)))

    @rule(data=st.data(), code=st.integers(0, 1))
    def end(self, data: st.DataObject, code: int) -> None:
        running = [(node, *task) for node in self.machine.state.nodes.values() for task in node.attempts.items()]
        if running:
            node, (job_id, index), attempt = data.draw(st.sampled_from(running))
            job = self.machine.state.jobs[job_id]
            self.machine.end(job, index, attempt, node.id, kind=EndKind.EXITED, code=code)

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), indices=st.lists(st.just(0), max_size=1))
    def cancel(self, number: int, indices: list[int]) -> None:
        jobs = list(self.machine.state.jobs.values())
        self.machine.cancel(jobs[number % len(jobs)], *indices)

    @rule(node_id=st.sampled_from(["n1", "n2"]))
    def lose(self, node_id: str) -> None:
        self.machine.lose(node_id)
        self.machine.node(node_id, cpu=100, gpus=20)

    @rule(duration_ms=st.sampled_from([0, 3_600_000, WEEK_MS // 2]))
    def wait(self, duration_ms: int) -> None:
        self.machine.wait(duration_ms)

    @rule()
    def restart(self) -> None:
        captured = capture(self.machine.state)
        self.machine.state = restore(iter(captured.next_chunk, None))

    @invariant()
    def nobody_borrows_what_is_not_lent(self) -> None:
        """Of every quota: what its parts use beyond their own is at most what the others leave of what they lend."""
        assert_lent(self.machine.state.usage.limits)


def assert_lent(limits: Limits) -> None:
    for node in limits.quotas.values():
        parts = [part for part in limits.quotas.values() if part.parent is node]
        for name, share in node.shares.items():
            lent = sum(part.shares[name].subtree - part.shares[name].guaranteed for part in parts)
            borrowed = sum(max(0, part.shares[name].used - part.shares[name].guaranteed) for part in parts)
            assert share.subtree == share.nominal + lent
            assert borrowed <= share.used


TestLimited = Limited.TestCase
TestLimited.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_what_counts_for_a_cap_is_not_lost_when_unused_ones_are_forgotten() -> None:
    """Caps of ada and of the name `x` are new: making room for the second must not throw away the first."""
    limits = Limits(Running())
    limits.set_policies({}, {"a": Cap(units=1, subject=CapSubject.USER), "b": Cap(units=1, subject=CapSubject.NAME)})
    for number in range(4094):
        limits.caps_of(Group("default", "bob", False, f"n{number}", None, None))
    limits.hold(Group("default", "ada", False, "x", None, None), Resources(), 1)
    assert limits.room_of_caps(Group("default", "ada", False, "y", None, None), 1) == 0
    assert limits.room_of_caps(Group("default", "bob", False, "x", None, None), 1) == 0
