"""What agents are told: first the difference between what they have and what is committed, then every change.

Only committed facts are sent. A stream that opens is compared with the state in one step of the loop and live from then
on, so no change falls between the two; a message that is lost costs a new stream, where the comparison repeats.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec
import structlog
from aiohttp import WSCloseCode

from hasched.api.hub import AgentHub
from hasched.api.session import AgentSession
from hasched.model.ids import Attempt, AttemptId, JobId, NodeId, TaskIndex
from hasched.model.spec import Preemption
from hasched.model.states import EndKind, NodeState
from hasched.model.wire import (
    ATTEMPTS_A_FRAME,
    AttemptKey,
    Freeze,
    PackedAssign,
    PackedAssignment,
    Stop,
)
from hasched.raft.replica import Replica
from hasched.statemachine.apply import Applied
from hasched.statemachine.events import (
    GangBroken,
    JobCancelRequested,
    JobDeadlineExceeded,
    JobEnded,
    JobResumed,
    JobSuspended,
    NodeRemoved,
    NodeStateChanged,
    TasksPreempted,
    TasksScheduled,
)
from hasched.statemachine.job import Job
from hasched.statemachine.queries import desired_attempts, resumed_tasks, show_gang
from hasched.statemachine.rules.yields import words_of_yield

FULL_MESSAGE_BYTES = 1024 * 1024  # with one more job of the largest size a message still fits its frame
TASK_BYTES = 16  # at most, on the wire
RESUME_BYTES = 160  # likewise
NODE_BYTES = 256  # of a gang, likewise where its ranks have few gaps

log = structlog.get_logger(__name__)

Tasks: TypeAlias = tuple[tuple[TaskIndex, Attempt], ...]


class Dispatcher:
    """Turns committed facts into messages to the sessions of `hub`; on a manager without sessions it does nothing."""

    def __init__(self, replica: Replica, hub: AgentHub) -> None:
        self._replica = replica
        self._hub = hub
        replica.subscribe(self._dispatch)

    def reconcile(self, session: AgentSession, known: Iterable[AttemptKey]) -> None:
        """Stop what the agent shouldn't have, and send what it lacks; `known` is what its hello listed.

        In this order: what holds a GPU that was given away is known to be on its way out when the next one asks for it.
        """
        there = {AttemptId(key.job_id, key.index, key.attempt) for key in known}
        missing: dict[JobId, list[tuple[TaskIndex, int]]] = {}
        wanted: set[AttemptId] = set()
        stopping: list[AttemptKey] = []
        frozen: list[AttemptKey] = []
        thawed: list[AttemptKey] = []
        yielding: dict[JobId, list[AttemptKey]] = {}
        for each in desired_attempts(self._replica.state, session.node_id):
            attempt_id, key = AttemptId(*each[:3]), AttemptKey(*each[:3])
            wanted.add(attempt_id)
            if each.stopping:
                stopping.append(key)
                continue
            if each.yielding:
                yielding.setdefault(each.job_id, []).append(key)
                continue
            if attempt_id not in there:
                missing.setdefault(each.job_id, []).append((each.task_index, each.attempt))
            if each.frozen:
                frozen.append(key)
            elif attempt_id in there:
                thawed.append(key)
        _stop(session, [AttemptKey(*attempt) for attempt in sorted(there - wanted)], "it doesn't count any more")
        self._assign(session, ((job_id, tuple(tasks)) for job_id, tasks in missing.items()))
        _stop(session, stopping, "cancelled")
        for job_id, keys in yielding.items():
            self._warn(session, job_id, keys)
        _freeze(session, frozen, True)
        _freeze(session, thawed, False)
        session.live = True

    def _dispatch(self, applied: Applied) -> None:
        """Tell the agents what an applied entry means for them. If that fails, new streams put it right."""
        if not self._hub.sessions:
            return
        try:
            self._tell(applied)
        except Exception:
            log.exception("dispatch_failed", index=applied.index)
            for session in self._hub.sessions.values():
                session.close(WSCloseCode.INTERNAL_ERROR, "the manager failed; say hello again")

    def _tell(self, applied: Applied) -> None:
        """Assignments first. Suspension and cancelling are read from the state, where the last of several changes stands."""
        scheduled: dict[NodeId, list[tuple[JobId, Tasks]]] = {}
        for event in applied.events:
            if isinstance(event, TasksScheduled):
                tasks = tuple(zip(event.indices, event.attempts, strict=True))
                scheduled.setdefault(event.node_id, []).append((event.job_id, tasks))
        for node_id, work in scheduled.items():
            if (session := self._live(node_id)) is not None:
                self._assign(session, work)
        for event in applied.events:
            match event:
                case JobCancelRequested(job_id=job_id, reason=reason, stopping=stopping):
                    self._stop_tasks(job_id, stopping, reason or "cancelled")
                case TasksPreempted(job_id=job_id, indices=indices):
                    self._warn_tasks(job_id, indices)
                case JobDeadlineExceeded(job_id=job_id, stopping=stopping):
                    self._stop_tasks(job_id, stopping, "the job's deadline has come")
                case GangBroken(job_id=job_id, stopping=stopping, reason=reason):
                    self._stop_tasks(job_id, stopping, reason)
                    self._warn_tasks(job_id, stopping)
                case JobSuspended(job_id=job_id) | JobResumed(job_id=job_id):
                    self._freeze_job(job_id)
                case JobEnded(job_id=job_id):
                    self._forget_spec(job_id)
                case NodeStateChanged(node_id=node_id, state=NodeState.DISCONNECTED):
                    self._cut(node_id, "declared disconnected; say hello again")
                case NodeRemoved(node_id=node_id):
                    self._cut(node_id, "removed; say hello again")
                case _:
                    pass

    def _live(self, node_id: NodeId) -> AgentSession | None:
        session = self._hub.sessions.get(node_id)
        return session if session is not None and session.live else None

    def _job(self, job_id: JobId) -> Job | None:
        return self._replica.state.jobs.get(job_id)

    def _assign(self, session: AgentSession, work: Iterable[tuple[JobId, Tasks]]) -> None:
        """Assign tasks, in as few messages as fit. A job of one task is not noted in `specs_sent`: it would only fill it."""
        assignments: list[PackedAssignment] = []
        size = 0
        for job_id, tasks in work:
            job = self._job(job_id)
            if job is None:
                continue
            if size >= FULL_MESSAGE_BYTES:
                session.send(PackedAssign(tuple(assignments)))
                assignments, size = [], 0
            known = job_id in session.specs_sent
            spec = None if known else msgspec.Raw(job.packed_spec)
            resumes = tuple(resumed_tasks(job, [index for index, _ in tasks]))
            gang = show_gang(self._replica.state, job)
            chosen = job.choices or {}
            choices = tuple((index, chosen[index]) for index, _ in tasks if index in chosen) if chosen else ()
            assignments.append(PackedAssignment(job_id, spec, tasks, resumes, gang, choices))
            size += (
                TASK_BYTES * (len(tasks) + len(choices))
                + RESUME_BYTES * len(resumes)
                + (0 if known else len(job.packed_spec))
            )
            size += NODE_BYTES * len(gang.nodes) if gang is not None else 0
            if job.count > 1:
                session.specs_sent.add(job_id)
        if assignments:
            session.send(PackedAssign(tuple(assignments)))

    def _stop_tasks(self, job_id: JobId, indices: tuple[TaskIndex, ...], reason: str) -> None:
        job = self._job(job_id)
        if job is None:
            return
        by_node: dict[NodeId, list[AttemptKey]] = {}
        for index in indices:
            active = job.attempt_of(index)
            if active is not None and active.stopping:
                by_node.setdefault(active.node_id, []).append(AttemptKey(job_id, index, active.attempt))
        for node_id, keys in by_node.items():
            if (session := self._live(node_id)) is not None:
                _stop(session, keys, reason)

    def _warn_tasks(self, job_id: JobId, indices: tuple[TaskIndex, ...]) -> None:
        job = self._job(job_id)
        if job is None:
            return
        by_node: dict[NodeId, list[AttemptKey]] = {}
        for index in indices:
            active = job.attempt_of(index)
            if active is not None and not active.stopping and job.yield_of(index) is not None:
                by_node.setdefault(active.node_id, []).append(AttemptKey(job_id, index, active.attempt))
        for node_id, keys in by_node.items():
            if (session := self._live(node_id)) is not None:
                self._warn(session, job_id, keys)

    def _warn(self, session: AgentSession, job_id: JobId, keys: list[AttemptKey]) -> None:
        """Stop attempts whose tasks start again, as their job wants to be told. All have the same reason, or nearly so.

        What is left of a broken gang needs no warning: it can't go on, and what it could save its next run can't use.
        """
        job = self._job(job_id)
        note = job.yield_of(keys[0].index) if job is not None else None
        if job is not None and note is not None:
            how = job.spec.preemption if note.kind is EndKind.PREEMPTED else Preemption()
            session.send(Stop(tuple(keys), words_of_yield(note), how.signal.value, how.warning_ms))

    def _freeze_job(self, job_id: JobId) -> None:
        job = self._job(job_id)
        if job is None or job.active_attempts is None:
            return
        by_node: dict[NodeId, list[AttemptKey]] = {}
        for index, active in job.active_attempts.items():
            if not active.stopping and job.yield_of(index) is None:
                by_node.setdefault(active.node_id, []).append(AttemptKey(job_id, index, active.attempt))
        for node_id, keys in by_node.items():
            if (session := self._live(node_id)) is not None:
                _freeze(session, keys, job.suspended)

    def _forget_spec(self, job_id: JobId) -> None:
        job = self._job(job_id)
        if job is None or job.count > 1:
            for session in self._hub.sessions.values():
                session.specs_sent.discard(job_id)

    def _cut(self, node_id: NodeId, reason: str) -> None:
        session = self._hub.sessions.get(node_id)
        if session is not None:
            session.close(WSCloseCode.TRY_AGAIN_LATER, reason)


def _stop(session: AgentSession, keys: list[AttemptKey], reason: str) -> None:
    for at in range(0, len(keys), ATTEMPTS_A_FRAME):
        session.send(Stop(tuple(keys[at : at + ATTEMPTS_A_FRAME]), reason))


def _freeze(session: AgentSession, keys: list[AttemptKey], frozen: bool) -> None:
    if keys:
        session.send(Freeze(tuple(keys), frozen))
