"""A rehearsal: the cluster as it would go on, on a state of one's own, by the planner and the state machine that run it.

Nothing here is a model of scheduling: what is rehearsed is planned by `Planner` and applied by `apply`. Only two things are
assumed: how long tasks run (`durations.py`), and that all of them succeed. Time is a number that jumps from one end or
deadline to the next. The same state and assumptions give the same rehearsal.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from hasched.model.ids import JobId, NodeId, TaskIndex
from hasched.model.states import EndKind, PlacementPolicy
from hasched.model.wire import AttemptEnded, AttemptReport
from hasched.scheduler.durations import Durations
from hasched.scheduler.planner import Planner
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import BATCH_VERSION, Batch, Command, ReportAttempts, StepClock
from hasched.statemachine.events import (
    GangBroken,
    JobCancelRequested,
    JobDeadlineExceeded,
    NodeDrainExpired,
    TasksPreempted,
    TasksScheduled,
)
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.state import State

SLICE_UNITS = 256  # as the leader plans: where a slice ends may decide between equal nodes
MOST_FRUITLESS = 100
MOST_STARTS = 300_000  # of tasks in one rehearsal, so that it ends before patience does


class _End(NamedTuple):
    """Tasks of a job that started together on a node, and so end together."""

    end_ms: int
    number: int  # of the start, so that equal ends come in the order of their starts
    node_id: NodeId
    job_id: JobId
    tasks: tuple[tuple[TaskIndex, int], ...]  # (index, attempt)
    kind: EndKind


class Rehearsal:
    """Takes over `state`, which must be nobody else's. `on_start` and `on_preemption` hear of what is decided."""

    def __init__(
        self,
        state: State,
        now_ms: int,
        *,
        policy: PlacementPolicy = PlacementPolicy.BIN_PACK,
        reachable: Container[NodeId] | None = None,
        on_start: Callable[[int, TasksScheduled], None] = lambda now_ms, event: None,
        on_preemption: Callable[[int, TasksPreempted], None] = lambda now_ms, event: None,
    ) -> None:
        self.state = state
        self.now_ms = max(now_ms, state.now_ms)
        self.durations = Durations(state)
        self.endless = 0  # attempts of which nobody knows when they end
        self.starts = 0
        self.planner = Planner(policy, reachable)
        self._on_start = on_start
        self._on_preemption = on_preemption
        self._begun = False
        self._ends: list[_End] = []
        self._numbers = 0
        for job in state.jobs.values():
            for index, active in sorted((job.active_attempts or {}).items()):
                if active.stopping or job.yield_of(index) is not None:
                    self._stop([(job.id, index)])
                    continue
                started_ms = active.started_ms or active.scheduled_ms
                end_ms = self.durations.end_of(job, started_ms, self.now_ms)
                self._expect(end_ms, active.node_id, job.id, ((index, active.attempt),))

    def begin(self) -> None:
        """Index what waits, once every change to the state has been made that is to be rehearsed."""
        for _ in self.planner.rebuild(self.state):
            pass
        self._begun = True

    def do(self, *commands: Command) -> Applied:
        """One entry, now."""
        applied = apply(self.state, self.state.index + 1, Batch(BATCH_VERSION, self.now_ms, list(commands)))
        assert not applied.faults, applied.faults
        if self._begun:
            self.planner.observe(self.state, applied)
        for event in applied.events:
            if isinstance(event, JobCancelRequested | JobDeadlineExceeded | GangBroken):
                self._stop((event.job_id, index) for index in event.stopping)
            elif isinstance(event, TasksPreempted):
                self._on_preemption(self.now_ms, event)
                self._stop((event.job_id, index) for index in event.indices)
            elif isinstance(event, NodeDrainExpired):
                self._stop(list(self.state.nodes[event.node_id].attempts))
        return applied

    def settle(self) -> None:
        """Start whatever may start now."""
        fruitless = 0  # proposals in a row that came to nothing
        while self.planner.ready and self.starts < MOST_STARTS and fruitless < MOST_FRUITLESS:
            plan = self.planner.plan(self.state, SLICE_UNITS)
            if plan is None:
                continue
            applied = self.do(plan)
            self.planner.settle(self.state, plan)
            self._take_starts(applied)
            fruitless = 0 if applied.events else fruitless + 1

    def advance(self, until_ms: int) -> bool:
        """Go on to the next moment at which something happens, and let it happen. False: nothing does up to `until_ms`."""
        deadline_ms = next_deadline(self.state)
        moments = [self._ends[0].end_ms] if self._ends else []
        if deadline_ms is not None:
            moments.append(deadline_ms)
        if not moments or min(moments) > until_ms or self.starts >= MOST_STARTS:
            return False
        self.now_ms = max(self.now_ms, min(moments))
        while self._ends and self._ends[0].end_ms <= self.now_ms:
            self._end(heapq.heappop(self._ends))
        if deadline_ms is not None and deadline_ms <= self.now_ms:
            self.do(StepClock())
        self.settle()
        return True

    @property
    def exhausted(self) -> bool:
        """Whether it ended for its own length, and not because nothing happens any more."""
        return self.starts >= MOST_STARTS

    def _take_starts(self, applied: Applied) -> None:
        """Expect their ends. That the agents report the starts first changes nothing that is decided by."""
        for event in applied.events:
            if isinstance(event, TasksScheduled):
                self.starts += len(event.indices)
                self._on_start(self.now_ms, event)
                tasks = tuple(zip(event.indices, event.attempts, strict=True))
                duration_ms = self.durations.of(self.state.jobs[event.job_id]).duration_ms
                self._expect(duration_ms and self.now_ms + duration_ms, event.node_id, event.job_id, tasks)

    def _stop(self, tasks: Iterable[tuple[JobId, TaskIndex]]) -> None:
        """They were told to stop, and take all the grace they have."""
        for job_id, index in tasks:
            job = self.state.jobs[job_id]
            active = job.attempt_of(index)
            assert active is not None, "only active tasks are told to stop"
            spec = job.spec
            warned_ms = spec.preemption.warning_ms if job.yield_of(index) is not None and not active.stopping else 0
            end_ms = self.now_ms + warned_ms + spec.kill_grace_ms
            self._expect(end_ms, active.node_id, job_id, ((index, active.attempt),), EndKind.STOPPED)

    def _expect(
        self,
        end_ms: int,
        node_id: NodeId,
        job_id: JobId,
        tasks: tuple[tuple[TaskIndex, int], ...],
        kind: EndKind = EndKind.EXITED,
    ) -> None:
        if not end_ms:
            self.endless += len(tasks)
            return
        self._numbers += 1
        heapq.heappush(self._ends, _End(end_ms, self._numbers, node_id, job_id, tasks, kind))

    def _end(self, end: _End) -> None:
        """What still runs of these tasks ends as expected."""
        job = self.state.jobs.get(end.job_id)
        if job is None:
            return
        code = job.success_exit_codes[0] if end.kind is EndKind.EXITED else 0
        reports: list[AttemptReport] = []
        for index, attempt in end.tasks:
            active = job.attempt_of(index)
            if active is not None and active.attempt == attempt:
                started_ms = active.started_ms or active.scheduled_ms
                reports.append(AttemptEnded(job.id, index, attempt, started_ms, self.now_ms, end.kind, code))
        if reports:
            self.do(ReportAttempts(node_id=end.node_id, reports=tuple(reports)))
