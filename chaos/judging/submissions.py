"""Promises to clients: what was acknowledged is kept, and all answers fit together."""

from __future__ import annotations

from collections.abc import Iterator

from chaos.checkers import durability, linearizability
from chaos.checkers.history import Ending, Operation
from chaos.checkers.models import CANCEL, READ, SUSPEND, JobModel, Seen
from chaos.judging.evidence import Evidence, decide
from chaos.report.document import Verdict
from chaos.workloads.desk import STALE_READ, seen


def judge_durability(evidence: Evidence) -> Verdict:
    """A job that a client had deleted, or may have, is not missed. One that the events tell of was accepted, whether its
    client heard of it or not; and where they tell of another one than the client was told of, that one counts as there."""
    doubts = evidence.final.lacks("jobs")
    expected = {key: ids[0] for key, ids in evidence.committed.items()} | evidence.acknowledged
    present = [(job.submission_id, job.id) for job in evidence.final.jobs if job.submission_id in evidence.submits]
    there = dict.fromkeys(present)
    gone = 0
    for key, job_id in expected.items():
        if key not in evidence.jobs and evidence.may_be_gone(key):
            gone += 1
            there |= dict.fromkeys((key, each) for each in evidence.committed.get(key, [job_id]))
    for key, ids in evidence.committed.items():
        if key in evidence.refused or len(ids) > 1 or expected[key] not in ids:
            there |= dict.fromkeys((key, job_id) for job_id in ids)
    wrong = durability.check(expected, evidence.refused, there) if not doubts else []
    return decide(
        "durability",
        "what was acknowledged is there, once; what was refused is not",
        f"{len(evidence.acknowledged):,} acknowledged submissions ({gone:,} deleted since), "
        f"{len(evidence.refused):,} refused",
        looked=len(expected),
        wrong=wrong,
        undecided=doubts,
    )


def judge_linearizability(evidence: Evidence, budget: int) -> Verdict:
    """`budget` limits the states that are searched for one job. The end of the run is one more read of every job."""
    ordered = [
        each
        for each in evidence.operations
        if each.kind != STALE_READ and each.key in evidence.submits and each.key not in evidence.meddled
    ]
    searched = linearizability.check([*ordered, *_last_reads(evidence)], JobModel(), budget)
    stale = [each for each in evidence.operations if each.kind == STALE_READ and each.ending is Ending.RETURNED]
    answered = sum(each.ending is Ending.RETURNED for each in ordered)
    return decide(
        "linearizability",
        "there is one order of all calls on a job in which every answer is right",
        f"{len(ordered):,} calls ({answered:,} answered) on {len(evidence.submits):,} jobs; {len(stale):,} stale reads",
        looked=answered,
        wrong=[*searched.violations, *_wrong_stale_reads(evidence, stale)],
        undecided=[
            *(f"not judged: {each}" for each in searched.undecided),
            *(f"{key}: somebody else had a hand in it, {what}" for key, what in evidence.meddled.items()),
            *evidence.final.lacks("jobs"),
        ],
    )


def _last_reads(evidence: Evidence) -> Iterator[Operation]:
    final = evidence.final
    if final.lacks("jobs"):
        return
    for key in evidence.submits:
        if key not in evidence.meddled:
            job = evidence.jobs.get(key)
            yield Operation(
                client="the end",
                key=key,
                kind=READ,
                invoked_at=final.from_s,
                returned_at=final.until_s,
                ending=Ending.RETURNED,
                result=seen(job) if job is not None else None,
            )


def _wrong_stale_reads(evidence: Evidence, reads: list[Operation]) -> Iterator[str]:
    """A stale read may be old, and must have been true: it shows what was committed, and nothing that nobody asked for."""
    asked_at: dict[tuple[str, str], float] = {}
    for each in evidence.operations:
        first = asked_at.get((each.kind, each.key), each.invoked_at)
        asked_at[each.kind, each.key] = min(first, each.invoked_at)
    for read in reads:
        key, shown = read.key, read.result
        if not isinstance(shown, Seen) or key not in evidence.submits:
            continue
        known = evidence.job_ids.get(key)
        if known is not None and shown.job_id != known:
            yield f"a stale read shows {key} as job {shown.job_id}, and it is job {known}: {read}"
        job = evidence.jobs.get(key)
        if shown.end and job is not None and job.state != shown.end:
            yield f"a stale read shows job {shown.job_id} as {shown.end}, and it is {job.state} at the end: {read}"
        for kind, is_shown in ((CANCEL, shown.cancelling), (SUSPEND, shown.suspended)):
            if (
                is_shown
                and key not in evidence.meddled
                and asked_at.get((kind, key), read.returned_at) >= read.returned_at
            ):
                yield f"a stale read shows a {kind} of job {shown.job_id} that nobody had asked for: {read}"
