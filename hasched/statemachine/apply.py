"""`apply`: the only way into the state.

Every command of a log entry is decided and then performed, in order, each seeing what those before it did. A plan and a
batch of reports are decided piece by piece, for their pieces stand or fall alone.

A decision that raises is a fault of ours: as it has written nothing, its command is refused as `internal` on every
manager alike, and reported in `Applied.faults` to be counted and alarmed. An `evolve` that raises leaves a state
that nobody can vouch for: the exception passes through, and the manager stops.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from hasched.model.policy import PolicyKind
from hasched.model.wire import AttemptKey
from hasched.statemachine import commands as c
from hasched.statemachine import events as e
from hasched.statemachine import notification_events as n
from hasched.statemachine import workflow_events as w
from hasched.statemachine.events import Event
from hasched.statemachine.outcomes import Outcome, PlanTaken, Rejected, ReportsTaken
from hasched.statemachine.rules import (
    Decision,
    clock,
    deadlines,
    dependencies,
    ends,
    executions,
    gangs,
    jobs,
    managers,
    node_control,
    nodes,
    notifications,
    origin,
    placement,
    policies,
    preemption,
    reports,
    schedules,
    slots,
    templates,
    updates,
    workflow_progress,
)
from hasched.statemachine.rules.planned import PLANS_KEPT_SINCE, outdates_plans
from hasched.statemachine.state import State

_LOCAL_FAILURES = (MemoryError, RecursionError)  # of this process, not of the command: other managers don't share them


class Applied(msgspec.Struct, frozen=True):
    """One log entry that was just applied: `events` of all its commands, in order; `faults` are bugs that were contained."""

    index: int
    now_ms: int
    outcomes: list[Outcome]
    events: list[Event]
    faults: list[str] = []


def apply(state: State, index: int, batch: c.Batch) -> Applied:
    """Advance `state` by the log entry at `index`. Time never runs backwards, whatever the leaders' clocks do."""
    state.index, state.entry_version = index, batch.v
    state.now_ms = max(state.now_ms, batch.now_ms)
    events: list[Event] = []
    faults: list[str] = []
    outcomes = [_apply_command(state, command, events, faults) for command in batch.commands]
    return Applied(index, state.now_ms, outcomes, events, faults)


def _apply_command(state: State, command: c.Command, events: list[Event], faults: list[str]) -> Outcome:
    if isinstance(command, c.ReportAttempts):
        return _take_reports(state, command, events, faults)
    if isinstance(command, c.PlacePlan):
        return _take_plan(state, command, events, faults)
    try:
        decision = _decide(state, command, len(events))
    except _LOCAL_FAILURES:
        raise
    except Exception as error:
        fault = _describe(command, error)
        faults.append(fault)
        return Rejected("internal", fault, "this is a bug in hasched; please report it")
    if isinstance(decision, Rejected):
        return decision
    _perform(state, command, decision.events, events, faults)
    return decision.outcome


def _perform(state: State, command: c.Command, happened: list[Event], events: list[Event], faults: list[str]) -> None:
    """What was decided happens, and who wants to be told of it will be."""
    notified = state.policies[PolicyKind.NOTIFICATION]
    for event in happened:
        evolve(state, event)
        events.append(event)
        if notified:
            _notify(state, command, event, events, faults)


def _notify(state: State, command: c.Command, event: Event, events: list[Event], faults: list[str]) -> None:
    try:
        notices = notifications.decide_notices(state, event, len(events) - 1)
    except _LOCAL_FAILURES:
        raise
    except Exception as error:  # nobody is told, but what has happened has
        faults.append(_describe(command, error))
        return
    for notice in notices:
        evolve(state, notice)
    events += notices


def _decide(state: State, command: c.Command, number: int) -> Decision | Rejected:
    """Reads only. `number`: of the first event that is decided, in its entry."""
    match command:
        case c.SubmitJob():
            return jobs.decide_submit(state, command)
        case c.CancelJob():
            return jobs.decide_cancel(state, command)
        case c.SuspendJob():
            return jobs.decide_suspend(state, command)
        case c.ResumeJob():
            return jobs.decide_resume(state, command)
        case c.UpdateJob():
            return updates.decide_update(state, command)
        case c.DeleteJob():
            return jobs.decide_delete(state, command)
        case c.RegisterNode():
            return nodes.decide_register(state, command)
        case c.SetNodeState():
            return nodes.decide_set_state(state, command)
        case c.WatchNodes():
            return nodes.decide_watch(state, command)
        case c.RemoveNode():
            return nodes.decide_remove(state, command)
        case c.SetNodeEligibility():
            return node_control.decide_eligibility(state, command)
        case c.DrainNode():
            return node_control.decide_drain(state, command)
        case c.UndrainNode():
            return node_control.decide_undrain(state, command)
        case c.QuarantineNode():
            return node_control.decide_quarantine(state, command)
        case c.EndQuarantine():
            return node_control.decide_end_quarantine(state, command)
        case c.SetNodeProperties():
            return node_control.decide_properties(state, command)
        case c.RecordOrigin():
            return origin.decide_record(state, command)
        case c.RecordManagers():
            return managers.decide_record(state, command)
        case c.AddManager():
            return managers.decide_add(state, command)
        case c.RemoveManager():
            return managers.decide_remove(state, command)
        case c.PutPolicy():
            return policies.decide_put(state, command)
        case c.DeletePolicy():
            return policies.decide_delete(state, command)
        case c.PutSchedule():
            return schedules.decide_put(state, command)
        case c.DeleteSchedule():
            return schedules.decide_delete(state, command)
        case c.PauseSchedule():
            return schedules.decide_pause(state, command)
        case c.ResumeSchedule():
            return schedules.decide_resume(state, command)
        case c.PlanSlots():
            return schedules.decide_plan(state, command)
        case c.BackfillSchedule():
            return schedules.decide_backfill(state, command)
        case c.PlaceGang():
            return gangs.decide_gang(state, command)
        case c.PreemptAttempts():
            return preemption.decide_attempts(state, command)
        case c.PreemptTasks():
            return preemption.decide_tasks(state, command)
        case c.PutTemplate():
            return templates.decide_put(state, command)
        case c.DeleteTemplate():
            return templates.decide_delete(state, command)
        case c.StartExecution():
            return executions.decide_start(state, command)
        case c.CancelExecution():
            return executions.decide_cancel(state, command)
        case c.RetryExecution():
            return executions.decide_retry(state, command)
        case c.DecideApproval():
            return executions.decide_approval(state, command)
        case c.DeleteExecution():
            return executions.decide_delete(state, command)
        case c.SettleDeliveries():
            return notifications.decide_settle(state, command, number)
        case c.RetryNotifications():
            return notifications.decide_retry(state, command)
        case c.TryNotification():
            return notifications.decide_test(state, command, number)
        case c.ForgetMemos():
            return executions.decide_forget(state, command)
        case c.StepClock():
            return clock.decide_step(state)
        case c.PlacePlan() | c.ReportAttempts():
            raise AssertionError("these are decided piece by piece")
        case _:
            assert_never(command)


def _take_reports(state: State, command: c.ReportAttempts, events: list[Event], faults: list[str]) -> ReportsTaken:
    refused: list[AttemptKey] = []
    for report in command.reports:
        try:
            happened, counts = reports.decide_report(state, command.node_id, report)
        except _LOCAL_FAILURES:
            raise
        except Exception as error:
            faults.append(_describe(command, error))
            happened, counts = [], False
        _perform(state, command, happened, events, faults)
        if not counts:
            refused.append(AttemptKey(report.job_id, report.index, report.attempt))
    return ReportsTaken(tuple(refused))


def _take_plan(state: State, command: c.PlacePlan, events: list[Event], faults: list[str]) -> PlanTaken:
    asked = scheduled = 0
    for one in command.placements:
        asked += len(one.indices)
        try:
            event = placement.decide_placement(state, one)
        except _LOCAL_FAILURES:
            raise
        except Exception as error:
            faults.append(_describe(command, error))
            continue
        if event is not None:
            evolve(state, event)
            events.append(event)
            scheduled += len(event.indices)
    return PlanTaken(scheduled, asked - scheduled)


def _describe(command: c.Command, error: Exception) -> str:
    return f"{type(command).__name__} at decide: {type(error).__name__}: {error}"


def evolve(state: State, event: Event) -> None:
    """The only writer."""
    if state.entry_version >= PLANS_KEPT_SINCE and outdates_plans(event):
        state.plan_index = state.index
    match event:
        case e.AttemptEnded():
            ends.evolve_attempt_ended(state, event)
        case e.JobEnded():
            jobs.evolve_ended(state, event)
            job = state.jobs[event.job_id]
            workflow_progress.evolve_over(
                state, job.parent, workflow_progress.over_of_job(job, event.state, state.entry_version)
            )
            slots.note_end(state, job)
        case e.TasksScheduled():
            placement.evolve_scheduled(state, event)
        case e.JobSubmitted():
            jobs.evolve_submitted(state, event)
            workflow_progress.evolve_made(state, event.parent, event.job_id)
        case e.AttemptStarted():
            reports.evolve_started(state, event)
        case e.JobDeleted() | e.JobExpired():
            jobs.evolve_gone(state, event)
        case e.JobCancelRequested():
            jobs.evolve_cancel_requested(state, event)
        case e.SlotFired():
            slots.evolve_fired(state, event)
        case e.AttemptCheckpointed():
            reports.evolve_checkpointed(state, event)
        case e.GangScheduled():
            gangs.evolve_scheduled(state, event)
        case e.GangBroken():
            gangs.evolve_broken(state, event)
        case e.GangReopened():
            gangs.evolve_reopened(state, event)
        case e.GangShrunk():
            gangs.evolve_shrunk(state, event)
        case e.TasksPreempted():
            preemption.evolve_preempted(state, event)
        case e.JobSuspended():
            jobs.evolve_suspended(state, event)
        case e.JobResumed():
            jobs.evolve_resumed(state, event)
        case e.JobUpdated():
            updates.evolve_updated(state, event)
        case e.JobDue():
            deadlines.evolve_due(state, event)
        case e.JobDeadlineExceeded():
            deadlines.evolve_exceeded(state, event)
        case e.TasksEligible():
            ends.evolve_eligible(state, event)
        case e.DependencyMet():
            dependencies.evolve_met(state, event)
        case e.DependencyBroken():
            dependencies.evolve_broken(state, event)
        case e.DependencyTimed():
            dependencies.evolve_timed(state, event)
        case e.TasksReleased():
            dependencies.evolve_released(state, event)
        case e.LateReportRefused():
            reports.evolve_late_report(state, event)
        case e.NodeRegistered():
            nodes.evolve_registered(state, event)
        case e.NodeStateChanged():
            nodes.evolve_state_changed(state, event)
        case e.NodeRemoved():
            nodes.evolve_removed(state, event)
        case e.NodeCordoned():
            node_control.evolve_cordoned(state, event)
        case e.NodeUncordoned():
            node_control.evolve_uncordoned(state, event)
        case e.NodeDrainStarted():
            node_control.evolve_drain_started(state, event)
        case e.NodeDrainExpired():
            node_control.evolve_drain_expired(state, event)
        case e.NodeDrained():
            pass  # it says what the node's attempts say
        case e.NodeUndrained():
            node_control.evolve_undrained(state, event)
        case e.NodeQuarantined():
            node_control.evolve_quarantined(state, event)
        case e.NodeOnProbation():
            node_control.evolve_on_probation(state, event)
        case e.NodeQuarantineEnded():
            node_control.evolve_quarantine_ended(state, event)
        case e.NodePropertiesSet():
            node_control.evolve_properties(state, event)
        case e.OriginRecorded():
            origin.evolve_recorded(state, event)
        case e.ManagersRecorded():
            managers.evolve_recorded(state, event)
        case e.ManagerAdded():
            managers.evolve_added(state, event)
        case e.ManagerRemoved():
            managers.evolve_removed(state, event)
        case e.PolicyChanged():
            policies.evolve_changed(state, event)
        case e.PolicyDeleted():
            policies.evolve_deleted(state, event)
        case w.TemplatePut():
            templates.evolve_put(state, event)
        case w.TemplateDeleted():
            templates.evolve_deleted(state, event)
        case w.MemosForgotten():
            executions.evolve_forgotten(state, event)
        case w.ExecutionStarted():
            workflow_progress.evolve_started(state, event)
        case w.ExecutionDeleted() | w.ExecutionExpired():
            workflow_progress.evolve_gone(state, event)
        case (
            w.ExecutionTaskStarted()
            | w.ExecutionApprovalAsked()
            | w.ExecutionApprovalDecided()
            | w.ExecutionMemoAsked()
            | w.ExecutionMemoRecalled()
            | w.ExecutionInstancesJudged()
            | w.ExecutionTaskEnded()
            | w.ExecutionInstancesStopped()
            | w.ExecutionStaged()
            | w.ExecutionDelayed()
            | w.ExecutionStopRequested()
            | w.ExecutionRetried()
            | w.ExecutionAdvanced()
            | w.ExecutionEnded()
        ):
            workflow_progress.evolve_execution(state, event)
            if isinstance(event, w.ExecutionEnded):
                slots.note_execution_end(state, state.executions[event.execution_id])
        case e.SchedulePut():
            schedules.evolve_put(state, event)
        case e.ScheduleDeleted():
            schedules.evolve_deleted(state, event)
        case e.SchedulePaused():
            schedules.evolve_paused(state, event)
        case e.ScheduleResumed():
            schedules.evolve_resumed(state, event)
        case e.SlotsPlanned():
            schedules.evolve_planned(state, event)
        case e.SlotsSkipped():
            slots.evolve_skipped(state, event)
        case e.SlotsQueued():
            slots.evolve_queued(state, event)
        case e.ScheduleLate():
            slots.evolve_late(state, event)
        case e.ScheduleMissing():
            slots.evolve_missing(state, event)
        case n.NotificationQueued():
            notifications.evolve_queued(state, event)
        case n.NotificationDropped():
            notifications.evolve_dropped(state, event)
        case n.NotificationDelivered() | n.NotificationFailed():
            notifications.evolve_ended(state, event)
        case n.NotificationDelayed():
            notifications.evolve_delayed(state, event)
        case n.NotificationRetried():
            notifications.evolve_retried(state, event)
        case n.NotificationsDiscarded():
            pass  # it goes with its policy
        case e.WatchStarted():
            nodes.evolve_watch(state, event)
        case e.WeekBegan():
            clock.evolve_week(state, event)
        case e.SubmissionsForgotten():
            clock.evolve_forgotten(state, event)
        case e.ClockStepped():
            clock.evolve_stepped(state)
        case _:
            assert_never(event)
