"""What is told of an event: its topic, and the facts as they stand when it has just happened."""

from __future__ import annotations

from msgspec.structs import replace

from hasched.model.notices import MAX_NOTICE_TEXT, Notice, Topic
from hasched.model.schedule import SlotOutcome
from hasched.model.states import NodeState, TaskState
from hasched.model.workflow import TaskSpec
from hasched.statemachine import events as e
from hasched.statemachine import workflow_events as w
from hasched.statemachine.events import Event
from hasched.statemachine.execution import Execution, ExecutionState, RowState, Stage
from hasched.statemachine.job import Job
from hasched.statemachine.queries.attempts import cancel_of, reason_of_end, words_of
from hasched.statemachine.records import attempt_records
from hasched.statemachine.state import State

_FAILED_TASKS = (  # the most telling first, as `derive_state` has it
    TaskState.DEADLINE_EXCEEDED,
    TaskState.FAILED,
    TaskState.OUT_OF_MEMORY,
    TaskState.TIMED_OUT,
    TaskState.NODE_LOST,
)
_OF_EXECUTION = {
    ExecutionState.SUCCEEDED: Topic.WORKFLOW_SUCCEEDED,
    ExecutionState.CANCELLED: Topic.WORKFLOW_CANCELLED,
}


def topic_of(state: State, event: Event) -> Topic | None:
    """None for what nobody is told of."""
    match event:
        case e.JobEnded(state=TaskState.SUCCEEDED):
            return Topic.JOB_SUCCEEDED
        case e.JobEnded(state=TaskState.CANCELLED):
            return Topic.JOB_CANCELLED
        case e.JobEnded():
            return Topic.JOB_FAILED
        case e.JobSubmitted():
            return Topic.JOB_SUBMITTED
        case e.AttemptStarted() if _is_first(state.jobs[event.job_id], event):
            return Topic.JOB_STARTED
        case w.ExecutionStarted():
            return Topic.WORKFLOW_STARTED
        case w.ExecutionApprovalAsked():
            return Topic.WORKFLOW_APPROVAL
        case w.ExecutionTaskEnded(state=RowState.SUCCEEDED) if _hook_of(state, event).tells:
            return Topic.WORKFLOW_HOOK
        case w.ExecutionEnded():
            return _OF_EXECUTION.get(event.state, Topic.WORKFLOW_FAILED)
        case e.ScheduleLate():
            return Topic.SCHEDULE_LATE
        case e.ScheduleMissing():
            return Topic.SCHEDULE_MISSING
        case e.SlotsSkipped(outcome=SlotOutcome.REFUSED):
            return Topic.SCHEDULE_REFUSED
        case e.NodeStateChanged(state=NodeState.DISCONNECTED):
            return Topic.NODE_DISCONNECTED
        case e.NodeQuarantined():
            return Topic.NODE_QUARANTINED
        case _:
            return None


def _is_first(job: Job, event: e.AttemptStarted) -> bool:
    """Whether nothing of the job has run before."""
    counts = job.counts
    return (
        event.attempt == 1
        and counts[TaskState.RUNNING] == 1
        and not any(counts[TaskState.SUCCEEDED :])
        and not any(history.attempts for history in (job.histories or {}).values())
    )


def _hook_of(state: State, event: w.ExecutionTaskEnded) -> TaskSpec:
    plan = state.executions[event.execution_id].plan
    return plan.spec.tasks[plan.row_of[event.task]]


def rule_of(state: State, event: Event, topic: Topic) -> tuple[str, ...]:
    """The targets that the event's job or workflow names for this."""
    if topic.of_workflows:
        execution = state.executions.get(getattr(event, "execution_id", 0))
        named = execution.plan.spec.notify if execution is not None else None
        targets = named.targets if named is not None and topic in named.events else ()
        return (*targets, _hook_of(state, event).tells) if isinstance(event, w.ExecutionTaskEnded) else targets
    job = state.jobs.get(getattr(event, "job_id", 0)) if topic.of_jobs else None
    rule = job.notify if job is not None else None
    return rule.targets if rule is not None and topic in rule.events else ()


def describe(state: State, event: Event, topic: Topic, event_id: str) -> Notice:
    """The notice of an event of this topic, which has just happened."""
    about = Notice(topic=topic.value, event=event_id, time_ms=state.now_ms)
    match event:
        case e.JobEnded() | e.JobSubmitted() | e.AttemptStarted():
            return _of_job(state, state.jobs[event.job_id], about)
        case w.ExecutionStarted() | w.ExecutionApprovalAsked() | w.ExecutionTaskEnded() | w.ExecutionEnded():
            return _of_execution(state.executions[event.execution_id], event, about)
        case e.ScheduleLate() | e.ScheduleMissing() | e.SlotsSkipped():
            schedule = state.schedules[event.schedule]
            slot_ms = delay_ms = 0
            if isinstance(event, e.ScheduleLate):
                slot_ms, delay_ms = event.slot_ms, event.delay_ms
            elif isinstance(event, e.SlotsSkipped):
                slot_ms = event.first_ms
            else:
                delay_ms = state.now_ms - event.since_ms
            return replace(
                about,
                namespace=schedule.spec.namespace,
                name=schedule.name,
                actor=schedule.actor,
                reason=event.text[:MAX_NOTICE_TEXT] if isinstance(event, e.SlotsSkipped) else "",
                slot_ms=slot_ms,
                delay_ms=delay_ms,
            )
        case e.NodeStateChanged() | e.NodeQuarantined():
            reason = event.reason[:MAX_NOTICE_TEXT]
            return replace(about, name=event.node_id, node=event.node_id, reason=reason)
        case _:
            raise AssertionError(f"{type(event).__name__} has no topic")


def _of_execution(execution: Execution, event: Event, about: Notice) -> Notice:
    task, hook, ended, reason = "", "", execution.state, execution.reason
    match event:
        case w.ExecutionApprovalAsked():
            task, reason = event.task, event.question
        case w.ExecutionTaskEnded() if execution.stage is Stage.MAIN:
            task, hook, reason = event.task, "pre", ""
        case w.ExecutionTaskEnded():
            task, hook, ended, reason = event.task, "post", execution.result, execution.fault
        case _:
            pass
    return replace(
        about,
        namespace=execution.plan.spec.namespace,
        name=execution.workflow,
        actor=execution.actor,
        execution_id=execution.id,
        state=ended.name,
        reason=reason[:MAX_NOTICE_TEXT],
        task=task,
        hook=hook,
        started_ms=execution.started_ms,
        ended_ms=execution.ended_ms,
    )


def _of_job(state: State, job: Job, about: Notice) -> Notice:
    index = _telling_task(job)
    node = reason = ""
    if index is not None:
        records = attempt_records(state, job, index)
        active = job.attempt_of(index)
        if active is not None:
            node = active.node_id
        elif records:
            node = records[-1].node_id
            found = reason_of_end(records[-1], cancel_of(job, index))
            reason = found.text if found is not None else ""
    if not reason and job.state is TaskState.CANCELLED and job.cancel is not None:
        reason = words_of(job.cancel, "cancelled")
    if not reason and job.state is TaskState.DEADLINE_EXCEEDED:
        reason = "its deadline came"
    return replace(
        about,
        namespace=job.namespace,
        name=job.name,
        actor=job.actor,
        job_id=job.id,
        state=job.state.name,
        reason=reason[:MAX_NOTICE_TEXT],
        node=node,
        exit_code=job.exit_code,
        task=str(index) if index is not None and job.count > 1 else "",
        tasks=job.count,
        tasks_failed=sum(job.counts[each] for each in _FAILED_TASKS),
        started_ms=job.started_ms,
        ended_ms=job.ended_ms,
    )


def _telling_task(job: Job) -> int | None:
    """The first task that has failed, in the way that the job has; of a job that hasn't, the task if it is but one."""
    for state in (job.state, *_FAILED_TASKS):
        if state in _FAILED_TASKS and (index := job.phases.find(state)) >= 0:
            return index
    return 0 if job.count == 1 else None
