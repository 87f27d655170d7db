"""Releases: what a step of the clock makes of jobs that wait for others.

Whom the step looks at is a hint (`Dependants.stirred`), what it decides is a matter of the state alone: a job about which
nothing is to be decided makes no event and counts for nothing. So a manager that was restored decides as all others do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from hasched.model.dependency import format_condition
from hasched.model.spec import Condition
from hasched.model.states import ConditionKind, OnBrokenDependency, TaskState
from hasched.statemachine.commands import CancelJob
from hasched.statemachine.events import (
    DependencyBroken,
    DependencyMet,
    DependencyTimed,
    Event,
    JobCancelRequested,
    JobDeadlineExceeded,
    JobEnded,
    TasksReleased,
)
from hasched.statemachine.job import IN_BACKOFF, Job
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.rules import jobs
from hasched.statemachine.rules.deadlines import passed
from hasched.statemachine.rules.dependencies import due_of, judge, peers_of
from hasched.statemachine.state import State
from hasched.statemachine.waits import ACTOR, NEVER, Awaited, Stir, Waits

MAX_LOOKED_AT_PER_STEP = 1000  # jobs; what is left over is due at once, in the next step
MAX_TASKS_PER_STEP = 5000
MAX_CONDITIONS_PER_STEP = 10_000  # that are decided
DECIDED_COUNTED_SINCE = 4  # the version of entries; before, all counted that these jobs waited for

_HELD = bytes(phase == IN_BACKOFF for phase in range(256))
_FINAL = bytes(phase >= TaskState.SUCCEEDED and phase != IN_BACKOFF for phase in range(256))
_FAILED = bytes(phase > TaskState.SUCCEEDED and phase != IN_BACKOFF for phase in range(256))
_NOTHING = Stir()


def next_due(state: State) -> list[int]:
    """When a step has to be made for those that wait."""
    dependants = state.dependants
    return [state.now_ms] if dependants.stirred else [dependants.timers[0][0]] if dependants.timers else []


def decide_due(state: State, before: Iterable[Event]) -> list[Event]:
    """`before` is what else the step does, first: what that ends is left alone."""
    ending = (JobCancelRequested, JobDeadlineExceeded, JobEnded)
    ended = {event.job_id: None for event in before if isinstance(event, ending)}
    found: list[Event] = []
    jobs_left, tasks_left, conditions_left = MAX_LOOKED_AT_PER_STEP, MAX_TASKS_PER_STEP, MAX_CONDITIONS_PER_STEP
    timed = {job_id: None for _, job_id in passed(state.dependants.timers, state.now_ms)}
    for job_id in sorted(dict.fromkeys([*state.dependants.stirred, *timed])):
        if job_id in ended:
            continue
        events = list(decide_one(state, job_id, tasks_left, timed=job_id in timed))
        if not events:
            continue
        found += events
        jobs_left -= 1
        conditions_left -= _conditions_of(state, job_id, events)
        tasks_left -= sum(
            len(event.indices) for event in events if isinstance(event, TasksReleased | JobCancelRequested)
        )
        if jobs_left <= 0 or tasks_left <= 0 or conditions_left <= 0:
            break
    return found


def _conditions_of(state: State, job_id: int, events: Iterable[Event]) -> int:
    """For how many conditions these events count."""
    if state.entry_version < DECIDED_COUNTED_SINCE:
        return _open_of(state, job_id)
    return sum(
        1 if isinstance(event, DependencyTimed) else len(event.conditions)
        for event in events
        if isinstance(event, DependencyTimed | DependencyMet | DependencyBroken)
    )


def _open_of(state: State, job_id: int) -> int:
    """How many conditions it waits for."""
    job = state.jobs.get(job_id)
    return len(job.waits.open) if job is not None and job.waits is not None else 0


def decide_one(state: State, job_id: int, most: int = MAX_TASKS_PER_STEP, *, timed: bool = True) -> Iterator[Event]:
    """What is to be decided about one job now, with at most so many tasks by themselves. `timed`: a time may have come."""
    job = state.jobs.get(job_id)
    if job is None or job.ended or job.ending or job.waits is None or job.waits.hopeless:
        return
    waits = job.waits
    met: list[Condition] = []
    broken: list[Condition] = []
    for awaited in _to_judge(state, job, waits, timed=timed):
        holds = judge(state, job, awaited)
        if holds is not None:
            (met if holds else broken).append(awaited.condition)
        elif (
            awaited.condition.kind is ConditionKind.AFTER and not awaited.due_ms and (due_ms := due_of(state, awaited))
        ):
            yield DependencyTimed(job_id, awaited.condition, due_ms)
    if met:
        yield DependencyMet(job_id, tuple(met))
    if met and waits.any_of:
        yield TasksReleased(job_id)
        return
    if broken:
        hopeless = not waits.any_of or not _is_left(waits, broken)
        yield DependencyBroken(job_id, tuple(broken), hopeless)
        if hopeless and job.spec.on_broken_dependency is OnBrokenDependency.CANCEL:
            yield from _cancel(state, job, (*waits.broken, *broken))
        return
    if _is_left(waits, met):
        return
    if len(waits.open) > len(met):
        yield from _decide_elements(state, job, waits, most, scan=bool(met))
    elif met:
        yield TasksReleased(job_id)


def _to_judge(state: State, job: Job, waits: Waits, *, timed: bool) -> Sequence[Awaited]:
    """Of what holds back all of the job: what may hold now, or never. Its own order, a glance at each of its conditions."""
    stir = state.dependants.stirred.get(job.id, _NOTHING)
    if stir is None:
        return waits.whole
    key, waits_for = job.name_key, state.dependants.waits_for
    others = {other: None for other in stir.others if waits_for(job.id, key, other)}
    if timed:
        now_ms = state.now_ms
        found = [each for each in waits.open if 0 < each.due_ms <= now_ms or each.condition.job_id in others]
    elif others:
        found = [each for each in waits.open if each.condition.job_id in others]
    else:
        return ()
    return [each for each in found if each.condition.kind is not ConditionKind.AFTERCORR]


def _is_left(waits: Waits, decided: Sequence[Condition]) -> bool:
    """Whether anything else that holds back all of the job is open. The first that does is the answer."""
    if not decided:
        return waits.is_whole_left
    known = dict.fromkeys(decided)
    return any(
        each.condition.kind is not ConditionKind.AFTERCORR and each.condition not in known for each in waits.open
    )


def _cancel(state: State, job: Job, broken: Sequence[Condition], indices: tuple[int, ...] = ()) -> Iterator[Event]:
    named = ", ".join(map(format_condition, broken[:5]))
    command = CancelJob(job_id=job.id, actor=ACTOR, reason=f"{NEVER}: {named}", indices=indices)
    decision = jobs.decide_cancel(state, command)
    assert not isinstance(decision, Rejected), "it has not ended"
    yield from decision.events


def _decide_elements(state: State, job: Job, waits: Waits, most: int, *, scan: bool) -> Iterator[Event]:
    """Task by task: it may start once each of its peers has succeeded, and never if one has ended otherwise."""
    stir, elements = state.dependants.stirred.get(job.id, _NOTHING), waits.elements
    if scan or stir is None:
        over = elements
        decided = list(islice(_scan(job, [peers_of(state, awaited) for awaited in elements]), most))
    else:
        over = tuple(each for each in elements if each.condition.job_id in stir.others) if stir.others else ()
        decided = list(islice(_noted(state, job, elements, stir), most)) if stir.tasks else []
    peers = [(awaited.condition, peers_of(state, awaited)) for awaited in elements] if decided else []
    never = tuple(index for index in decided if any(_FAILED[phases[index]] for _, phases in peers))
    lost = dict.fromkeys(never)
    free = tuple(index for index in decided if index not in lost)
    if free:
        yield TasksReleased(job.id, free)
    if len(decided) < most and (done := tuple(each.condition for each in over if _is_over(state, each))):
        yield DependencyMet(job.id, done)
    if never:
        broken = [condition for condition, phases in peers if any(_FAILED[phases[index]] for index in never)]
        yield from _cancel(state, job, broken, never)


def _is_over(state: State, awaited: Awaited) -> bool:
    other = state.jobs.get(awaited.condition.job_id)
    return other is None or other.ended


def _noted(state: State, job: Job, elements: Sequence[Awaited], stir: Stir) -> Iterator[int]:
    """Of the tasks whose peers have ended of late: those about which there is nothing to wait for any more, ascending.

    Where one of these peers has failed that is known at once, else by the first of all that has not ended.
    """
    late = [each for each in elements if each.condition.job_id in stir.tasks]
    ended = [peers_of(state, awaited) for awaited in late]
    for index in sorted(dict.fromkeys(index for awaited in late for index in stir.tasks[awaited.condition.job_id])):
        if job.is_held_back(index) and (
            any(_FAILED[phases[index]] for phases in ended)
            or all(_FINAL[peers_of(state, awaited)[index]] for awaited in elements)
        ):
            yield index


def _scan(job: Job, peers: Sequence[bytes | bytearray]) -> Iterator[int]:
    """Those tasks among all that are held back, as numbers of a byte each: a million take some milliseconds."""
    final, failed = -1, 0
    for phases in peers:
        final &= int.from_bytes(phases.translate(_FINAL), "little")
        failed |= int.from_bytes(phases.translate(_FAILED), "little")
    found = (int.from_bytes(job.phases.translate(_HELD), "little") & (final | failed)).to_bytes(job.count, "little")
    index = found.find(1)
    while index >= 0:
        if job.is_held_back(index):
            yield index
        index = found.find(1, index + 1)


def stir_if_due(state: State, job: Job) -> None:
    """Have a job that was read looked at, if anything about it is to be decided."""
    state.dependants.stir(job.id)
    if next(decide_one(state, job.id, 1), None) is None:
        del state.dependants.stirred[job.id]


def settle(state: State) -> None:
    """After a step: those about which nothing is left to be decided need not be looked at."""
    dependants, conditions_left = state.dependants, 2 * MAX_CONDITIONS_PER_STEP
    for job_id in sorted(dependants.stirred)[: 2 * MAX_LOOKED_AT_PER_STEP]:
        stir = dependants.stirred[job_id]
        conditions_left -= _open_of(state, job_id) if stir is None else len(stir.others)
        if conditions_left <= 0:
            break  # the next step goes on
        if next(decide_one(state, job_id, 1, timed=False), None) is None:
            del dependants.stirred[job_id]
    while dependants.timers and dependants.timers[0][0] <= state.now_ms and not _is_timed(state, dependants.timers[0]):
        dependants.drop_timer()


def _is_timed(state: State, timer: tuple[int, int]) -> bool:
    due_ms, job_id = timer
    job = state.jobs.get(job_id)
    if job is None or job.waits is None or job.waits.hopeless:
        return False
    return any(each.due_ms == due_ms for each in job.waits.open)
