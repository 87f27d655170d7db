"""What jobs that wait for others cost: their submission, the ends that they wait for, and one that is forgotten too early."""

from __future__ import annotations

from benchmarks.applied import Applied
from hasched.model.spec import MAX_CONDITIONS, Condition, Dependency, Resources
from hasched.model.states import ConditionKind
from hasched.statemachine import commands as c
from hasched.statemachine.rules.clock import next_deadline
from hasched.statemachine.waits import MAX_DEPENDANTS

NOTHING = Resources()


def after(*job_ids: int) -> Dependency:
    return Dependency(tuple(Condition(ConditionKind.AFTERANY, job_id) for job_id in job_ids))


def settle(applied: Applied) -> list[float]:
    """Step the clock for as long as something is due. What each step has cost, in milliseconds."""
    costs = []
    while (due_ms := next_deadline(applied.state)) is not None and due_ms <= applied.now_ms:
        costs.append(applied.do(c.StepClock()))
    return costs


def figures(scale: int) -> dict[str, object]:
    return {
        **many_conditions(1000 // scale),
        **many_dependants(MAX_DEPENDANTS // scale),
        **first_singleton(100_000 // scale),
    }


def many_conditions(jobs: int) -> dict[str, object]:
    """So many jobs wait for the same others, each for all of them, and these end one by one."""
    applied = Applied()
    others = applied.submit(MAX_CONDITIONS, resources=NOTHING)
    submitted_ms = applied.time_submissions(jobs, resources=NOTHING, dependency=after(*others))
    costs = settle(applied)
    for job_id in others:
        costs += [applied.do(c.CancelJob(job_id=job_id, actor="bench")), *settle(applied)]
    assert all(not job.waits for job in applied.state.jobs.values())
    return {
        "conditions": jobs * len(others),
        "submit_conditions_ms": submitted_ms,
        "decide_conditions_ms": sum(costs),
        "decide_conditions_longest_ms": max(costs),
        "decide_conditions_entries": len(costs),
    }


def many_dependants(jobs: int) -> dict[str, object]:
    """So many jobs wait for one that is forgotten before the clock is stepped."""
    applied = Applied()
    applied.submit(resources=NOTHING)
    for _ in range(10):
        applied.time_submissions(jobs // 10, resources=NOTHING, dependency=after(1))
    settle(applied)
    ended_ms = applied.do(c.CancelJob(job_id=1, actor="bench"))
    gone_ms = applied.do(c.DeleteJob(job_id=1, actor="bench"))
    costs = settle(applied)
    return {
        "dependants": jobs,
        "end_awaited_ms": ended_ms,
        "delete_awaited_ms": gone_ms,
        "let_dependants_go_longest_ms": max(costs),
    }


def first_singleton(jobs: int) -> dict[str, object]:
    applied = Applied()
    applied.submit(jobs, resources=NOTHING)
    only = Dependency((Condition(ConditionKind.SINGLETON),))
    return {"first_singleton_ms": applied.time_submissions(1, resources=NOTHING, dependency=only)}
