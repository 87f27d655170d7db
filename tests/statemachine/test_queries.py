"""What people see of jobs, tasks and nodes."""

from __future__ import annotations

import pytest

from hasched.model.policy import PolicyKind, Reservation
from hasched.model.spec import Resources
from hasched.model.states import EndKind, TaskState
from hasched.model.views import Reason, UsageView
from hasched.statemachine import queries
from hasched.statemachine.commands import DeleteJob, PutPolicy, SuspendJob
from hasched.statemachine.queries import jobs
from tests.statemachine.machine import T0, Machine, retries


def finished(**how: object) -> Machine:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.end(job, **how)
    return machine


def test_a_plainly_ended_task_shows_all_that_was_reported() -> None:
    machine = finished(kind=EndKind.EXITED, code=3, output=b"caf\xc3\xa9\xff")
    task = queries.task_view(machine.state, 1, 0)
    assert task is not None
    assert (task.state, task.attempt, task.node_id, task.exit_code, task.signal) == ("FAILED", 1, "n1", 3, None)
    assert (task.started_ms, task.ended_ms, task.log_index) == (T0, T0 + 50, 4)
    assert task.usage == UsageView(cpu_ms=7, peak_memory_bytes=4096)
    assert task.output == "café�"
    assert task.reason == Reason(code="exit_code", text="exited with code 3")
    assert task.attempts[0].scheduled_ms == T0


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"reason": "said so"}, id="a reason in words"),
        pytest.param({"code": 2**40}, id="a code that no compact record holds"),
    ],
)
def test_a_task_looks_the_same_whichever_way_it_is_kept(odd: dict[str, object]) -> None:
    plain = finished(code=3)
    full = finished(**{"code": 3, **odd})
    assert plain.state.jobs[1].histories is None and full.state.jobs[1].histories is not None
    one, other = queries.task_view(plain.state, 1, 0), queries.task_view(full.state, 1, 0)
    assert one is not None and other is not None
    differing = {name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)}
    assert differing <= {"reason", "attempts", "exit_code", "changed_ms"}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"kind": EndKind.SIGNALED, "code": 9}, Reason(code="signal", text="killed by signal 9")),
        ({"kind": EndKind.TIMED_OUT}, Reason(code="timed_out", text="ran longer than its timeout")),
        ({"kind": EndKind.OUT_OF_MEMORY}, Reason(code="out_of_memory", text="used more memory than it asked for")),
        (
            {"kind": EndKind.LAUNCH_FAILED, "reason": "no such file: x"},
            Reason(code="launch_failed", text="no such file: x"),
        ),
    ],
)
def test_an_end_says_why(how: dict[str, object], reason: Reason) -> None:
    machine = finished(**how)
    task, job = queries.task_view(machine.state, 1, 0), queries.job_view(machine.state, 1)
    assert task is not None and task.reason == reason
    assert job is not None and job.reason == reason


def test_a_signal_gives_the_exit_code_that_shells_give() -> None:
    job = queries.job_view(finished(kind=EndKind.SIGNALED, code=9).state, 1)
    assert job is not None and job.exit_code == 137


def test_an_array_says_how_many_failed() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=3)
    machine.place(job, 0, 1, 2)
    machine.report(machine.ended(job, 0), machine.ended(job, 1, code=1), machine.ended(job, 2, code=1))
    shown = queries.job_view(machine.state, job.id)
    assert shown is not None
    assert shown.reason == Reason(code="failed", text="2 of 3 tasks ended as FAILED")
    assert shown.tasks == {"SUCCEEDED": 1, "FAILED": 2}


def test_who_cancelled_and_why_is_shown_from_the_request_to_the_end() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=2)
    machine.place(job, 0)
    machine.cancel(job)
    stopping, waiting = (queries.task_view(machine.state, job.id, index) for index in (0, 1))
    assert stopping is not None and waiting is not None
    assert stopping.reason == Reason(code="stopping", text="is being stopped (by bob: not needed)")
    assert (waiting.state, waiting.actor, waiting.attempt) == ("CANCELLED", "bob", 0)
    machine.end(job, 0, kind=EndKind.STOPPED)
    shown = queries.job_view(machine.state, job.id)
    assert shown is not None and shown.reason == Reason(code="cancelled", text="cancelled (by bob: not needed)")
    assert not shown.cancelling


def test_who_cancelled_a_single_running_task_is_shown_on_it_alone() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=2)
    machine.place(job, 0, 1)
    machine.cancel(job, 0)
    machine.report(machine.ended(job, 0, kind=EndKind.STOPPED), machine.ended(job, 1))
    task = queries.task_view(machine.state, job.id, 0)
    assert task is not None and task.actor == "bob"
    assert task.reason == Reason(code="cancelled", text="cancelled (by bob: not needed)")


def test_a_task_in_backoff_says_until_when() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(retries=retries(1, initial_ms=1000))
    machine.place(job)
    machine.end(job, code=1)
    task = queries.task_view(machine.state, job.id, 0)
    assert task is not None and task.reason is not None
    assert (task.state, task.attempt, task.reason.code, task.not_before_ms) == ("PENDING", 1, "backoff", T0 + 1000)
    machine.wait(1000)
    task = queries.task_view(machine.state, job.id, 0)
    assert task is not None and task.reason is None and task.not_before_ms == 0


def test_a_suspended_job_says_so_and_a_waiting_one_leaves_it_to_the_scheduler() -> None:
    machine = Machine()
    job = machine.submit()
    shown = queries.job_view(machine.state, job.id)
    assert shown is not None and shown.reason is None
    machine.do(SuspendJob(job_id=job.id, actor="ada"))
    shown = queries.job_view(machine.state, job.id)
    assert shown is not None and shown.reason is not None and shown.reason.code == "suspended"


# ── Pages ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def all_pages(machine: Machine, **filters: object) -> list[list[int]]:
    pages, cursor = [], ""
    while True:
        page = queries.list_jobs(machine.state, cursor=cursor, **filters)
        pages.append([job.id for job in page.jobs])
        cursor = page.next_cursor
        if not cursor:
            return pages


def test_jobs_come_newest_first_page_by_page() -> None:
    machine = Machine()
    jobs = [machine.submit() for _ in range(5)]
    machine.cancel(jobs[2])
    machine.do(DeleteJob(job_id=jobs[2].id, actor="ada"))
    assert all_pages(machine, limit=2) == [[5, 4], [2, 1]]
    assert all_pages(machine) == [[5, 4, 2, 1]]
    assert all_pages(Machine()) == [[]]


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"queue": "gpu"}, [2]),
        ({"name": "nightly"}, [3]),
        ({"labels": {"team": "red"}}, [3, 2]),
        ({"labels": {"team": "red", "tier": "1"}}, [2]),
        ({"actor": "ada"}, [3, 2, 1]),
        ({"actor": "bob"}, []),
        ({"states": [TaskState.CANCELLED]}, [1]),
        ({"states": [TaskState.CANCELLED, TaskState.PENDING], "queue": "default"}, [3, 1]),
    ],
)
def test_jobs_can_be_filtered(filters: dict[str, object], ids: list[int]) -> None:
    machine = Machine()
    machine.cancel(machine.submit())
    machine.submit(queue="gpu", labels={"team": "red", "tier": "1"})
    machine.submit(name="nightly", labels={"team": "red"})
    assert all_pages(machine, **filters) == [ids]


def test_a_rare_match_does_not_hold_up_the_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "MAX_SCANNED", 2)
    machine = Machine()
    machine.submit(name="rare")
    for _ in range(4):
        machine.submit()
    assert all_pages(machine, name="rare") == [[], [], [1]]


def test_tasks_by_state() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=7, retries=retries(1, initial_ms=1000))
    machine.place(job, 1, 3, 5)
    machine.end(job, 3, code=1)
    machine.start(job, 5)
    for states, indices in (
        ((), list(range(7))),
        ((TaskState.PENDING,), [0, 2, 3, 4, 6]),
        ((TaskState.SCHEDULED, TaskState.RUNNING), [1, 5]),
    ):
        found, cursor = [], ""
        while True:
            page = queries.list_tasks(machine.state, job.id, states=states, limit=2, cursor=cursor)
            assert page is not None
            found += [task.task_index for task in page.tasks]
            cursor = page.next_cursor
            if not cursor:
                break
        assert found == indices


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "٣", "9" * 30])
def test_only_a_cursor_is_a_cursor(cursor: str) -> None:
    machine = Machine()
    machine.submit()
    with pytest.raises(queries.BadCursor):
        queries.list_jobs(machine.state, cursor=cursor)
    with pytest.raises(queries.BadCursor):
        queries.list_tasks(machine.state, 1, cursor=cursor)


def test_what_is_not_there_is_none() -> None:
    machine = Machine()
    machine.submit()
    state = machine.state
    assert queries.job_view(state, 2) is None
    assert queries.task_view(state, 2, 0) is None
    assert queries.task_view(state, 1, 1) is None and queries.task_view(state, 1, -1) is None
    assert queries.list_tasks(state, 2) is None
    assert queries.node_view(state, "n1") is None
    assert list(queries.desired_attempts(state, "n1")) == []


def test_a_node_and_the_cluster_show_what_is_allocated() -> None:
    machine = Machine()
    machine.node("n2", countables=(("licence", 3),))
    machine.node("n1", cpu=2)
    machine.place(machine.submit(resources=Resources(cpu_milli=1500, countables=(("licence", 2),))), node_id="n2")
    assert [node.id for node in queries.list_nodes(machine.state).nodes] == ["n1", "n2"]
    node = queries.node_view(machine.state, "n2")
    assert node is not None and node.running == 1
    assert node.allocated == Resources(cpu_milli=1500, countables=(("licence", 2),))
    assert (node.tasks, queries.list_nodes(machine.state).nodes[1].tasks) == (["1.0"], [])
    cluster = queries.cluster_view(machine.state, cluster="test", leader="m1", term=3)
    assert (cluster.total.cpu_milli, cluster.allocated.cpu_milli) == (6000, 1500)
    assert (cluster.jobs, cluster.tasks, cluster.nodes) == ({"SCHEDULED": 1}, {"SCHEDULED": 1}, {"healthy": 2})


def test_a_node_shows_the_reservations_that_have_not_ended() -> None:
    machine = Machine()
    machine.node("n1")
    now_ms = machine.state.now_ms
    for name, start_ms, end_ms in (("later", 5000, 6000), ("now", -1000, 1000), ("soon", 500, 900)):
        body = Reservation(nodes=("n1",), start_ms=now_ms + start_ms, end_ms=now_ms + end_ms, users=("ada",))
        machine.do(PutPolicy(kind=PolicyKind.RESERVATION, name=name, body=body, actor="root"))
    shown = queries.list_nodes(machine.state).nodes[0].reservations
    assert [(each.name, each.begun, each.users) for each in shown] == [
        ("now", True, ["ada"]),
        ("soon", False, ["ada"]),
        ("later", False, ["ada"]),
    ]
    (idle,) = queries.list_nodes(machine.state, now_ms + 600).nodes
    assert [(each.name, each.begun) for each in idle.reservations] == [("now", True), ("soon", True), ("later", False)]
    machine.wait(1000)
    node = queries.node_view(machine.state, "n1")
    assert node is not None and [each.name for each in node.reservations] == ["later"]


def test_a_suspended_jobs_attempts_should_be_frozen_until_they_are_stopped() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit()
    machine.place(job)
    machine.do(SuspendJob(job_id=job.id, actor="ada"))
    assert list(queries.desired_attempts(machine.state, "n1")) == [(job.id, 0, 1, False, False, True)]
    machine.cancel(job)
    assert list(queries.desired_attempts(machine.state, "n1")) == [(job.id, 0, 1, True, False, False)]
