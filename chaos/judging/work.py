"""Promises about the work itself: it goes on after healing, it ends, and what it did shows nothing that must not be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from chaos.checkers import overlap
from chaos.checkers.overlap import Ran
from chaos.effects import BEGAN, ENDED
from chaos.judging.evidence import NOT_READ, Evidence, decide
from chaos.record import Effect
from chaos.report.document import Verdict
from hasched.model.states import TaskState
from hasched.model.views import JobView


def judge_liveness(evidence: Evidence) -> Verdict:
    """The promise is about a cluster that all harm was taken from. Where a strike failed by itself, that isn't known, so what
    then is in the way decides nothing."""
    settled = evidence.settled
    wrong = settled.obstacles if settled is not None else []
    unhealed = [
        f"strike {each.number}, {each.nemesis}, failed by itself and may have left harm: {' '.join(each.notes[-1:])}"
        for each in evidence.record.strikes
        if each.outcome == "failed" and wrong
    ]
    if unhealed:
        wrong, unhealed = [], [*unhealed, *wrong]
    return decide(
        "liveness",
        "once all is healed, the cluster becomes whole and runs what is submitted",
        "" if settled is None else f"{settled.seconds:.1f} s from the last fault until the cluster was whole",
        looked=settled is not None,
        wrong=wrong,
        undecided=unhealed if settled is not None else [NOT_READ],
    )


def judge_ends(evidence: Evidence) -> Verdict:
    """A job that a client suspended, and that nobody resumed or cancelled, need not end."""
    doubts = evidence.final.lacks("jobs")
    suspended, open_ = 0, []
    for key, job in evidence.jobs.items():
        if TaskState[job.state].final:
            continue
        if job.suspended and not job.cancelling and evidence.may_be_suspended(key):
            suspended += 1
        else:
            open_.append(_still_open(job))
    return decide(
        "every job ends",
        "every accepted job reaches its end",
        f"{len(evidence.jobs):,} jobs" + (f", {suspended} of them suspended by their clients" if suspended else ""),
        looked=len(evidence.jobs) - suspended,
        wrong=open_,
        undecided=[*doubts, *(evidence.unfinished if doubts else [])],
    )


def _still_open(job: JobView) -> str:
    reason = f": {job.reason.text}" if job.reason is not None else ""
    marks = "".join(
        f", {mark}" for mark, is_set in (("suspended", job.suspended), ("cancelled", job.cancelling)) if is_set
    )
    return f"job {job.id} ({job.submission_id}) is still {job.state}{marks}{reason}"


# --- what attempts left behind ---


class _Attempt(NamedTuple):
    job_id: int
    task_index: int
    attempt: int

    def __str__(self) -> str:
        return f"attempt {self.attempt} of task {self.job_id}.{self.task_index}"


def _lines(evidence: Evidence) -> dict[_Attempt, list[Effect]]:
    found: dict[_Attempt, list[Effect]] = {}
    for effect in evidence.record.effects:
        found.setdefault(_Attempt(effect.job_id, effect.index, effect.attempt), []).append(effect)
    return found


def judge_overlap(evidence: Evidence) -> Verdict:
    """An attempt lived at least until its last line, and of one that was killed nothing more is known. So what is found to
    overlap did, for certain."""
    runs = [
        Ran((key.job_id, key.task_index), key.attempt, lines[0].node_id, lines[0].at_s, lines[-1].at_s)
        for key, lines in _lines(evidence).items()
    ]
    stops = {job_id for job_id, asked in evidence.asked.items() if asked.stops}
    strict = [run for run in runs if run.task[0] in stops]
    wrong = overlap.check(strict)
    for node_id in dict.fromkeys(run.node_id for run in runs):
        wrong += overlap.check(run for run in runs if run.node_id == node_id)
    again = sum(run.attempt > 1 for run in runs)
    return decide(
        "no overlap",
        "a task that stops when its node is cut off never runs twice at once, and none does on one node",
        f"{len(strict):,} attempts of tasks that stop and {len(runs) - len(strict):,} of others, {again:,} of them later ones",
        looked=len(strict),
        wrong=list(dict.fromkeys(wrong)),
    )


def judge_fences(evidence: Evidence) -> Verdict:
    """The number of an attempt is its fence: committed before the attempt begins, and used once."""
    lines = _lines(evidence)
    scheduled: dict[_Attempt, str] = {}
    for event in evidence.record.events:
        if event.type == "TasksScheduled":
            for index, attempt in zip(event.data["indices"], event.data["attempts"], strict=True):
                scheduled[_Attempt(event.job_id or 0, index, attempt)] = event.node_id or ""
    wrong: list[str] = []
    doubts: list[str] = []
    for key, told in lines.items():
        began = sum(line.what == BEGAN for line in told)
        if began > 1:
            wrong.append(f"{key} began {began} times")
        for line in told:
            if line.what == BEGAN and scheduled.get(key, line.node_id) != line.node_id:
                wrong.append(f"{key} began on {line.node_id}, and was placed on {scheduled[key]}")
        if key not in scheduled:
            (doubts if evidence.has_gaps else wrong).append(f"{key} began, and nothing says that it was placed")
    return decide(
        "fences",
        "an attempt begins at most once, where it was placed, and only if it was; one that succeeded did its work",
        f"{len(lines):,} attempts that began",
        looked=len(lines),
        wrong=[*wrong, *_without_work(evidence, lines)],
        undecided=[*evidence.gaps, *doubts],
    )


def _without_work(evidence: Evidence, lines: dict[_Attempt, list[Effect]]) -> Iterator[str]:
    """Attempts that are recorded as having succeeded, and did not come to their end."""
    for event in evidence.record.events:
        if event.type == "AttemptEnded" and event.data["state"] == TaskState.SUCCEEDED.name:
            asked = evidence.asked.get(event.job_id or 0)
            key = _Attempt(event.job_id or 0, event.task_index or 0, event.attempt or 0)
            if asked is not None and asked.tells and all(line.what != ENDED for line in lines.get(key, [])):
                yield f"{key} is recorded as SUCCEEDED, and never came to its end"
