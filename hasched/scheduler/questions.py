"""Questions about what would be, and their answers. Each is worked out on a copy of the state, from the bytes of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias, assert_never

import msgspec

from hasched.model.answers import (
    Comparison,
    Forecast,
    JobForecast,
    Plan,
    PlannedJob,
    PlannedPlacement,
    Preempted,
    RemedyView,
    WhatIf,
)
from hasched.model.ids import JobId
from hasched.model.spec import JobSpec
from hasched.model.states import PlacementPolicy
from hasched.model.views import Reason
from hasched.scheduler.explain import Known, explain_waiting
from hasched.scheduler.forecast import Forecaster, forecast
from hasched.scheduler.hypotheses import Hypothesis, Impossible, submit_supposed, suppose
from hasched.statemachine.queries.usage import estimate
from hasched.statemachine.snapshot import restore

MOST_JOBS = 1000  # that one answer speaks of


class _Question(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`now_ms` is where virtual time begins, `until_ms` where it ends."""

    now_ms: int
    until_ms: int
    policy: PlacementPolicy = PlacementPolicy.BIN_PACK


class AskForecast(_Question, frozen=True):
    """When do these jobs start, or, without any, the first MOST_JOBS that wait?"""

    job_ids: tuple[JobId, ...] = ()


class AskPlan(_Question, frozen=True):
    """What would come of these jobs if they were submitted now, one after the other?"""

    specs: tuple[JobSpec, ...]
    actor: str


class AskWhatIf(_Question, frozen=True):
    """Who starts when, as things are and if all this were so?"""

    hypotheses: tuple[Hypothesis, ...]


Question: TypeAlias = AskForecast | AskPlan | AskWhatIf
Answer: TypeAlias = Forecast | Plan | WhatIf


def answer(question: Question, snapshot: Sequence[bytes]) -> Answer:
    """`snapshot`: the chunks of a snapshot of the state. Raises Impossible, SnapshotInvalid."""
    match question:
        case AskForecast():
            return forecast(
                restore(snapshot),
                question.now_ms,
                question.until_ms,
                job_ids=question.job_ids or None,
                most=MOST_JOBS,
                policy=question.policy,
            )
        case AskPlan():
            return _plan(question, snapshot)
        case AskWhatIf():
            return _compare(question, snapshot)
        case _:
            assert_never(question)


def _plan(question: AskPlan, snapshot: Iterable[bytes]) -> Plan:
    forecaster = Forecaster(restore(snapshot), question.now_ms, question.until_ms, question.policy)
    asked: list[JobId | Impossible] = []
    for spec in question.specs:
        try:
            asked.append(submit_supposed(forecaster.rehearsal, spec, question.actor))
        except Impossible as refused:
            asked.append(refused)
    forecaster.watch([each for each in asked if isinstance(each, int)])
    forecaster.begin()
    remedies = {each: _find_remedies(forecaster, each) for each in asked if isinstance(each, int)}
    at_once = {each: dict(forecaster.starts_of(each)) for each in asked if isinstance(each, int)}
    forecaster.run()
    jobs = []
    for spec, each in zip(question.specs, asked, strict=True):
        if isinstance(each, Impossible):
            code = str(each.extra.get("code", each.code))
            text = f"{each.cause}; {each.hint}" if each.hint else each.cause
            jobs.append(PlannedJob(name=spec.name, tasks=spec.count, refused=Reason(code=code, text=text)))
        else:
            planned = _planned(spec, at_once[each], forecaster.of(each), forecaster.preempted.get(each, []))
            cost = estimate(forecaster.rehearsal.state, forecaster.rehearsal.state.jobs[each].spec)
            jobs.append(msgspec.structs.replace(planned, cost=cost if cost.priced else None, remedies=remedies[each]))
    return Plan(check_index=forecaster.log_index, now_ms=forecaster.now_ms, until_ms=question.until_ms, jobs=jobs)


def _find_remedies(forecaster: Forecaster, job_id: JobId) -> list[RemedyView]:
    """What would start one more task of a job, once all has started that can."""
    rehearsal = forecaster.rehearsal
    known = Known(rehearsal.planner.held_nodes, kept=rehearsal.planner.kept)
    return explain_waiting(rehearsal.state, rehearsal.state.jobs[job_id], known=known).remedies


def _planned(spec: JobSpec, at_once: dict[str, int], foreseen: JobForecast, preempted: list[Preempted]) -> PlannedJob:
    starting = sum(at_once.values())
    return PlannedJob(
        name=spec.name,
        tasks=spec.count,
        starting_now=starting,
        placements=[PlannedPlacement(node_id=node_id, tasks=tasks) for node_id, tasks in at_once.items()],
        preempts=preempted,
        later=foreseen if starting < (spec.count if not spec.gang else 1) else None,  # A gang starts but once.
    )


def _compare(question: AskWhatIf, snapshot: Sequence[bytes]) -> WhatIf:
    now = _rehearse(question, snapshot, ())
    then = _rehearse(question, snapshot, question.hypotheses)
    jobs, unchanged = [], 0
    for job_id in sorted({*now.jobs, *then.jobs}):
        before, after = now.jobs.get(job_id), then.jobs.get(job_id)
        if before is not None and after is not None and _as_good_as(before, after):
            unchanged += 1
            continue
        either = after or before
        assert either is not None
        known = before is not None and after is not None and before.start_ms and after.start_ms
        change_ms = after.start_ms - before.start_ms if known and before is not None and after is not None else None
        runs = before is None and job_id in now.there
        jobs.append(Comparison(job_id=job_id, name=either.name, now=before, then=after, change_ms=change_ms, runs=runs))
    return WhatIf(
        log_index=now.log_index,
        now_ms=now.now_ms,
        until_ms=question.until_ms,
        changes=then.changes,
        jobs=jobs,
        unchanged=unchanged,
        lost=then.lost,
    )


class _Rehearsed(msgspec.Struct):
    log_index: int
    now_ms: int
    jobs: dict[JobId, JobForecast]
    changes: list[str]
    lost: int
    there: dict[JobId, None]  # before anything was supposed


def _rehearse(question: AskWhatIf, snapshot: Sequence[bytes], hypotheses: Sequence[Hypothesis]) -> _Rehearsed:
    forecaster = Forecaster(restore(snapshot), question.now_ms, question.until_ms, question.policy, follow=True)
    rehearsal = forecaster.rehearsal
    there = dict.fromkeys(rehearsal.state.jobs)
    running = sum(len(node.attempts) for node in rehearsal.state.nodes.values())
    changes = [suppose(rehearsal, hypothesis) for hypothesis in hypotheses]
    lost = running - sum(len(node.attempts) for node in rehearsal.state.nodes.values())
    forecaster.watch_all(MOST_JOBS)
    forecaster.begin()
    forecaster.run()
    result = forecaster.result()
    return _Rehearsed(result.log_index, result.now_ms, {job.job_id: job for job in result.jobs}, changes, lost, there)


def _as_good_as(before: JobForecast, after: JobForecast) -> bool:
    return (before.start_ms, before.last_start_ms, before.starting) == (
        after.start_ms,
        after.last_start_ms,
        after.starting,
    )
