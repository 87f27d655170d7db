"""Which histories a report holds, and how a call reads there.

Fifty thousand calls are about four megabytes of JSON. Beyond `BYTES` histories are left out, always whole ones, and those that
matter least: first come those that a verdict speaks of, then those with a call of which nobody knows what became.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from math import inf

import msgspec

from chaos.checkers.history import Ending, Operation
from chaos.checkers.models import READ, Accepted, Done, Refused, Seen
from chaos.report.document import BROKEN, UNDECIDED, Call, Verdict

BYTES = 8_000_000

Histories = Mapping[str, Sequence[Operation]]

_WORD = re.compile(r"[^\s,;:()]+")
_JOB = re.compile(r"\b(?:job|task) (\d+)")


def choose(
    histories: Histories, suspects: Iterable[str], room_bytes: int = BYTES
) -> tuple[dict[str, list[Call]], list[str]]:
    """As many whole histories as there is room for, and a sentence about the others if there are any."""
    first = dict.fromkeys(suspects)
    doubtful = dict.fromkeys(key for key, calls in histories.items() if _is_doubtful(calls))
    chosen: dict[str, list[Call]] = {}
    left_out = 0
    for key in {**first, **doubtful, **dict.fromkeys(histories)}:
        calls = [to_call(each) for each in histories[key]]
        size = len(msgspec.json.encode({key: calls}))
        if size > room_bytes:
            left_out += 1
            continue
        room_bytes -= size
        chosen[key] = calls
    if not left_out:
        return chosen, []
    return chosen, [
        f"the histories of {left_out:,} of {len(histories):,} submissions are left out of the report: too much for a page"
    ]


def _is_doubtful(calls: Sequence[Operation]) -> bool:
    return any(each.ending is Ending.UNKNOWN for each in calls)


def find_suspects(verdicts: Sequence[Verdict], histories: Histories) -> list[str]:
    """The submission ids that sentences of broken verdicts name, by themselves or by their job; then those of undecided
    ones."""
    by_job: dict[int, list[str]] = {}
    for key, calls in histories.items():
        for job_id in dict.fromkeys(each.result.job_id for each in calls if isinstance(each.result, Accepted | Seen)):
            by_job.setdefault(job_id, []).append(key)
    broken = [each for verdict in verdicts if verdict.verdict == BROKEN for each in verdict.wrong]
    undecided = [each for verdict in verdicts if verdict.verdict in (BROKEN, UNDECIDED) for each in verdict.undecided]
    found: dict[str, None] = {}
    for sentence in (*broken, *undecided):
        found.update(dict.fromkeys(word for word in _WORD.findall(sentence) if word in histories))
        for job_id in _JOB.findall(sentence):
            found.update(dict.fromkeys(by_job.get(int(job_id), ())))
    return list(found)


def to_call(operation: Operation) -> Call:
    asked = operation.kind if operation.arguments is None else f"{operation.kind} {operation.arguments}"
    return Call(
        client=operation.client,
        kind=asked,
        from_s=round(operation.invoked_at, 6),
        until_s=None if operation.returned_at == inf else round(operation.returned_at, 6),
        ending=operation.ending.value,
        result=_read_out(operation),
    )


def _read_out(operation: Operation) -> str:
    """The result as a person says it."""
    match operation.result:
        case Accepted(job_id, duplicate):
            return f"job {job_id}" + (", known already" if duplicate else "")
        case Seen(job_id, cancelling, suspended, end):
            marks = [end or "not ended", *(["cancelling"] if cancelling else []), *(["suspended"] if suspended else [])]
            return f"job {job_id}: {', '.join(marks)}"
        case Refused(code):
            return f"refused: {code}"
        case Done():
            return "done"
        case None:
            return "no such job" if operation.kind == READ and operation.ending is Ending.RETURNED else ""
        case other:
            return str(other)
