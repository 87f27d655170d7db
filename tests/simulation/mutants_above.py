"""Mutants above consensus: of the state machine, the leader's duties and the agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
from pysyncobj import syncobj

from hasched.agent.outbox import Outbox
from hasched.api.hub import AgentHub
from hasched.manager import schedules as duty
from hasched.manager.grace import GraceWatch
from hasched.manager.notifications.courier import Sent
from hasched.manager.notifications.duty import NotificationDuty
from hasched.model.schedule import gather
from hasched.raft import admission, core, driver, node
from hasched.raft.admission import Admission
from hasched.raft.changes import Changes, wanted_members
from hasched.raft.elections import Elections
from hasched.raft.engine import Engine
from hasched.raft.journal import NO_COMMAND
from hasched.raft.membership import Change, next_step
from hasched.statemachine.commands import Batch, PlanSlots, SubmitJob
from hasched.statemachine.events import JobSubmitted, SlotsPlanned
from hasched.statemachine.execution import Execution, Phase
from hasched.statemachine.outcomes import JobAccepted
from hasched.statemachine.rules import Decision, jobs, placement, releases, reports, schedules, workflows
from hasched.statemachine.schedules import Schedule
from hasched.statemachine.state import State
from hasched.statemachine.waits import Dependants
from tests.simulation.mutants import mutant
from tests.simulation.patches import Patches


@mutant("retry-applied-twice", "a submission id that is known is answered with its first outcome")
def _retry_applied_twice(patches: Patches) -> None:
    def decide_submit(state: State, command: SubmitJob) -> Decision:
        job_id = state.next_job_id
        return Decision(
            [JobSubmitted(job_id, command.submission_id, command.actor, command.spec)],
            JobAccepted(job_id, duplicate=False, log_index=state.index),
        )

    patches.set(jobs, "decide_submit", decide_submit)


@mutant("ids-not-in-snapshot", "the table of submission ids is part of the snapshot", profile="snapshots")
def _ids_not_in_snapshot(patches: Patches) -> None:
    def without_ids(restore: Any) -> Any:
        def restore_without_ids(chunks: Any) -> State:
            state = restore(chunks)
            state.submissions.clear()
            state.tombstones.clear()
            return state

        return restore_without_ids

    for module in (driver, node):
        patches.wrap(module, "restore", without_ids)


@mutant("set-order-in-apply", "apply iterates over no set: its order differs from process to process")
def _set_order_in_apply(patches: Patches) -> None:
    """A set of strings is ordered by a hash that every process seeds anew; here each state has a seed of its own."""
    seeds = count(1)

    def in_set_order(decide: Any) -> Any:
        def decide_in_set_order(state: State, asked: Any) -> Any:
            seed = vars(state).setdefault("hash_seed", next(seeds))
            order = sorted(asked.indices, key=lambda index: (index + 1) * (seed * 2654435761) % 4093)
            return decide(state, msgspec.structs.replace(asked, indices=tuple(order)))

        return decide_in_set_order

    patches.wrap(placement, "decide_placement", in_set_order)


@mutant("clock-in-apply", "apply reads no clock: time is part of the entry")
def _clock_in_apply(patches: Patches) -> None:
    def by_own_clock(apply: Any) -> Any:
        def apply_by_own_clock(state: State, index: int, batch: Batch) -> Any:
            now_ms = batch.now_ms + int(syncobj.monotonicTime() * 1000) % 7
            return apply(state, index, msgspec.structs.replace(batch, now_ms=now_ms))

        return apply_by_own_clock

    patches.wrap(core, "apply", by_own_clock)


@mutant("randomness-in-apply", "apply draws no random numbers")
def _randomness_in_apply(patches: Patches) -> None:
    """Each process has its own; so has each state here."""
    seeds = count(1)

    def skipping(add_job: Any) -> Any:
        def add_job_and_skip(self: State, *arguments: Any) -> Any:
            job = add_job(self, *arguments)
            seed = vars(self).setdefault("random_seed", next(seeds))
            self.next_job_id += (seed * job.id * 2654435761 >> 7) % 2
            return job

        return add_job_and_skip

    patches.wrap(State, "add_job", skipping)


@mutant(
    "old-log-skipped", "a field that is added later has a default, so that old entries are read", profile="snapshots"
)
def _old_log_skipped(patches: Patches) -> None:
    """The version that managers start with needs a field that the one before didn't write, and skips what lacks it.

    Entries are told apart by age: those that a manager reads back from its own journal were written before its upgrade.
    """

    def strict(open_core: Any) -> Any:
        def upgrade(self: Any, *arguments: Any, **named: Any) -> None:
            open_core(self, *arguments, **named)
            self.upgraded_at = self._journal[-1].index

        return upgrade

    def skipping(apply: Any) -> Any:
        def apply_or_skip(self: Any, entry: Any) -> None:
            if entry.index <= self.upgraded_at and b"priority" not in entry.data and b"submit_job" in entry.data:
                entry = entry._replace(data=NO_COMMAND)
            apply(self, entry)

        return apply_or_skip

    patches.wrap(core.Core, "__init__", strict)
    patches.wrap(core.Core, "_apply", skipping)


# --- membership ---


@mutant("two-changes-at-once", "23: one change of the membership at a time", profile="members-split")
def _two_changes_at_once(patches: Patches) -> None:
    """Nor is a change applied before the next, which alone would keep them apart too."""

    def advance(self: Changes, state: State, now: float) -> None:
        engine = self._engine
        if now >= self._due and engine.may_change_members and engine.applied_index >= engine.first_own_index:
            self._due = now + self._tuning.beat_s
            step = next_step(wanted_members(state), engine.membership, engine.selfNode.id, engine.standings())
            if isinstance(step, Change):
                engine.change_members(step.members)
            elif step is None:
                self._record_first(wanted_members(state))

    patches.set(
        Engine,
        "may_change_members",
        property(lambda self: self.is_leader and self.commit_index >= self.first_own_index),
    )
    patches.set(Changes, "advance", advance)


@mutant("removed-manager-disrupts", "who was removed is refused, and can't depose a leader", profile="members-steady")
def _removed_manager_disrupts(patches: Patches) -> None:
    """Pre-vote, which would stop it too, is undone with it."""

    def welcoming(judge: Any) -> Any:
        def judge_nobody(self: Admission, hello: Any) -> str:
            refusal = judge(self, hello)
            return "" if refusal == admission.NOT_A_MEMBER else refusal

        return judge_nobody

    def stand(self: Elections) -> bool:
        return self.voter

    patches.wrap(Admission, "judge", welcoming)
    patches.set(Elections, "_consider_election", stand)


# --- schedules ---


@mutant("gap-not-planned", "a leader plans from where the last plan ended", profile="schedules")
def _gap_not_planned(patches: Patches) -> None:
    """As with a timer that begins anew with every leader: what was due meanwhile is forgotten."""

    def hasty(plan_slots: Any) -> Any:
        def plan_from_now(schedule: Schedule, now_ms: int) -> PlanSlots | None:
            plan = plan_slots(schedule, now_ms)
            if plan is None or schedule.planned_ms >= now_ms:
                return plan
            runs = gather((slot, run.verdict) for run in plan.runs for slot in run.slots() if slot > now_ms)
            return msgspec.structs.replace(plan, runs=tuple(runs))

        return plan_from_now

    patches.wrap(duty, "plan_slots", hasty)


@mutant("planned-twice", "a plan counts only where the last one ended", profile="schedules")
def _planned_twice(patches: Patches) -> None:
    def decide_any_plan(state: State, command: PlanSlots) -> Decision:
        schedule = state.schedules.get(command.name)
        until_ms = max(command.until_ms, schedule.planned_ms if schedule is not None else 0)
        return Decision([SlotsPlanned(command.name, until_ms, command.runs)] if schedule is not None else [])

    patches.set(schedules, "decide_plan", decide_any_plan)


# --- dependencies ---


@mutant("any-end-will-do", "afterok waits for a success, and no other end", profile="dependencies")
def _any_end_will_do(patches: Patches) -> None:
    def lenient(judge: Any) -> Any:
        def judge_anything(state: State, job: Any, awaited: Any) -> bool | None:
            return None if judge(state, job, awaited) is None else True

        return judge_anything

    patches.wrap(releases, "judge", lenient)


@mutant("dependants-not-restored", "who waits for whom is found again from a snapshot", profile="dependencies")
def _dependants_not_restored(patches: Patches) -> None:
    def forgetting(restore: Any) -> Any:
        def restore_without_dependants(chunks: Any) -> State:
            state = restore(chunks)
            names, state.dependants = state.dependants.names, Dependants()
            state.dependants.names = names
            return state

        return restore_without_dependants

    for module in (driver, node):
        patches.wrap(module, "restore", forgetting)


# --- notifications ---


@mutant("outbox-not-in-snapshot", "what waits to be told is part of the snapshot", profile="notices")
def _outbox_not_in_snapshot(patches: Patches) -> None:
    def without_outbox(restore: Any) -> Any:
        def restore_without_outbox(chunks: Any) -> State:
            state = restore(chunks)
            for lane in state.outbox.lanes.values():
                lane.waiting.clear()
            return state

        return restore_without_outbox

    for module in (driver, node):
        patches.wrap(module, "restore", without_outbox)


@mutant("told-in-advance", "an attempt is reported when it has ended", profile="notices")
def _told_in_advance(patches: Patches) -> None:
    """As with a queue that is acknowledged when it is read: what a leader holds when it dies is lost."""

    def hasty(attempt: Any) -> Any:
        async def attempt_after_report(duty: NotificationDuty, messenger: Any, *more: Any) -> None:
            class Confident:
                async def send(self, *told: Any) -> Sent:
                    asyncio.get_running_loop().create_task(messenger.send(*told))
                    return Sent(True)

            await attempt(duty, Confident(), *more)

        return attempt_after_report

    patches.wrap(NotificationDuty, "_attempt", hasty)


# --- workflows ---


@mutant("condition-not-asked", "a task starts only if those before it have ended as it wants", profile="workflows")
def _condition_not_asked(patches: Patches) -> None:
    patches.set(workflows, "_is_met", lambda _when, _before: True)


def _restored_without(forget: Callable[[Execution], None]) -> Callable[[Any], Any]:
    def forgetting(restore: Any) -> Any:
        def restore_and_forget(chunks: Any) -> State:
            state = restore(chunks)
            for execution in state.executions.values():
                forget(execution)
                state.follow_execution(execution)
            return state

        return restore_and_forget

    return forgetting


@mutant("looks-not-in-snapshot", "what an execution has to do next is part of the snapshot", profile="workflows")
def _looks_not_in_snapshot(patches: Patches) -> None:
    def forget(execution: Execution) -> None:
        execution.looks, execution.blocked, execution.stops = [], [], []

    for module in (driver, node):
        patches.wrap(module, "restore", _restored_without(forget))


@mutant("outputs-not-in-snapshot", "what tasks have put out is part of the snapshot", profile="workflows")
def _outputs_not_in_snapshot(patches: Patches) -> None:
    def forget(execution: Execution) -> None:
        for row in execution.rows:
            row.outputs = None

    for module in (driver, node):
        patches.wrap(module, "restore", _restored_without(forget))


@mutant("made-again", "an instance that has a job gets no other", profile="workflows")
def _made_again(patches: Patches) -> None:
    """What has been made is known only to the leader that has made it: one that comes up makes it again."""

    def forget(execution: Execution) -> None:
        for number, row in enumerate(execution.rows):
            for instance, phase in enumerate(row.phases):
                if phase == Phase.MADE:
                    row.phases[instance] = Phase.UNMADE
                    execution.running -= 1
                    execution.look(number)
        execution.round += 1  # or the submission id would give it away

    for module in (driver, node):
        patches.wrap(module, "restore", _restored_without(forget))


# --- the leader's duties, and agents ---


@mutant("report-not-repeated", "an agent repeats its reports until they are acknowledged", profile="agents")
def _report_not_repeated(patches: Patches) -> None:
    def forgetting(open_session: Any) -> Any:
        def open_without_old_ends(self: Outbox, ends: Any, starts: Any, checkpoints: Any, now_ms: int) -> None:
            open_session(self, (), starts, checkpoints, now_ms)

        return open_without_old_ends

    patches.wrap(Outbox, "open", forgetting)


@mutant(
    "fence-not-checked",
    "only the attempt that is current decides about its task",
    profile="agents",
    seeds=100,
    likely=17,
)
def _fence_not_checked(patches: Patches) -> None:
    def unfenced(decide: Any) -> Any:
        def decide_for_current(state: State, node_id: str, report: Any) -> Any:
            job = state.jobs.get(report.job_id)
            active = job.attempt_of(report.index) if job is not None and report.index < job.count else None
            if active is not None and report.attempt < active.attempt:
                report = msgspec.structs.replace(report, attempt=active.attempt)
                node_id = active.node_id
            return decide(state, node_id, report)

        return decide_for_current

    patches.wrap(reports, "decide_report", unfenced)


@mutant("grace-not-fresh", "a new leader gives every node a fresh grace", profile="agents")
def _grace_not_fresh(patches: Patches) -> None:
    def heard(self: GraceWatch, node_id: str) -> float:
        return self._hub.last_seen(node_id) or 0.0

    def start_leading(self: AgentHub) -> None:
        self.leading = True

    patches.set(GraceWatch, "_heard", heard)
    patches.set(AgentHub, "start_leading", start_leading)
