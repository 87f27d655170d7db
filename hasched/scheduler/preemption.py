"""Preemption: which running tasks give their room to a job that may drive others out.

On one node, those whose loss costs the least: as few as possible, of them the ones of the lowest priority, of those the ones
that lose the least work, which is what they did since they began or last wrote down their progress. Never one of an equal or
higher priority. Room that is on its way already, because others there were told to stop, isn't asked for twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hasched.model.ids import NodeId
from hasched.model.spec import Resources
from hasched.model.wire import AttemptKey
from hasched.scheduler.slots import Slot
from hasched.statemachine.job import Job
from hasched.statemachine.rules.preemption import can_yield, may_preempt
from hasched.statemachine.state import State

MOST_ATTEMPTS = 512  # a node with more isn't looked at: so many small tasks make no large hole


class Loss(NamedTuple):
    """What it costs to stop an attempt; the smaller goes first. The last two only tell equals apart."""

    priority: int
    work_ms: int
    job_id: int
    task: int


class Victims(NamedTuple):
    """`attempts` is empty where enough room is on its way without any."""

    node_id: NodeId
    attempts: tuple[AttemptKey, ...]
    priority: int  # the highest among them
    work_ms: int  # that is lost in all

    @property
    def cost(self) -> tuple[int, int, int]:
        return len(self.attempts), self.priority, self.work_ms


def lost_work_ms(state: State, job: Job, index: int) -> int:
    """What an attempt that ends now has done for nothing."""
    active = job.attempt_of(index)
    assert active is not None, "only an active attempt can lose anything"
    if not active.started_ms:
        return 0
    return max(state.now_ms - max(active.started_ms, job.checkpoint_of(index)), 0)


def choose_victims(state: State, winner: Job, request: Resources, slots: Iterable[Slot]) -> Victims | None:
    """The cheapest way to make room for one task of `winner` on one of these nodes; None if there is none."""
    best: Victims | None = None
    for slot in slots:
        found = victims_on(state, winner, request, slot)
        if found is not None and (best is None or found.cost < best.cost):
            best = found
            if not found.attempts:
                break
    return best


def victims_on(state: State, winner: Job, request: Resources, slot: Slot) -> Victims | None:
    """The cheapest way on this node. Whoever isn't needed after all, because others make room enough, stays."""
    node = slot.node
    if len(node.attempts) > MOST_ATTEMPTS or not slot.could_hold(request):
        return None
    then = slot.copy()
    losses: list[Loss] = []
    for job_id, index in node.attempts:
        job = state.jobs[job_id]
        if not can_yield(job, index):
            then.give_back(job.request_of(index))
        elif may_preempt(winner, job) and not job.is_gang:
            losses.append(Loss(job.priority, lost_work_ms(state, job, index), job_id, index))
    losses.sort()
    chosen: list[Loss] = []
    for loss in losses:
        if then.fits(request):
            break
        then.give_back(state.jobs[loss.job_id].request_of(loss.task))
        chosen.append(loss)
    if not then.fits(request):
        return None
    for loss in sorted(chosen, reverse=True):
        asked = state.jobs[loss.job_id].request_of(loss.task)
        then.take(asked, 1)
        if then.fits(request):
            chosen.remove(loss)
        else:
            then.give_back(asked)
    attempts = []
    for loss in sorted(chosen):
        active = state.jobs[loss.job_id].attempt_of(loss.task)
        assert active is not None, "it runs on the node"
        attempts.append(AttemptKey(loss.job_id, loss.task, active.attempt))
    priority = max((loss.priority for loss in chosen), default=winner.priority)
    return Victims(node.id, tuple(attempts), priority, sum(loss.work_ms for loss in chosen))


def without_lower(state: State, winner: Job, slot: Slot) -> Slot:
    """The node as it would be if everybody had gone whom `winner` may drive out, or who goes anyway."""
    then = slot.copy()
    for job_id, index in slot.node.attempts:
        job = state.jobs[job_id]
        if not can_yield(job, index) or (may_preempt(winner, job) and not job.is_gang):
            then.give_back(job.request_of(index))
    return then
