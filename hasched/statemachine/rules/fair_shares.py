"""The fair-share policy: put, changed and deleted while work runs."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.policy import MAX_HALF_LIFE_MS, MIN_HALF_LIFE_MS, FairShare
from hasched.model.spec import Resources
from hasched.statemachine.fair_share import THE_POLICY, Shares, rate_of
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import Rejected
from hasched.statemachine.policies import find_policy
from hasched.statemachine.state import State


def find_fault(name: str, body: FairShare) -> Rejected | None:
    if name != THE_POLICY:
        return Rejected(
            "invalid_policy", f"there is one fair_share, called {THE_POLICY}", f"put fair_share/{THE_POLICY}"
        )
    if not MIN_HALF_LIFE_MS <= body.half_life_ms <= MAX_HALF_LIFE_MS or body.ageing_ms < 0:
        return Rejected("invalid_policy", "the half-life or the ageing is out of bounds", "use parse_policy")
    return None


def follow_policy(state: State) -> None:
    """Begin to count, go on by other rules, or forget what was counted: as the policy says that is there now."""
    policy = find_policy(state.policies, FairShare, THE_POLICY)
    if policy is None or not policy.enabled:
        state.shares = None
        return
    if state.shares is None:
        state.shares = Shares(policy, state.now_ms)
    elif (policy.half_life_ms, policy.charge) == (state.shares.half_life_ms, state.shares.charges):
        return
    else:
        state.shares.take(policy, state.now_ms)
    rates: dict[tuple[str, str, str], int] = {}
    for (*account, cpu_milli, memory_bytes, gpus), tasks in state.usage.what_runs.charged.items():
        key = (account[0], account[1], account[2])
        request = Resources(cpu_milli=cpu_milli, memory_bytes=memory_bytes, gpus=gpus)
        rates[key] = rates.get(key, 0) + rate_of(request, state.shares.charges) * tasks
    for (queue, namespace, user), rate in sorted(rates.items()):
        state.shares.change_rate(state.now_ms, queue, namespace, user, rate)


def running_rates(state: State, shares: Shares) -> Iterator[tuple[Job, int]]:
    """What each job that runs is charged, all its tasks together."""
    running = {job_id: None for node in state.nodes.values() for job_id, _ in node.attempts}
    for job_id in sorted(running):
        job = state.jobs[job_id]
        yield job, sum(rate_of(request, shares.charges) * tasks for request, tasks in job.held())
