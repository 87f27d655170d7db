"""Schedules and their slots. When the next is due beyond what is planned is the timetable's to say."""

from __future__ import annotations

from itertools import islice

from hasched.model.schedule import SlotOutcome
from hasched.model.schedule_views import PauseView, ScheduleView, SlotView
from hasched.statemachine.execution import Execution
from hasched.statemachine.job import Job
from hasched.statemachine.schedules import Row, Schedule, is_over, parent_of, submission_of
from hasched.statemachine.state import State

SHOWN_JOBS = 100


def show_schedule(state: State, schedule: Schedule, with_spec: bool) -> ScheduleView:
    """Without what needs a time zone: `when`, `next_local` and the like."""
    spec, pause = schedule.spec, schedule.pause
    last = next(iter(slot_rows(state, schedule, 1)), None)
    jobs = state.schedule_jobs.get(schedule.name, {})
    alerts = [word for word, holds in (("late", schedule.late), ("missing", schedule.missing)) if holds]
    over = is_over(schedule)
    return ScheduleView(
        name=schedule.name,
        state="over" if over else "paused" if pause is not None else "active",
        when="",
        timezone=spec.timezone,
        namespace=spec.namespace,
        actor=schedule.actor,
        created_ms=schedule.created_ms,
        changed_ms=schedule.changed_ms,
        log_index=schedule.revision,
        next_ms=next((each.slot_ms for each in schedule.pending if not each.verdict), 0),
        running=list(islice(reversed(jobs), SHOWN_JOBS)),
        executions=list(islice(reversed(state.schedule_executions.get(schedule.name, {})), SHOWN_JOBS)),
        waiting=len(schedule.waiting),
        counts={
            outcome.name.lower(): schedule.counts[outcome]
            for outcome in SlotOutcome
            if outcome < len(schedule.counts) and schedule.counts[outcome]
        },
        last=last,
        succeeded_ms=schedule.succeeded_ms,
        alerts=alerts,
        pause=None if pause is None else PauseView(actor=pause.actor, reason=pause.reason, since_ms=pause.since_ms),
        refusal=schedule.refusal,
        description=spec.description,
        spec=spec if with_spec else None,
    )


def slot_rows(state: State, schedule: Schedule, limit: int) -> list[SlotView]:
    """The latest rows of the ledger, the latest first."""
    rows = []
    for row in islice(schedule.ledger(), limit):
        job, execution = _run_of(state, schedule, row)
        gone = row.run_id if job is None and execution is None else 0
        of_workflow = schedule.spec.workflow is not None
        rows.append(
            SlotView(
                slot_ms=row.first_ms,
                local="",
                outcome=row.outcome.name.lower(),
                count=row.number,
                step_ms=row.step_ms,
                settled_ms=row.settled_ms,
                job_id=job.id if job is not None else (None if of_workflow else gone) or None,
                job_state=job.state.name if job is not None else "",
                execution_id=execution.id if execution is not None else (gone if of_workflow else None) or None,
                execution_state=execution.state.name.lower() if execution is not None else "",
            )
        )
    return rows


def _run_of(state: State, schedule: Schedule, row: Row) -> tuple[Job | None, Execution | None]:
    """The job or the execution of a slot, while there is one: jobs and executions are counted each by themselves."""
    parent = parent_of(schedule.name, row.first_ms)
    if (job := state.jobs.get(row.run_id)) is not None and job.parent == parent:
        return job, None
    number = row.run_id or state.execution_ids.get(submission_of(schedule.name, row.first_ms), 0)
    execution = state.executions.get(number)
    return None, execution if execution is not None and execution.parent == parent else None


def slots_to_come(schedule: Schedule, limit: int) -> list[SlotView]:
    """What waits for an earlier run, and what is planned."""
    waiting = [SlotView(slot_ms=each.slot_ms, local="", outcome="waiting") for each in schedule.waiting[:limit]]
    planned = schedule.pending[: limit - len(waiting)]
    return waiting + [SlotView(slot_ms=each.slot_ms, local="", outcome="planned") for each in planned]
