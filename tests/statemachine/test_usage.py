"""What was used and what it cost: by account and week, job by job, across weeks, snapshots and changes of the price."""

from __future__ import annotations

import pytest

from hasched.model.policy import Price
from hasched.model.spec import MAX_TASKS, JobSpec, PlacementRules, Resources
from hasched.model.units import MAX_INTEGER
from hasched.model.wire import GpuDevice, NodeInfo, Usage
from hasched.statemachine import queries
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import Batch, Placement, PlacePlan, RegisterNode, ReportAttempts
from hasched.statemachine.digest import digest
from hasched.statemachine.invariants import check
from hasched.statemachine.rules.charges import cost_of
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.usage import KEPT_WEEKS, NO_USE, held
from hasched.statemachine.weeks import WEEK_MS, start_of_week, week_of
from tests.statemachine.machine import GIB, Machine, retries
from tests.statemachine.test_limits import job_of, put, started

HOUR_MS = 3_600_000


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.now_ms = start_of_week(week_of(machine.now_ms) + 1)
    machine.node(cpu=1000, gpus=8)
    return machine


def rows(machine: Machine, by: str = "account", **which: str | int) -> list[dict[str, object]]:
    """What the query shows, without what is empty."""
    page = queries.usage_by(machine.state, by, **which)  # type: ignore[arg-type]
    return [{name: value for name in row.__struct_fields__ if (value := getattr(row, name))} for row in page.usage]


def test_an_attempt_is_charged_for_what_it_held_from_its_placement_to_its_end(machine: Machine) -> None:
    put(machine, "price", "default", currency="EUR", cpu="0.04", memory="0.005", gpu="1.2")
    job = job_of(machine, resources=Resources(cpu_milli=1500, memory_bytes=2 * GIB, gpus=1))
    machine.wait(HOUR_MS)
    started(machine, job)
    machine.wait(2 * HOUR_MS)
    machine.end(job, usage=Usage(77, 5))
    (row,) = queries.usage_by(machine.state, "account").usage
    assert (row.namespace, row.user, row.attempts, row.running_tasks) == ("default", "ada", 1, 0)
    assert (row.cpu_core_ms, row.memory_gib_ms, row.gpu_ms, row.cpu_ms) == (3 * HOUR_MS, 4 * HOUR_MS, 2 * HOUR_MS, 77)
    assert row.cost_micro == 2 * (60_000 + 10_000 + 1_200_000)
    of_job = queries.usage_of_job(job)
    assert (of_job.cost_micro, of_job.cpu_core_ms, of_job.cpu_ms) == (row.cost_micro, row.cpu_core_ms, 77)
    assert queries.usage_by(machine.state, "user").currency == "EUR"


def test_failures_and_losses_count_too_and_what_runs_stands_beside(machine: Machine) -> None:
    job = job_of(machine, retries=retries(1), resources=Resources(cpu_milli=1000))
    started(machine, job)
    machine.wait(1000)
    machine.end(job, code=1)
    started(machine, job)
    machine.wait(1000)
    machine.lose()
    machine.node(cpu=1000, gpus=8)
    started(machine, job)
    machine.wait(1000)
    (row,) = queries.usage_by(machine.state, "account").usage
    assert (row.attempts, row.cpu_core_ms, row.running_tasks, row.holds.cpu_milli) == (2, 2000, 1, 1000)
    assert queries.usage_of_job(job).holds.cpu_milli == 1000


def test_sums_are_by_whatever_is_asked(machine: Machine) -> None:
    put(machine, "namespace", "red")
    for actor, namespace in (("ada", "default"), ("ada", "red"), ("bob", "red")):
        job = job_of(machine, actor, namespace=namespace, resources=Resources(cpu_milli=1000))
        started(machine, job)
        machine.wait(1000)
        machine.end(job)
    machine.wait(WEEK_MS)
    job = job_of(machine, "bob", namespace="red", resources=Resources(cpu_milli=1000))
    started(machine, job)
    machine.wait(1000)
    machine.end(job)
    one = {"attempts": 1, "cpu_core_ms": 1000, "cpu_ms": 7, "holds": Resources()}
    assert [(row.get("namespace"), row.get("user"), row["attempts"]) for row in rows(machine)] == [
        ("default", "ada", 1),
        ("red", "ada", 1),
        ("red", "bob", 2),
    ]
    assert [(row["user"], row["attempts"]) for row in rows(machine, "user")] == [("ada", 2), ("bob", 2)]
    assert [(row["namespace"], row["attempts"]) for row in rows(machine, "namespace")] == [("default", 1), ("red", 3)]
    weeks = rows(machine, "week")
    assert [row["attempts"] for row in weeks] == [3, 1]
    assert weeks[0]["week"] == "2023-11-20"
    week = week_of(machine.now_ms)
    assert rows(machine, namespace="red", user="bob", week=week) == [{"namespace": "red", "user": "bob", **one}]


def test_what_crosses_a_week_is_of_both(machine: Machine) -> None:
    machine.now_ms = start_of_week(week_of(machine.now_ms) + 1) - 1000
    job = job_of(machine, resources=Resources(cpu_milli=2000))
    started(machine, job)
    machine.wait(1000 + WEEK_MS + 500)
    machine.end(job)
    assert [(row.get("attempts", 0), row["cpu_core_ms"]) for row in rows(machine, "week")] == [
        (0, 2000),
        (0, 2 * WEEK_MS),
        (1, 1000),
    ]


def test_old_weeks_are_forgotten(machine: Machine) -> None:
    once = job_of(machine, "bob", resources=Resources(cpu_milli=1000))
    started(machine, once)
    machine.end(once)
    for _ in range(KEPT_WEEKS + 2):
        job = job_of(machine, resources=Resources(cpu_milli=1000))
        started(machine, job)
        machine.wait(1000)
        machine.end(job)
        machine.wait(WEEK_MS)
    assert len(rows(machine, "week")) == KEPT_WEEKS
    assert [row["user"] for row in rows(machine, "user")] == ["ada"]


def test_snapshots_and_digests_have_the_ledger(machine: Machine) -> None:
    put(machine, "price", "default", cpu="1")
    job = job_of(machine, resources=Resources(cpu_milli=1000))
    started(machine, job)
    machine.wait(HOUR_MS)
    machine.end(job)
    captured = capture(machine.state)
    again = restore(iter(captured.next_chunk, None))
    assert digest(again) == digest(machine.state)
    assert queries.usage_by(again, "account") == queries.usage_by(machine.state, "account")
    assert queries.usage_of_job(again.jobs[job.id]) == queries.usage_of_job(job)
    key = job.account
    again.usage.ledger[key] = {week: use.plus(use) for week, use in again.usage.ledger[key].items()}
    assert digest(again) != digest(machine.state)


def test_a_pool_has_its_own_price_and_a_model_its_own(machine: Machine) -> None:
    put(machine, "price", "default", cpu="1", gpu="2", gpu_models={"h200": "5"})
    put(machine, "price", "cheap", gpu="1")
    gpus = tuple(GpuDevice(f"u{n}", "NVIDIA H200", 2**37) for n in range(2))
    for name, pool in (("h1", "default"), ("c1", "cheap")):
        info = NodeInfo(
            hostname=name, agent_version="1", resources=Resources(cpu_milli=9000, gpus=2), gpus=gpus, pool=pool
        )
        machine.do(RegisterNode(node_id=name, info=info))
    costs = []
    for name in ("n1", "h1", "c1"):
        job = job_of(machine, resources=Resources(gpus=1), placement=PlacementRules(pools=("*",)))
        machine.place(job, 0, node_id=name)
        machine.wait(HOUR_MS)
        machine.end(job, node_id=name)
        costs.append(job.cost_micro)
    assert costs == [2_000_000, 5_000_000, 1_000_000]


def test_alternatives_and_groups_are_charged_for_what_they_got(machine: Machine) -> None:
    large, small = Resources(cpu_milli=4000), Resources(cpu_milli=1000)
    job = job_of(machine, count=2, resources=large, placement=PlacementRules(any_of=(large, small)))
    machine.place(job, 0)
    machine.do(PlacePlan(placements=(Placement(job.id, "n1", (1,), 1),)))
    machine.wait(1000)
    for index in range(2):
        machine.end(job, index)
    assert queries.usage_of_job(job).cpu_core_ms == 5000
    assert queries.usage_by(machine.state, "account").usage[0].cpu_core_ms == 5000


def test_jobs_are_listed_page_by_page(machine: Machine) -> None:
    jobs = [job_of(machine, resources=Resources(cpu_milli=1000)) for _ in range(3)]
    for job in jobs[:2]:
        started(machine, job)
        machine.wait(1000)
        machine.end(job)
    first = queries.usage_of_jobs(machine.state, limit=1)
    second = queries.usage_of_jobs(machine.state, limit=5, cursor=first.next_cursor)
    assert [row.job_id for row in (*first.usage, *second.usage)] == [2, 1]
    assert queries.usage_of_jobs(machine.state, user="bob").usage == []
    with pytest.raises(queries.BadCursor):
        queries.usage_of_jobs(machine.state, cursor="x")


def test_an_estimate_is_of_the_timeout(machine: Machine) -> None:
    spec = JobSpec(name="a", command=("a",), count=10, timeout_ms=HOUR_MS // 2, retries=retries(2))
    assert queries.estimate(machine.state, spec).priced is False
    put(machine, "price", "default", cpu="1", currency="EUR")
    view = queries.estimate(machine.state, spec)
    assert (view.hour_micro, view.cost_micro, view.most_micro) == (10_000_000, 5_000_000, 15_000_000)
    put(machine, "price", "default", cpu="1", gpu="2", gpu_models={"H100": "5", "T4": "1"}, currency="EUR")
    for models, gpu in (((), 5), (("T4",), 1), (("T4", "A100"), 2), (("T4", "H100"), 5)):
        wants = Resources(cpu_milli=1000, gpus=2, gpu_models=models)
        view = queries.estimate(machine.state, JobSpec(name="a", command=("a",), resources=wants))
        assert view.hour_micro == (1 + 2 * gpu) * 1_000_000, "the dearest that it may get"
    endless = queries.estimate(machine.state, JobSpec(name="a", command=("a",)))
    assert (endless.hour_micro, endless.cost_micro, endless.currency) == (1_000_000, None, "EUR")


def test_no_amount_outgrows_what_can_be_kept(machine: Machine) -> None:
    price = Price(cpu_micro=MAX_INTEGER, gpu_micro=MAX_INTEGER)
    assert cost_of(price, Resources(cpu_milli=MAX_INTEGER, gpus=MAX_INTEGER), "", MAX_TASKS * WEEK_MS) == MAX_INTEGER
    put(machine, "price", "default", cpu=str(MAX_INTEGER // 1_000_000))
    job = job_of(machine, count=300, resources=Resources(cpu_milli=1000, memory_bytes=GIB // 64))
    started(machine, job)
    machine.wait(WEEK_MS)
    for index in range(300):
        machine.end(job, index, usage=Usage(MAX_INTEGER, 1))
    captured = capture(machine.state)
    assert digest(restore(iter(captured.next_chunk, None))) == digest(machine.state)
    assert (job.cpu_ms, job.cost_micro) == (MAX_INTEGER, MAX_INTEGER)


def test_what_ended_before_use_was_kept_is_measured_nowhere(machine: Machine) -> None:
    """A restored state knows nothing of it, so neither may the one that saw it."""
    job = job_of(machine, resources=Resources(gpus=4))
    started(machine, job)
    reports = (machine.ended(job),)
    old = Batch(1, machine.now_ms + HOUR_MS, [ReportAttempts(node_id="n1", reports=reports)])
    apply(machine.state, machine.state.index + 1, old)
    assert job.account not in machine.state.usage.accounts
    assert check(machine.state) == []


def test_no_use_is_more_than_a_snapshot_can_hold(machine: Machine) -> None:
    most = Resources(*[MAX_INTEGER] * 4)
    use = held(most, WEEK_MS, MAX_INTEGER, MAX_INTEGER, 1)
    both = use.plus(use)
    assert max(use.plus(NO_USE).__reduce__()[1]) == max(both.__reduce__()[1]) == both.gpu_ms == MAX_INTEGER
    machine.node("n2", cpu=MAX_INTEGER // 1000, gpus=MAX_INTEGER)
    put(machine, "fair_share", "default")
    for _ in range(2):
        job = job_of(machine, resources=Resources(gpus=MAX_INTEGER))
        machine.place(job, 0, node_id="n2")
        assert digest(machine.state)
        machine.wait(HOUR_MS)
        machine.end(job, node_id="n2")
        assert digest(machine.state)


def test_an_account_is_forgotten_with_its_last_job_and_its_use_is_not(machine: Machine) -> None:
    job = job_of(machine, "eve", resources=Resources(cpu_milli=1000))
    started(machine, job)
    machine.wait(1000)
    waiting = job_of(machine, "eve")
    machine.end(job)
    assert machine.state.usage.accounts[job.account].queued_jobs == 1
    machine.cancel(waiting)
    assert job.account not in machine.state.usage.accounts
    assert rows(machine, "user")[0]["cpu_core_ms"] == 1000


def test_who_has_used_gpus_is_known_until_the_week_is_over(machine: Machine) -> None:
    put(machine, "quota", "each", each_user=True, limits={"gpu_hours_per_week": 1})
    job = job_of(machine, "eve", resources=Resources(gpus=1))
    started(machine, job)
    machine.wait(HOUR_MS)
    machine.end(job)
    limits, key = machine.state.usage.limits, ("each", "eve")
    assert job.account in machine.state.usage.accounts and key in limits.quotas
    machine.place(job_of(machine, "eve", resources=Resources(gpus=1)))
    assert machine.state.nodes["n1"].allocated_gpus == 0, "her hour is used"
    machine.wait(WEEK_MS)
    other = job_of(machine, "ada", resources=Resources(gpus=1))
    started(machine, other)
    machine.end(other)
    assert job.account in machine.state.usage.accounts, "a job of hers waits"
    machine.cancel(machine.state.jobs[job.id + 1])
    machine.wait(WEEK_MS)
    other = job_of(machine, "ada", resources=Resources(gpus=1))
    started(machine, other)
    machine.end(other)
    assert job.account not in machine.state.usage.accounts and key not in limits.quotas
