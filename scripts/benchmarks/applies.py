"""The longest applies: what single entries cost that are about a great many tasks at once, in CPU time of the state machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks import waits
from benchmarks.applied import CORE, NOW_MS, Applied
from hasched.model.policy import Amounts, Cap, CapSubject, FairShare, Quota
from hasched.model.spec import Backoff, PlacementRules, Resources, Retries
from hasched.model.states import EndKind, NodeState
from hasched.model.wire import AttemptEnded
from hasched.statemachine import commands as c


def running(tasks: int, choice: int = 0, **fields: object) -> Applied:
    """One job of which so many tasks run, with fair share on."""
    applied = Applied()
    applied.put("default", FairShare())
    (job,) = applied.submit(count=tasks, **fields)
    applied.start([(job, index) for index in range(tasks)], choice)
    return applied


def running_jobs(jobs: int) -> Applied:
    """So many jobs of one task, each of its own name, of 1,000 users."""
    applied = Applied()
    applied.start([(job, 0) for job in applied.submit(jobs)])
    return applied


def waiting(tasks: int, **fields: object) -> Applied:
    applied = Applied()
    applied.submit(count=tasks, **fields)
    return applied


def by_second(tasks: int) -> Applied:
    return running(tasks, 1, placement=PlacementRules(any_of=(CORE, Resources(cpu_milli=500))))


def in_backoff(tasks: int) -> Applied:
    applied = running(tasks, retries=Retries(max=1, backoff=Backoff(initial_ms=1000, max_ms=1000)))
    for node in list(applied.state.nodes.values()):
        ends = (AttemptEnded(job, index, 1, NOW_MS, NOW_MS, EndKind.EXITED, 1) for job, index in node.attempts)
        applied.do(c.ReportAttempts(node_id=node.id, reports=tuple(ends)))
    applied.now_ms += 2000
    return applied


def cases(n: int) -> Iterator[tuple[str, Callable[[], Applied], Callable[[Applied], float]]]:
    """What is measured, what it is measured on, and the entry."""
    queue = c.UpdateJob(job_id=1, actor="bench", queue="night")
    some = tuple(range(n - 1))
    lost = c.SetNodeState(node_id="n0", state=NodeState.DISCONNECTED, reason="silent")
    drain = c.DrainNode(node_id="n0", actor="bench", wait_ms=0)
    yield "update_queue_ms", lambda: running(n), lambda it: it.do(queue)
    yield "update_queue_of_alternatives_ms", lambda: by_second(n), lambda it: it.do(queue)
    yield "cancel_waiting_ms", lambda: waiting(10 * n), lambda it: it.do(c.CancelJob(job_id=1, actor="bench"))
    yield "cancel_running_ms", lambda: running(n), lambda it: it.do(c.CancelJob(job_id=1, actor="bench"))
    yield "cancel_by_index_ms", lambda: waiting(n), lambda it: it.do(c.CancelJob(job_id=1, actor="b", indices=some))
    yield "suspend_ms", lambda: running(n), lambda it: it.do(c.SuspendJob(job_id=1, actor="bench"))
    yield "preempt_running_ms", lambda: running(n), lambda it: it.do(c.PreemptTasks(job_id=1, actor="bench"))
    yield "full_node_drained_ms", lambda: running(n), lambda it: it.do(drain)
    yield "full_node_lost_ms", lambda: running(n), lambda it: it.do(lost)
    yield "retries_due_first_step_ms", lambda: in_backoff(n), lambda it: it.do(c.StepClock())


def figures(scale: int) -> dict[str, object]:
    n = 100_000 // scale
    found: dict[str, object] = {"tasks": n}
    for key, made, entry in cases(n):
        found[key] = entry(made())
    applied = running_jobs(n)
    found["put_fair_share_ms"] = applied.put("default", FairShare())
    found["put_quota_ms"] = applied.put("all", Quota(nominal=Amounts(cpu_milli=10**12)))
    found["put_cap_of_users_ms"] = applied.put("each", Cap(units=9, subject=CapSubject.USER))
    found["put_cap_of_names_ms"] = applied.put("each", Cap(units=9, subject=CapSubject.NAME))
    return found | waits.figures(scale)
