"""Preemption: which running tasks give their room to a job that may drive others out.

On one node, those whose loss costs the least: as few as possible, of them the ones of the lowest priority, of those the ones
that lose the least work, which is what they did since they began or last wrote down their progress. Never one of an equal or
higher priority. Room that is on its way already, because others there were told to stop, isn't asked for twice.

A gang goes whole: all of its tasks count as lost, on whatever nodes they run. An elastic job shrinks first; only if more is
needed than it can spare does it go whole, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from hasched.model.ids import JobId, NodeId, TaskIndex
from hasched.model.wire import AttemptKey
from hasched.scheduler.holds import Wanted, fits_all
from hasched.scheduler.slots import Slot
from hasched.statemachine.job import Job
from hasched.statemachine.relations import RelationKind, relations_of
from hasched.statemachine.rules.preemption import can_yield, may_preempt, whole
from hasched.statemachine.state import State

MOST_ATTEMPTS = 512  # a node with more isn't looked at: so many small tasks make no large hole

Cost: TypeAlias = tuple[int, int, int]  # attempts that are lost, the highest priority among them, and their work in ms
NOTHING: Cost = (0, 0, 0)


class Loss(NamedTuple):
    """What it costs to stop some attempts that stand or fall together; the smaller goes first.

    `attempts` counts those on other nodes as well, `indices` are the tasks here. Job and first task only tell equals apart.
    """

    attempts: int
    priority: int
    work_ms: int
    job_id: JobId
    indices: tuple[TaskIndex, ...]
    bound: bool  # whether all of the job goes with it


class Victims(NamedTuple):
    """`losses` are empty where enough room is on its way without any."""

    node_id: NodeId
    losses: tuple[Loss, ...]
    cost: Cost


class Ousting:
    """Who has to go for one winner, found node by node: what was chosen for one node is known for the next."""

    def __init__(self, state: State, winner: Job) -> None:
        self._state = state
        self._winner = winner
        self._leaving: dict[JobId, dict[TaskIndex, None]] = {}
        self._verdicts: dict[JobId, bool] = {}
        self._near = [each.whose for each in relations_of(winner) if each.kind is RelationKind.NEAR and not each.weight]
        self._bound: dict[JobId, tuple[int, int]] = {}  # how many of a gang or elastic job would stay, and their work

    def on(self, slot: Slot, wanted: Wanted) -> Victims | None:
        """The cheapest way to make room for these tasks on a node; None if there is none. Whoever isn't needed stays."""
        node, jobs = slot.node, self._state.jobs
        if len(node.attempts) > MOST_ATTEMPTS or not all(slot.could_hold(request) for request, _ in wanted):
            return None
        then = slot.copy()
        losses: list[Loss] = []
        together: dict[JobId, list[TaskIndex]] = {}
        for job_id, index in node.attempts:
            job = jobs[job_id]
            if not can_yield(job, index) or index in self._leaving.get(job_id, ()):
                then.give_back(job.request_of(index))
            elif self.may_take(job):
                if job.gang is None:
                    losses.append(Loss(1, job.priority, self._work_ms(job, index), job_id, (index,), False))
                else:
                    together.setdefault(job_id, []).append(index)
        for job_id, indices in together.items():
            losses += self._losses_of(jobs[job_id], indices)
        losses.sort()
        chosen: list[Loss] = []
        for loss in losses:
            if fits_all(then, wanted):
                break
            self._give_back(then, loss, 1)
            chosen.append(loss)
        if not fits_all(then, wanted):
            return None
        for loss in sorted(chosen, reverse=True):
            self._give_back(then, loss, -1)
            if fits_all(then, wanted):
                chosen.remove(loss)
            else:
                self._give_back(then, loss, 1)
        return Victims(node.id, tuple(chosen), self._cost_of(chosen))

    def may_take(self, job: Job) -> bool:
        """Whether a job may be driven out: one of lower priority, and none that the winner has to be near."""
        verdict = self._verdicts.get(job.id)
        if verdict is None:
            verdict = may_preempt(self._winner, job) and not any(whose.means(job) for whose in self._near)
            self._verdicts[job.id] = verdict
        return verdict

    def cleared(self, slot: Slot) -> Slot:
        """The node as it would be if everybody had gone who may be driven out, or who goes anyway."""
        then = slot.copy()
        for job_id, index in slot.node.attempts:
            job = self._state.jobs[job_id]
            if not can_yield(job, index) or self.may_take(job):
                then.give_back(job.request_of(index))
        return then

    def take(self, victims: Victims) -> list[NodeId]:
        """They go. Returns the other nodes on which somebody goes with them."""
        nodes: dict[NodeId, None] = {}
        for loss in victims.losses:
            job = self._state.jobs[loss.job_id]
            leaving = self._leaving.setdefault(loss.job_id, {})
            self._bound.pop(loss.job_id, None)
            for index in whole(job, [*leaving, *loss.indices]):
                if index not in leaving:
                    leaving[index] = None
                    active = job.attempt_of(index)
                    assert active is not None, "only active tasks go"
                    nodes[active.node_id] = None
        nodes.pop(victims.node_id, None)
        return list(nodes)

    def name(self, victims: Victims) -> Iterator[AttemptKey]:
        """Them, as a command names them; whoever goes with them goes by the rules."""
        for loss in victims.losses:
            for index in loss.indices:
                active = self._state.jobs[loss.job_id].attempt_of(index)
                assert active is not None, "it runs on the node"
                yield AttemptKey(loss.job_id, index, active.attempt)

    def _losses_of(self, job: Job, indices: list[TaskIndex]) -> Iterator[Loss]:
        """What it costs to take these tasks, all on one node, from a gang or an elastic job."""
        assert job.gang is not None, "a job whose tasks stand alone loses them one by one"
        staying, work_ms = self._staying(job)
        spare = 0 if job.gang.whole else max(staying - job.floor, 0)
        alone = sorted((self._work_ms(job, index), index) for index in indices)
        for lost_ms, index in alone[:spare]:
            yield Loss(1, job.priority, lost_ms, job.id, (index,), False)
        if len(alone) > spare:
            yield Loss(staying, job.priority, work_ms, job.id, tuple(index for _, index in alone[spare:]), True)

    def _staying(self, job: Job) -> tuple[int, int]:
        known = self._bound.get(job.id)
        if known is None:
            leaving = self._leaving.get(job.id, {})
            staying = [index for index in job.active_attempts or () if index not in leaving and can_yield(job, index)]
            work_ms = sum(self._work_ms(job, index) for index in staying)
            known = self._bound[job.id] = (len(staying), work_ms)
        return known

    def _cost_of(self, chosen: list[Loss]) -> Cost:
        if not chosen:
            return NOTHING
        bound = {loss.job_id: None for loss in chosen if loss.bound}
        counted = [loss for loss in chosen if loss.bound or loss.job_id not in bound]
        return (
            sum(loss.attempts for loss in counted),
            max(loss.priority for loss in counted),
            sum(loss.work_ms for loss in counted),
        )

    def _work_ms(self, job: Job, index: TaskIndex) -> int:
        """What an attempt that ends now has done for nothing."""
        active = job.attempt_of(index)
        assert active is not None, "only an active attempt can lose anything"
        if not active.started_ms:
            return 0
        return max(self._state.now_ms - max(active.started_ms, job.checkpoint_of(index)), 0)

    def _give_back(self, then: Slot, loss: Loss, times: int) -> None:
        job = self._state.jobs[loss.job_id]
        for index in loss.indices:
            then.take(job.request_of(index), -times)
