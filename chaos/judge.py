"""The judge: ten verdicts on a run, one for each promise. Pure, so that a record can be judged again."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.checkers.linearizability import BUDGET
from chaos.final import Final
from chaos.judging.evidence import Evidence
from chaos.judging.log import judge_log
from chaos.judging.managers import judge_replicas, judge_terms
from chaos.judging.submissions import judge_durability, judge_linearizability
from chaos.judging.work import judge_ends, judge_fences, judge_liveness, judge_overlap
from chaos.record import Record
from chaos.report.document import Verdict
from chaos.settle import Settled


def judge(
    record: Record,
    final: Final | None,
    settled: Settled | None,
    unfinished: Sequence[str] = (),
    *,
    budget: int = BUDGET,
) -> list[Verdict]:
    """`unfinished` are the jobs that had not ended when the run gave up waiting for them. What a run did not come to is
    None, and undecided."""
    evidence = Evidence(record, final, settled, unfinished)
    return [
        judge_durability(evidence),
        judge_linearizability(evidence, budget),
        *judge_log(evidence),
        judge_overlap(evidence),
        judge_fences(evidence),
        judge_terms(evidence),
        judge_replicas(evidence),
        judge_liveness(evidence),
        judge_ends(evidence),
    ]
