"""From the record of a run to its document. Pure but for the heads, which ask the machine what it is."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise

import msgspec

from chaos.checkers.history import Ending, Operation
from chaos.checkers.models import SUBMIT
from chaos.cluster.base import Cluster
from chaos.record import Record, Sight, Struck
from chaos.report.document import (
    HELD,
    UNDECIDED,
    Bucket,
    ClusterPart,
    Document,
    DrillPart,
    Gap,
    Head,
    Lead,
    Totals,
    Verdict,
)
from chaos.report.histories import choose, find_suspects

SENTENCES = 200  # of one verdict, at most
GAPS = 10

# --- heads ---


class Began(msgspec.Struct, frozen=True, kw_only=True):
    """When something began: on the wall clock, for people, and on the monotonic one, to measure it."""

    wall_ms: int
    monotonic_s: float


def begin() -> Began:
    return Began(wall_ms=time.time_ns() // 1_000_000, monotonic_s=time.monotonic())


def head_of(
    cluster: Cluster,
    record: Record,
    *,
    kind: str = "run",
    seed: int,
    command: str,
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Head:
    """Of a run that ends now. `command` repeats it."""
    return Head(
        kind=kind,
        seed=seed,
        command=command,
        began_ms=record.began_ms,
        seconds=round(record.now(), 1),
        host=platform.node(),
        versions=find_versions(),
        cluster=ClusterPart(
            name=cluster.name, kind=cluster.kind, managers=list(cluster.managers), agents=list(cluster.agents)
        ),
        left_out=list(left_out),
        notes=list(notes),
    )


def head_of_drills(began: Began, *, seed: int, command: str, notes: Sequence[str] = ()) -> Head:
    """Of drills that are over now: each had a cluster of its own."""
    return Head(
        kind="drills",
        seed=seed,
        command=command,
        began_ms=began.wall_ms,
        seconds=round(time.monotonic() - began.monotonic_s, 1),
        host=platform.node(),
        versions=find_versions(),
        notes=list(notes),
    )


def find_versions() -> dict[str, str]:
    """What somebody needs who wants to see the same: programs, and the machine."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "hasched": version("hasched"),
        "Python": platform.python_version(),
        "pysyncobj": version("pysyncobj"),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.1f} GiB of memory",
    }


# --- documents ---


def build(record: Record, verdicts: Sequence[Verdict], head: Head, logs: Mapping[str, str] | None = None) -> Document:
    """The document of a run. What is too much for a page is left out, and the head's notes say so."""
    operations = record.history.operations()
    suspects = find_suspects(verdicts, record.history.by_key())
    histories, too_much = choose(record.history.by_key(), suspects)
    notes = [*head.notes, *(each for each in record.notes if each not in head.notes), *record.event_gaps, *too_much]
    return Document(
        head=msgspec.structs.replace(head, notes=notes),
        verdicts=[_told(each) for each in verdicts],
        phases=list(record.phases),
        strikes=sorted(record.strikes, key=lambda each: (each.at_s, each.number)),
        leaders=find_leads(record.sights),
        calls=count_calls(operations),
        totals=sum_up(operations),
        gaps=find_gaps(operations, record.strikes),
        suspects=suspects,
        histories=histories,
        logs=_encodable(logs or {}),
    )


def build_drills(parts: Sequence[DrillPart], head: Head) -> Document:
    return Document(head=head, drills=[msgspec.structs.replace(each, logs=_encodable(each.logs)) for each in parts])


def _told(verdict: Verdict) -> Verdict:
    """Nothing looks held that nobody looked at. And one mistake can be a sentence for each of ten thousand jobs, of which
    nobody reads more than the first few."""
    if verdict.verdict == HELD and not verdict.looked_at:
        verdict = msgspec.structs.replace(verdict, verdict=UNDECIDED)
    return msgspec.structs.replace(verdict, wrong=_first(verdict.wrong), undecided=_first(verdict.undecided))


def _first(sentences: Sequence[str]) -> list[str]:
    more = len(sentences) - SENTENCES
    return list(sentences) if more <= 0 else [*sentences[:SENTENCES], f"and {more:,} more like these"]


def _encodable(logs: Mapping[str, str]) -> dict[str, str]:
    """A daemon's log may hold bytes that are no text, and JSON can't."""
    return {name: text.encode(errors="replace").decode() for name, text in logs.items()}


def find_leads(sights: Iterable[Sight]) -> list[Lead]:
    """Who said to lead, and when. Any other word from a manager, and silence too, ends its lead: what it was meanwhile nobody
    saw."""
    open_: dict[str, Lead] = {}
    leads: list[Lead] = []
    for sight in sorted(sights, key=lambda each: each.at_s):
        known = open_.get(sight.manager)
        if sight.role != "leader":
            open_.pop(sight.manager, None)
        elif known is not None and known.term == sight.term:
            open_[sight.manager] = leads[leads.index(known)] = msgspec.structs.replace(known, until_s=sight.at_s)
        else:
            lead = Lead(manager=sight.manager, term=sight.term, from_s=sight.at_s, until_s=sight.at_s)
            open_[sight.manager] = lead
            leads.append(lead)
    return leads


def count_calls(operations: Sequence[Operation]) -> list[Bucket]:
    """One bucket a second, those in which nothing was asked too: a gap must be seen."""
    seconds: dict[int, list[Operation]] = {}
    for operation in operations:
        seconds.setdefault(int(operation.invoked_at), []).append(operation)
    return [_bucket(at_s, seconds.get(at_s, [])) for at_s in range(min(seconds), max(seconds) + 1)] if seconds else []


def _bucket(at_s: int, operations: Sequence[Operation]) -> Bucket:
    endings = Counter(each.ending for each in operations)
    waits_ms = sorted(
        (each.returned_at - each.invoked_at) * 1000 for each in operations if each.ending is Ending.RETURNED
    )
    return Bucket(
        at_s=at_s,
        returned=endings[Ending.RETURNED],
        failed=endings[Ending.FAILED],
        unknown=endings[Ending.UNKNOWN],
        p50_ms=_percentile(waits_ms, 50),
        p99_ms=_percentile(waits_ms, 99),
        max_ms=_percentile(waits_ms, 100),
    )


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest rank: a wait that somebody really had. 0 of none."""
    return round(ordered[-(-len(ordered) * percent // 100) - 1], 3) if ordered else 0.0


def sum_up(operations: Iterable[Operation]) -> list[Totals]:
    """By kind, the most frequent first."""
    kinds: dict[str, Counter[Ending]] = {}
    for operation in operations:
        kinds.setdefault(operation.kind, Counter())[operation.ending] += 1
    return [
        Totals(
            kind=kind,
            returned=endings[Ending.RETURNED],
            failed=endings[Ending.FAILED],
            unknown=endings[Ending.UNKNOWN],
        )
        for kind, endings in sorted(kinds.items(), key=lambda item: (-item[1].total(), item[0]))
    ]


def find_gaps(operations: Iterable[Operation], strikes: Sequence[Struck]) -> list[Gap]:
    """The longest times without an accepted submission, between the first and the last that was tried."""
    submissions = [each for each in operations if each.kind == SUBMIT]
    if not submissions:
        return []
    accepted = sorted(each.returned_at for each in submissions if each.ending is Ending.RETURNED)
    first, last = (find(each.invoked_at for each in submissions) for find in (min, max))
    marks = sorted([first, *accepted, *([last] if not accepted or last > accepted[-1] else [])])
    pairs = sorted(pairwise(marks), key=lambda pair: pair[0] - pair[1])[:GAPS]
    return [
        Gap(from_s=round(begin_s, 3), until_s=round(end_s, 3), during=_during(begin_s, end_s, strikes))
        for begin_s, end_s in pairs
    ]


def _during(begin_s: float, end_s: float, strikes: Sequence[Struck]) -> list[str]:
    return [
        f"{each.nemesis} {', '.join(each.targets)}".strip()
        for each in strikes
        if each.outcome != "skipped" and each.at_s < end_s and each.until_s > begin_s
    ]
