"""Promises about the managers: terms and indexes, and that all have the same state."""

from __future__ import annotations

from math import inf

from chaos.checkers.monotone import Monotone
from chaos.judging.evidence import Evidence, decide
from chaos.record import SILENT, Sight
from chaos.report.document import Verdict


def judge_terms(evidence: Evidence) -> Verdict:
    """After a restart a manager learns anew what is committed, but not its term, which was durable before anybody heard of
    it. Only one whose disk was harmed, and which therefore has no vote at first, begins anew. Where nobody counts a manager's
    restarts, it may have had one whenever it was silent."""
    monotone = Monotone()
    latest: dict[str, Sight] = {}
    silent: dict[str, bool] = {}  # since its latest word
    looks = 0
    for sight in evidence.record.sights:
        name = sight.manager
        if sight.role == SILENT:
            silent[name] = True
            continue
        looks += 1
        before = latest.get(name)
        was_silent = silent.pop(name, False)
        if before is not None and (before.life != sight.life or (sight.life is None and was_silent)):
            monotone.restarted(name)
            if sight.role == "learner" or _disk_was_harmed(evidence, name, before.at_s, sight.at_s):
                monotone.wiped(name)
        monotone.term(name, sight.term)
        monotone.index(name, "committed", sight.commit_index)
        monotone.index(name, "applied", sight.applied_index)
        if sight.role == "leader":
            monotone.leads(name, sight.term)
        latest[name] = sight
    return decide(
        "terms",
        "terms and indexes only grow, and a term has one leader",
        f"{looks:,} looks at {len(latest)} managers, {len(monotone.leaders)} terms with a leader",
        looked=len(monotone.leaders),
        wrong=monotone.wrong,
    )


def _disk_was_harmed(evidence: Evidence, manager: str, from_s: float, until_s: float) -> bool:
    return any(
        manager in strike.endangered and strike.at_s <= until_s and (strike.until_s or inf) >= from_s
        for strike in evidence.record.strikes
    )


def judge_replicas(evidence: Evidence) -> Verdict:
    """By the managers' own comparison of their states at one entry, and by the events that each tells by itself."""
    check = evidence.final.check
    wrong = list(evidence.record.contradictions)
    doubts = evidence.final.lacks("check")
    if check is None:
        doubts = doubts or ["the managers' comparison of their states came to no end"]
    else:
        wrong += [f"at entry {check.log_index} the state of {name} differs" for name in check.differing]
        doubts += [f"{name} did not take part in the comparison of states" for name in check.silent]
        if not check.agreed and not check.differing:
            doubts.append(f"at entry {check.log_index} no majority compared its states")
    compared = "" if check is None else f"the digests of all states at entry {check.log_index:,}; "
    return decide(
        "replicas",
        "all managers have the same state",
        f"{compared}{len(evidence.record.events):,} events, as each manager tells them",
        looked=check is not None,
        wrong=wrong,
        undecided=doubts,
    )
