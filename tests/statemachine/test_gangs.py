"""Gangs: all tasks or none, at the start, in a retry, under preemption and at the end."""

from __future__ import annotations

import pytest

from hasched.model.spec import Resources, TaskGroup
from hasched.model.states import EndKind, TaskState
from hasched.model.wire import AttemptKey
from hasched.statemachine import queries
from hasched.statemachine.commands import PlaceGang, Placement, PreemptAttempts, SuspendJob
from hasched.statemachine.job import STATE_OF_PHASE
from hasched.statemachine.outcomes import AttemptsPreempted, PlanTaken, Rejected
from hasched.statemachine.rules import ends
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import Job
from tests.statemachine.machine import Machine, retries

STOPPED = {"kind": EndKind.STOPPED}


def running_gang(count: int = 4, **fields: object) -> tuple[Machine, Job]:
    """Ranks 0 and 1 on n1, the others on n2; all run."""
    machine = Machine()
    machine.node("n1")
    machine.node("n2")
    job = machine.submit(**{"count": count, "gang": True, "retries": retries(1), **fields})
    machine.gang(job, ("n1", (0, 1)), ("n2", tuple(range(2, count))))
    for index in range(count):
        machine.start(job, index, node_id="n1" if index < 2 else "n2")
    return machine, job


def states(job: Job) -> list[str]:
    return [job.task_state(index).name for index in range(job.count)]


def end(machine: Machine, job: Job, index: int, attempt: int = 1, **how: object) -> None:
    machine.end(job, index, attempt, "n1" if index < 2 else "n2", **how)


@pytest.mark.parametrize(
    ("placements", "port"),
    [
        pytest.param([("n1", (0, 1))], 29_400, id="too few"),
        pytest.param([("n1", (0, 1)), ("n2", (2, 3, 4))], 29_400, id="more than there are"),
        pytest.param([("n1", (0, 1)), ("n2", (2, 2, 3))], 29_400, id="one twice"),
        pytest.param([("n1", (2, 3)), ("n2", (0, 1))], 29_400, id="rank 0 is not first"),
        pytest.param([("n1", (0, 1)), ("n1", (2, 3))], 29_400, id="a node twice"),
        pytest.param([("n1", (0, 1)), ("n3", (2, 3))], 29_400, id="no such node"),
        pytest.param([("n1", (0, 1)), ("n2", (2, 3))], 0, id="no port"),
        pytest.param([("n1", ()), ("n2", (0, 1, 2, 3))], 29_400, id="an empty part"),
    ],
)
def test_a_plan_that_makes_no_gang_is_refused_whole(placements: list[tuple[str, tuple[int, ...]]], port: int) -> None:
    machine = Machine()
    machine.node("n1")
    machine.node("n2")
    job = machine.submit(count=4, gang=True)
    there = tuple(Placement(job.id, node_id, ranks) for node_id, ranks in placements)
    assert machine.refusal(PlaceGang(job_id=job.id, placements=there, port=port)) == (
        "gang_no_room" if "n3" in dict(placements) else "gang_refused"
    )
    assert states(job) == ["PENDING"] * 4


def test_one_task_without_room_is_enough_to_refuse_all() -> None:
    machine = Machine()
    machine.node("n1")
    machine.node("n2", cpu=2)
    machine.place(machine.submit(), node_id="n2")
    job = machine.submit(count=4, gang=True)
    there = (Placement(job.id, "n1", (0, 1)), Placement(job.id, "n2", (2, 3)))
    assert machine.refusal(PlaceGang(job_id=job.id, placements=there, port=1)) == "gang_no_room"
    machine.node("n2", cpu=3)
    assert machine.outcome(PlaceGang(job_id=job.id, placements=there, port=1)) == PlanTaken(4, 0)
    assert states(job) == ["SCHEDULED"] * 4
    assert machine.refusal(PlaceGang(job_id=job.id, placements=there, port=1)) == "gang_moot"


def test_no_task_of_a_gang_starts_alone() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=2, gang=True)
    machine.place(job, 0, 1)
    assert states(job) == ["PENDING", "PENDING"]
    machine.do(SuspendJob(job_id=job.id, actor="ada"))
    machine.gang(job, ("n1", (0, 1)))
    assert states(job) == ["PENDING", "PENDING"]


def test_a_gang_succeeds_when_all_have() -> None:
    machine, job = running_gang()
    for index in (2, 0, 3):
        end(machine, job, index)
    assert job.state is TaskState.RUNNING
    end(machine, job, 1)
    assert (job.state, job.exit_code, job.gang_run) == (TaskState.SUCCEEDED, 0, None)


def test_a_failure_stops_the_others_and_all_start_again_for_one_retry() -> None:
    machine, job = running_gang()
    end(machine, job, 3)
    end(machine, job, 2, code=7)
    assert states(job) == ["RUNNING", "RUNNING", "PENDING", "SUCCEEDED"]
    assert sorted(job.yields or {}) == [0, 1]
    end(machine, job, 0, **STOPPED)
    assert job.task_state(3) is TaskState.SUCCEEDED, "while others still run, nothing says that it has to start again"
    end(machine, job, 1, code=1)  # on its way out it fails too: that costs nothing
    assert states(job) == ["PENDING"] * 4
    shown = [queries.task_view(machine.state, job.id, index) for index in range(4)]
    assert [view.attempts[0].state for view in shown if view] == [
        "GANG_RESTARTED",
        "GANG_RESTARTED",
        "FAILED",
        "SUCCEEDED",
    ]
    assert shown[0] is not None and shown[0].attempts[0].reason is not None
    assert shown[0].attempts[0].reason.text == "task 2 of the gang ended as FAILED"
    machine.gang(job, ("n1", (0, 1)), ("n2", (2, 3)))
    assert [job.attempts_made(index) for index in range(4)] == [2, 2, 2, 2]
    end(machine, job, 0, 2, code=7)
    assert states(job) == ["FAILED", "SCHEDULED", "SCHEDULED", "SCHEDULED"], "the gang's only retry is used"
    for index in (1, 2):
        end(machine, job, index, 2, **STOPPED)
    end(machine, job, 3, 2)
    assert states(job) == ["FAILED", "CANCELLED", "CANCELLED", "SUCCEEDED"]
    assert (job.state, job.exit_code) == (TaskState.FAILED, 7)


def test_a_lost_node_costs_one_loss_however_many_ranks_it_had() -> None:
    machine, job = running_gang(retries=retries(0, node_lost=1))
    machine.lose("n2")
    assert states(job) == ["RUNNING", "RUNNING", "PENDING", "PENDING"]
    assert sum(history.node_losses for history in (job.histories or {}).values()) == 1
    end(machine, job, 0, **STOPPED)
    end(machine, job, 1, **STOPPED)
    machine.node("n2")
    machine.gang(job, ("n1", (0, 1)), ("n2", (2, 3)))
    machine.lose("n2")
    assert states(job) == ["SCHEDULED", "SCHEDULED", "NODE_LOST", "NODE_LOST"]
    end(machine, job, 0, 2, **STOPPED)
    end(machine, job, 1, 2, **STOPPED)
    assert job.state is TaskState.NODE_LOST


def test_both_nodes_lost_at_once_lose_nothing() -> None:
    machine, job = running_gang(retries=retries(0, node_lost=1))
    machine.lose("n1")
    machine.lose("n2")
    assert states(job) == ["PENDING"] * 4


def test_the_first_rank_that_is_lost_with_others_gone_well_starts_all_again() -> None:
    machine, job = running_gang()
    machine.end(job, 3, node_id="n2", output=b"half")
    for index in (0, 1):
        end(machine, job, index)
    machine.lose("n2")
    assert states(job) == ["PENDING"] * 4
    assert not machine.state.output_bytes, "what a rank said in a run that came to nothing is not its output"


def test_a_preempted_rank_takes_its_gang_along() -> None:
    machine, job = running_gang(retries=retries(0, node_lost=0))
    urgent = machine.submit(priority_class="high")
    command = PreemptAttempts(attempts=(AttemptKey(job.id, 2, 1),), for_job=urgent.id)
    assert machine.outcome(command) == AttemptsPreempted(4, 0)
    for index in range(4):
        end(machine, job, index, **STOPPED)
    assert states(job) == ["PENDING"] * 4
    machine.gang(job, ("n1", (0, 1)), ("n2", (2, 3)))
    for index in range(4):
        end(machine, job, index, 2)
    assert job.state is TaskState.SUCCEEDED


def test_a_gang_that_finishes_within_its_warning_has_succeeded() -> None:
    machine, job = running_gang()
    machine.preempt(job, 0)
    for index in range(4):
        end(machine, job, index)
    assert job.state is TaskState.SUCCEEDED


def test_who_succeeds_within_the_warning_starts_again_with_the_others() -> None:
    machine, job = running_gang()
    machine.preempt(job)
    end(machine, job, 0)
    for index in (1, 2, 3):
        end(machine, job, index, **STOPPED)
    assert states(job) == ["PENDING"] * 4


@pytest.mark.parametrize("broken", [False, True], ids=["while it runs", "while it restarts"])
def test_cancelling_one_task_cancels_the_gang(broken: bool) -> None:
    machine, job = running_gang()
    if broken:
        end(machine, job, 3, code=1)
    machine.cancel(job, 1)
    for index in range(3 if broken else 4):
        end(machine, job, index, **STOPPED)
    assert job.state is TaskState.CANCELLED
    assert states(job) == ["CANCELLED"] * 4


def test_two_gangs_never_share_a_port_of_a_node() -> None:
    machine = Machine()
    machine.node()
    first, second = (machine.submit(count=2, gang=True) for _ in range(2))
    machine.gang(first, ("n1", (0, 1)))
    there = (Placement(second.id, "n1", (0, 1)),)
    assert machine.refusal(PlaceGang(job_id=second.id, placements=there, port=29_400)) == "gang_refused"
    assert machine.outcome(PlaceGang(job_id=second.id, placements=there, port=29_401)) == PlanTaken(2, 0)
    machine.end(first, 0)
    third = machine.submit(count=1, gang=True)
    machine.gang(third, ("n1", (0,)))
    assert third.active == 1, "a port is free once its rank 0 has ended"


def test_groups_ask_for_different_things() -> None:
    machine = Machine()
    machine.node("n1", cpu=2)
    machine.node("n2", cpu=4)
    groups = (
        TaskGroup("driver", 1, Resources(cpu_milli=2000)),
        TaskGroup("worker", 2, Resources(cpu_milli=500)),
    )
    job = machine.submit(count=3, gang=True, groups=groups)
    there = (Placement(job.id, "n1", (0, 1)), Placement(job.id, "n2", (2,)))
    assert machine.refusal(PlaceGang(job_id=job.id, placements=there, port=1)) == "gang_no_room"
    machine.gang(job, ("n1", (0,)), ("n2", (1, 2)))
    assert [machine.state.nodes[name].allocated_cpu_milli for name in ("n1", "n2")] == [2000, 1000]
    captured = capture(machine.state)
    machine.state = restore(iter(captured.next_chunk, None))
    assert machine.state.nodes["n2"].allocated_cpu_milli == 1000
    machine.lose("n2")
    machine.end(machine.state.jobs[job.id], 0, **STOPPED)
    assert machine.state.nodes["n1"].allocated_cpu_milli == 0


def test_an_elastic_gang_takes_what_there_is_and_ends_with_what_it_had() -> None:
    machine, job = running_gang(min_count=2)
    machine.lose("n2")
    for index in (0, 1):
        end(machine, job, index, **STOPPED)
    machine.gang(job, ("n1", (0, 1, 2)))
    assert states(job) == ["SCHEDULED", "SCHEDULED", "SCHEDULED", "PENDING"]
    for index in range(3):
        machine.end(job, index, 2)
    assert (job.state, job.count) == (TaskState.SUCCEEDED, 3)
    assert queries.job_view(machine.state, job.id).tasks == {"SUCCEEDED": 3}  # type: ignore[union-attr]


def test_an_elastic_gang_that_fails_cancels_what_it_never_started() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=4, gang=True, min_count=2)
    machine.gang(job, ("n1", (0, 1)))
    machine.end(job, 0, code=1)
    assert states(job) == ["FAILED", "SCHEDULED", "CANCELLED", "CANCELLED"]
    machine.end(job, 1, **STOPPED)
    assert job.state is TaskState.FAILED


def test_an_elastic_gang_waits_for_the_backoff_of_whom_it_could_do_without() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=3, gang=True, min_count=2, retries=retries(3, initial_ms=1000))
    machine.gang(job, ("n1", (0, 1, 2)))
    for index in (2, 0, 1):
        machine.end(job, index, code=1)
    assert (job.eligible, job.in_backoff) == (2, 1)
    there = (Placement(job.id, "n1", (0, 1)),)
    assert machine.refusal(PlaceGang(job_id=job.id, placements=there, port=1)) == "gang_moot"
    machine.wait(1000)
    machine.gang(job, ("n1", (0, 1)))
    for index in (0, 1):
        machine.end(job, index, 2)
    assert (job.state, job.count) == (TaskState.SUCCEEDED, 2)


def test_a_task_that_is_dropped_takes_its_backoff_along() -> None:
    machine = Machine()
    machine.node()
    job = machine.submit(count=3, gang=True, min_count=2, retries=retries(3, initial_ms=1000))
    machine.gang(job, ("n1", (0, 1, 2)))
    for index in (2, 0, 1):
        machine.end(job, index, code=1)
    machine.state.drop_tasks(job, 2)
    assert (job.count, job.eligible, job.in_backoff) == (2, 2, 0)
    (job.histories or {}).pop(2)
    machine.wait(1000)
    assert next_deadline(machine.state) is None


def test_what_a_gang_costs_grows_with_its_tasks_and_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, job = running_gang(retries=retries(0, node_lost=1))
    sums = []
    monkeypatch.setattr(ends, "_used_retries", lambda *args: sums.append(args) or (0, 0))
    machine.lose("n2")
    assert len(sums) == 1, "its histories are gone through once for all of its tasks that are lost together"
    looked_at = []
    monkeypatch.setattr(
        Job, "task_state", lambda job, index: looked_at.append(index) or STATE_OF_PHASE[job.phases[index]]
    )
    ended = ends.decide_end(machine.state, job, job.attempt_of(0), machine.ended(job, 0, **STOPPED))  # type: ignore[arg-type]
    assert len(ended) == 1 and not looked_at, "an end that others still follow asks for no other task's state"


@pytest.mark.parametrize("retry", [0, 1])
def test_what_broke_a_gang_is_kept_by_each_rank_in_short(retry: int) -> None:
    machine, job = running_gang(retries=retries(retry))
    end(machine, job, 0, kind=EndKind.LAUNCH_FAILED, reason="x" * 900)
    notes = job.yields or {index: active.cancel for index, active in (job.active_attempts or {}).items()}
    assert [len(note.reason) for note in notes.values() if note is not None] == [100] * 3
    assert len((job.histories or {})[0].attempts[0].reason) == 900


class TestElasticJobs:
    """A `min_count` without `gang`."""

    def job(self, machine: Machine, count: int = 6, min_count: int = 3) -> Job:
        machine.node("n1", cpu=8)
        return machine.submit(count=count, min_count=min_count, retries=retries(1))

    def test_its_first_tasks_start_together_and_the_others_one_by_one(self) -> None:
        machine = Machine()
        job = self.job(machine)
        machine.place(job, 0, 1, 2, 3)
        assert not job.active
        too_few = PlaceGang(job_id=job.id, placements=(Placement(job.id, "n1", (0, 1)),))
        assert isinstance(machine.outcome(too_few), Rejected)
        machine.gang(job, ("n1", (0, 2, 4)), port=0)
        assert job.active == 3 and job.gang_run is None
        machine.place(job, 1)
        assert job.active == 4

    def test_its_tasks_fail_and_are_tried_again_alone(self) -> None:
        machine = Machine()
        job = self.job(machine)
        machine.gang(job, ("n1", (0, 1, 2)), port=0)
        machine.end(job, 1, code=1)
        machine.place(job, 1)
        assert job.active == 3
        assert job.attempts_made(1) == 2

    def test_preemption_shrinks_it_to_its_floor_and_then_ends_it_whole(self) -> None:
        machine = Machine()
        job = self.job(machine)
        machine.gang(job, ("n1", (0, 1, 2, 3, 4)), port=0)
        machine.preempt(job, 4)
        machine.preempt(job, 3)
        assert sorted(job.yields or {}) == [3, 4]
        machine.preempt(job, 0)
        assert sorted(job.yields or {}) == [0, 1, 2, 3, 4]

    def test_its_last_tasks_may_be_fewer(self) -> None:
        machine = Machine()
        job = self.job(machine, count=4)
        machine.gang(job, ("n1", (0, 1, 2)), port=0)
        for index in (0, 1, 2):
            machine.end(job, index)
        machine.gang(job, ("n1", (3,)), port=0)
        machine.end(job, 3)
        assert job.state is TaskState.SUCCEEDED


def test_a_snapshot_knows_where_a_gang_runs() -> None:
    machine, job = running_gang()
    end(machine, job, 0)
    end(machine, job, 1, code=3)
    captured = capture(machine.state)
    machine.state = restore(iter(captured.next_chunk, None))
    again = machine.state.jobs[job.id]
    assert again.gang_run == job.gang_run and again.gang == job.gang
    for index in (2, 3):
        end(machine, again, index, **STOPPED)
    assert states(again) == ["PENDING"] * 4
