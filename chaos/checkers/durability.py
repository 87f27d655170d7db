"""Durability: what was acknowledged is there, once; what was refused is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def check(acknowledged: Mapping[str, int], refused: Iterable[str], present: Iterable[tuple[str, int]]) -> list[str]:
    """`acknowledged` are job ids by submission id; `refused` ids of which nothing may be known, whatever was retried;
    `present` is every job of the cluster as (submission id, job id)."""
    found: dict[str, list[int]] = {}
    ids: dict[int, str] = {}
    wrong = []
    for submission_id, job_id in present:
        found.setdefault(submission_id, []).append(job_id)
        if ids.setdefault(job_id, submission_id) != submission_id:
            wrong.append(f"job {job_id} stands for the submissions {ids[job_id]} and {submission_id}")
    for submission_id, job_id in acknowledged.items():
        there = found.get(submission_id, [])
        if not there:
            wrong.append(f"submission {submission_id} was acknowledged as job {job_id} and is lost")
        elif job_id not in there:
            wrong.append(f"submission {submission_id} was acknowledged as job {job_id} and is job {there[0]} now")
    wrong += [
        f"submission {submission_id} became the jobs {', '.join(map(str, job_ids))}"
        for submission_id, job_ids in found.items()
        if len(job_ids) > 1
    ]
    wrong += [f"submission {name} was refused and is job {found[name][0]}" for name in refused if name in found]
    return wrong
