"""Notifications in the state machine: what is queued, for whom, how often it is tried, and what becomes of what has no room."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.notices import Channel, DeliveryState, Notice, NotifyRule
from hasched.model.policy import Namespace, Notification, PolicyKind
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind, NodeState
from hasched.model.workflow import After, TaskSpec, WorkflowSpec
from hasched.statemachine import outbox
from hasched.statemachine.commands import (
    CancelExecution,
    DecideApproval,
    DeletePolicy,
    PutPolicy,
    RetryExecution,
    RetryNotifications,
    SetNodeState,
    SettleDeliveries,
    Settlement,
    StartExecution,
    StepClock,
    TryNotification,
)
from hasched.statemachine.digest import digest
from hasched.statemachine.outbox import Delivery
from hasched.statemachine.outcomes import Done, ExecutionAccepted, Rejected
from hasched.statemachine.snapshot import capture, restore
from tests.statemachine.machine import Machine, retries

SECOND, HOUR = 1000, 3_600_000


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.node(cpu=64)
    return machine


def put(machine: Machine, name: str = "ops", **fields: Any) -> None:
    for namespace in fields.get("namespaces", ()):
        machine.do(PutPolicy(kind=PolicyKind.NAMESPACE, name=namespace, body=Namespace(), actor="root"))
    fields = {"to": Channel.WEBHOOK, "url": "https://example.com/", "secret_file": "ops.secret", **fields}
    body = Notification(**fields)
    assert machine.outcome(PutPolicy(kind=PolicyKind.NOTIFICATION, name=name, body=body, actor="root")) == Done()


def waiting(machine: Machine, target: str = "ops") -> list[Delivery]:
    return list(machine.state.outbox.waiting(target).values())


def notices(machine: Machine, target: str = "ops") -> list[Notice]:
    return [delivery.notice for delivery in waiting(machine, target)]


def settle(machine: Machine, delivery: Delivery, delivered: bool, error: str = "", wait_ms: int = 0) -> None:
    settled = Settlement(delivery.target, delivery.id, delivery.attempts + 1, delivered, error, wait_ms)
    machine.do(SettleDeliveries(settled=(settled,)))


def run(machine: Machine, code: int = 0, **fields: Any) -> int:
    job = machine.submit(**fields)
    machine.place(job)
    machine.start(job)
    machine.end(job, code=code)
    return job.id


def test_whoever_asked_for_it_is_told_of_what_happened(machine: Machine) -> None:
    put(machine, events=("job.failed",))
    put(machine, "all", events=("job.failed", "job.started", "job.submitted", "job.succeeded"))
    job_id = run(machine, code=3, name="nightly")
    (notice,) = notices(machine)
    assert (notice.topic, notice.job_id, notice.name, notice.actor) == ("job.failed", job_id, "nightly", "ada")
    assert (notice.state, notice.node, notice.exit_code, notice.reason) == ("FAILED", "n1", 3, "exited with code 3")
    assert (notice.tasks, notice.tasks_failed, notice.ended_ms) == (1, 1, machine.now_ms)
    assert [each.topic for each in notices(machine, "all")] == ["job.submitted", "job.started", "job.failed"]
    run(machine)
    assert len(notices(machine)) == 1
    assert notices(machine, "all")[-1].topic == "job.succeeded"


def test_the_event_of_a_notice_is_found_in_the_feed(machine: Machine) -> None:
    put(machine, events=("job.failed",))
    job = machine.submit()
    machine.place(job)
    applied = machine.end(job, kind=EndKind.SIGNALED, code=9)
    (notice,) = notices(machine)
    index, _, number = notice.event.partition(".")
    assert int(index) == applied.index
    assert type(applied.events[int(number)]).__name__ == "JobEnded"
    assert (notice.reason, notice.exit_code) == ("killed by signal 9", 137)


def test_of_an_array_the_first_task_that_has_failed_is_named(machine: Machine) -> None:
    put(machine, events=("job.failed", "job.started"))
    job = machine.submit(count=3, resources=Resources(cpu_milli=1000))
    machine.place(job, 0, 1, 2)
    for index in range(3):
        machine.start(job, index)
        machine.end(job, index, code=7 if index else 0)
    started, failed = notices(machine)
    assert started.topic == "job.started"
    assert (failed.task, failed.tasks, failed.tasks_failed, failed.exit_code) == ("1", 3, 2, 7)


def test_a_task_that_starts_again_is_no_new_start_of_its_job(machine: Machine) -> None:
    put(machine, events=("job.started",))
    job = machine.submit(retries=retries(1))
    machine.place(job)
    machine.start(job)
    machine.end(job, code=1)
    machine.place(job)
    machine.start(job, attempt=2)
    assert [each.topic for each in notices(machine)] == ["job.started"]


def test_a_target_hears_only_of_its_namespaces(machine: Machine) -> None:
    put(machine, events=("job.succeeded", "node.disconnected"), namespaces=("red",))
    put(machine, "cluster", events=("node.disconnected",))
    run(machine)
    machine.do(SetNodeState(node_id="n1", state=NodeState.DISCONNECTED, reason="silent for 30s"))
    assert notices(machine) == []
    (notice,) = notices(machine, "cluster")
    assert (notice.node, notice.reason) == ("n1", "silent for 30s")


def test_a_namespace_that_is_told_of_stays_and_one_that_is_not_there_is_a_slip(machine: Machine) -> None:
    put(machine, namespaces=("red",))
    assert machine.refusal(DeletePolicy(kind=PolicyKind.NAMESPACE, name="red", actor="root")) == "policy_in_use"
    slip = Notification(to=Channel.SLACK, url_file="chat.url", namespaces=("rde",))
    put_slip = PutPolicy(kind=PolicyKind.NOTIFICATION, name="chat", body=slip, actor="root")
    assert machine.refusal(put_slip) == "unknown_namespace"


def test_a_job_names_who_is_told_of_it(machine: Machine) -> None:
    put(machine)
    put(machine, "other")
    run(machine)
    run(machine, notify=NotifyRule(("ops",), ("job.failed",)))
    job_id = run(machine, notify=NotifyRule(("ops",)))
    assert [each.job_id for each in notices(machine)] == [job_id]
    assert notices(machine, "other") == []


@pytest.mark.parametrize("target", ["nobody", "red"])
def test_a_job_can_name_only_a_target_that_is_there_for_it(machine: Machine, target: str) -> None:
    put(machine, "red", namespaces=("red",))
    with pytest.raises(AssertionError, match="unknown_notification"):
        machine.submit(notify=NotifyRule((target,)))


def execution(rule: NotifyRule | None, **fields: Any) -> WorkflowSpec:
    """One that asks somebody, so that nothing else has to happen."""
    return WorkflowSpec(name="release", tasks=(TaskSpec(name="go", approval="?"),), notify=rule, **fields)


def execute(machine: Machine, spec: WorkflowSpec) -> int:
    outcome = machine.outcome(StartExecution(submission_id=f"s{machine.state.index}", actor="ada", spec=spec))
    assert isinstance(outcome, ExecutionAccepted)
    machine.do(StepClock())
    return outcome.execution_id


def test_a_workflow_names_who_is_told_of_it_in_the_entry_in_which_it_ends(machine: Machine) -> None:
    put(machine)
    put(machine, "other")
    rule = NotifyRule(("ops",), ("workflow.cancelled", "workflow.failed", "workflow.succeeded"))
    for approve in (True, False):
        execution_id = execute(machine, execution(rule))
        machine.do(DecideApproval(execution_id=execution_id, task="go", approve=approve, actor="bob", comment="no"))
        machine.state = restore(iter(capture(machine.state).next_chunk, None))
        ended = machine.do(StepClock())
        notice = notices(machine)[-1]
        assert notice.event.partition(".")[0] == str(ended.index)
        assert type(ended.events[int(notice.event.partition(".")[2])]).__name__ == "ExecutionEnded"
        assert (notice.execution_id, notice.name, notice.actor) == (execution_id, "release", "ada")
    machine.do(CancelExecution(execution_id=execute(machine, execution(rule)), actor="bob"))
    machine.do(StepClock())
    execute(machine, execution(None))
    assert [(each.topic, each.state, each.reason) for each in notices(machine)] == [
        ("workflow.succeeded", "SUCCEEDED", ""),
        ("workflow.failed", "FAILED", "go: refused by bob: no"),
        ("workflow.cancelled", "CANCELLED", "cancelled by bob"),
    ]
    assert notices(machine, "other") == []
    assert digest(restore(iter(capture(machine.state).next_chunk, None))) == digest(machine.state)


@pytest.mark.parametrize("target", ["nobody", "red"])
def test_a_workflow_can_name_only_targets_that_are_there_for_it(machine: Machine, target: str) -> None:
    """Also one within another, which begins only later."""
    put(machine, "red", namespaces=("red",))
    wrong = execution(NotifyRule((target,), ("workflow.failed",)))
    outer = WorkflowSpec(name="outer", tasks=(TaskSpec(name="inner", workflow=wrong),))
    for spec in (wrong, outer):
        assert machine.refusal(StartExecution(submission_id="s", actor="ada", spec=spec)) == "unknown_notification"
    execute(machine, execution(NotifyRule(("red",), ("workflow.failed",)), namespace="red"))


def test_what_fails_is_tried_later_and_later_and_then_given_up(machine: Machine) -> None:
    put(machine, events=("job.succeeded",), retry_after_ms=SECOND, retry_at_most_ms=4 * SECOND, give_up_after_ms=20_000)
    run(machine)
    begun_ms, waits = machine.now_ms, []
    while found := waiting(machine):
        machine.now_ms = max(machine.now_ms, found[0].next_ms)
        settle(machine, found[0], False, "connection refused")
        waits.append([each.next_ms - machine.now_ms for each in waiting(machine)])
    assert waits == [[1000], [2000], [4000], [4000], [4000], [4000], []]
    assert machine.now_ms - begun_ms <= 20_000
    (failed,) = machine.state.outbox.lanes["ops"].over[DeliveryState.FAILED].values()
    assert (failed.attempts, failed.error) == (7, "connection refused")
    machine.do(RetryNotifications(target="ops", actor="root"))
    (again,) = waiting(machine)
    assert (again.id, again.notice, again.next_ms, again.attempts) == (failed.id, failed.notice, machine.now_ms, 7)
    settle(machine, again, True)
    lane = machine.state.outbox.lanes["ops"]
    assert (lane.delivered, lane.failed, list(lane.over[DeliveryState.FAILED])) == (1, 1, [])


def test_a_receiver_that_asks_for_patience_gets_it(machine: Machine) -> None:
    put(machine, events=("job.succeeded",))
    run(machine)
    settle(machine, waiting(machine)[0], False, "503", wait_ms=60_000)
    assert waiting(machine)[0].next_ms == machine.now_ms + 60_000
    settle(machine, waiting(machine)[0], False, "503", wait_ms=100 * HOUR)
    assert waiting(machine)[0].next_ms == machine.now_ms + HOUR


def test_an_attempt_counts_once_whoever_reports_it(machine: Machine) -> None:
    put(machine, events=("job.succeeded",))
    run(machine)
    first = waiting(machine)[0]
    settle(machine, first, False, "timed out")
    settle(machine, first, False, "timed out")
    assert waiting(machine)[0].attempts == 1
    late = Settlement("ops", first.id, 1, True)
    machine.do(SettleDeliveries(settled=(late, late)))
    assert waiting(machine)[0].attempts == 1
    settle(machine, waiting(machine)[0], True)
    settle(machine, first, True)
    assert waiting(machine) == []
    assert machine.state.outbox.lanes["ops"].delivered == 1


def test_what_finds_no_room_is_counted_and_told_of_once_there_is(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    monkeypatch.setattr("hasched.statemachine.rules.notifications.MAX_WAITING", 3)
    put(machine, events=("job.succeeded",))
    put(machine, "quick", events=("job.succeeded",))
    for _ in range(5):
        run(machine)
        settle(machine, waiting(machine, "quick")[0], True)
    lane = machine.state.outbox.lanes["ops"]
    assert (len(waiting(machine)), lane.dropped) == (3, 2)
    assert machine.state.outbox.lanes["quick"].delivered == 5
    assert machine.refusal(TryNotification(target="ops", actor="root")) == "outbox_full"
    settle(machine, waiting(machine)[0], True)
    told = notices(machine)[-1]
    assert (told.topic, told.count) == ("notification.dropped", 2)
    settle(machine, waiting(machine)[0], True)
    assert [each.topic for each in notices(machine)] == ["job.succeeded", "notification.dropped"]


def test_no_two_notices_of_an_entry_have_the_same_id(machine: Machine) -> None:
    put(machine)
    machine.do(*(TryNotification(target="ops", actor="root") for _ in range(3)))
    assert [notice.event for notice in notices(machine)] == [f"{machine.state.index}.{number}" for number in range(3)]


def test_a_target_is_tried_and_goes_with_what_waits_for_it(machine: Machine) -> None:
    put(machine)
    assert machine.outcome(TryNotification(target="ops", actor="root")) == Done()
    (notice,) = notices(machine)
    assert (notice.topic, notice.actor) == ("notification.test", "root")
    assert machine.refusal(RetryNotifications(target="ops", actor="root", deliveries=(99,))) == "no_such_delivery"
    assert machine.refusal(RetryNotifications(target="nobody", actor="root")) == "no_such_policy"
    assert machine.refusal(TryNotification(target="nobody", actor="root")) == "no_such_policy"
    gone = machine.do(DeletePolicy(kind=PolicyKind.NOTIFICATION, name="ops", actor="root"))
    assert [type(event).__name__ for event in gone.events] == ["NotificationsDiscarded", "PolicyDeleted"]
    assert machine.state.outbox.lanes == {}


def test_a_target_stays_while_jobs_that_have_not_ended_name_it(machine: Machine) -> None:
    put(machine, "other", namespaces=("red",))
    put(machine)
    job = machine.submit(notify=NotifyRule(("ops",)))
    delete = DeletePolicy(kind=PolicyKind.NOTIFICATION, name="ops", actor="root")
    for _ in range(2):
        refused = machine.outcome(delete)
        assert isinstance(refused, Rejected)
        assert (refused.code, refused.cause) == ("policy_in_use", "notification/ops is used by 1 job still to end")
        machine.state = restore(iter(capture(machine.state).next_chunk, None))
    narrower = Notification(to=Channel.SLACK, url_file="chat.url", namespaces=("red",))
    put_narrower = PutPolicy(kind=PolicyKind.NOTIFICATION, name="ops", body=narrower, actor="root")
    assert machine.refusal(put_narrower) == "policy_in_use"
    machine.cancel(job)
    assert machine.outcome(put_narrower) == Done()
    assert machine.outcome(delete) == Done()


def test_a_target_stays_while_executions_that_have_not_ended_name_it(machine: Machine) -> None:
    put(machine)
    execution_id = execute(machine, execution(NotifyRule(("ops",), ("workflow.failed",))))
    delete = DeletePolicy(kind=PolicyKind.NOTIFICATION, name="ops", actor="root")
    for _ in range(2):
        refused = machine.outcome(delete)
        assert isinstance(refused, Rejected) and refused.cause.endswith("is used by 1 execution still to end")
        machine.state = restore(iter(capture(machine.state).next_chunk, None))
    again = RetryExecution(execution_id=execution_id, actor="root")
    cancel = CancelExecution(execution_id=execution_id, actor="root")
    machine.do(cancel)
    machine.do(StepClock())
    assert machine.outcome(again) == Done()
    assert machine.refusal(delete) == "policy_in_use"
    machine.do(cancel)
    machine.do(StepClock())
    assert machine.outcome(delete) == Done()
    assert machine.refusal(again) == "unknown_notification"


def test_a_target_stays_while_what_has_not_begun_of_an_execution_names_it(machine: Machine) -> None:
    """Its jobs, and workflows within it: they would be refused when their turn comes."""
    rule = NotifyRule(("ops",), ("job.failed",))
    job = JobSpec(name="load", command=("true",), notify=rule)
    inner = WorkflowSpec(name="inner", tasks=(TaskSpec(name="load", job=job),))
    delete = DeletePolicy(kind=PolicyKind.NOTIFICATION, name="ops", actor="root")
    for task in (
        TaskSpec(name="late", job=job, after=(After(0),)),
        TaskSpec(name="late", workflow=inner, after=(After(0),)),
    ):
        spec = WorkflowSpec(name="w", tasks=(TaskSpec(name="go", approval="?"), task))
        start = StartExecution(submission_id=f"s{machine.state.index}", actor="ada", spec=spec)
        assert machine.refusal(start) == "unknown_notification"
        put(machine)
        execution_id = execute(machine, spec)
        for _ in range(2):
            refused = machine.outcome(delete)
            assert isinstance(refused, Rejected) and refused.cause.endswith("is used by 1 execution still to end")
            machine.state = restore(iter(capture(machine.state).next_chunk, None))
        machine.do(CancelExecution(execution_id=execution_id, actor="root"))
        machine.do(StepClock())
        assert machine.outcome(delete) == Done()


def test_of_what_many_are_told_they_share_one_copy_after_a_restore_too(machine: Machine) -> None:
    for name in ("ops", "chat"):
        put(machine, name, events=("job.failed",))
    run(machine, code=1)
    run(machine, code=2)
    machine.state = restore(iter(capture(machine.state).next_chunk, None))
    ops, chat = notices(machine), notices(machine, "chat")
    assert len(ops) == 2 and all(one is other for one, other in zip(ops, chat, strict=True))


def test_the_outbox_is_in_every_snapshot(machine: Machine) -> None:
    put(machine, events=("job.failed", "job.succeeded"), give_up_after_ms=0)
    for code in range(4):
        run(machine, code=code)
    settle(machine, waiting(machine)[0], True)
    settle(machine, waiting(machine)[0], False, "no")
    captured = capture(machine.state)
    settle(machine, waiting(machine)[0], True)
    restored = restore(iter(captured.next_chunk, None))
    lane = restored.outbox.lanes["ops"]
    assert (len(lane.waiting), lane.delivered, lane.failed, restored.outbox.next_id) == (2, 1, 1, 5)
    machine.state = restored
    settle(machine, waiting(machine)[0], True)
    assert digest(restore(iter(capture(machine.state).next_chunk, None))) == digest(machine.state)
