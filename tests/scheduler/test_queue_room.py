"""The planner and queues that run so many tasks at once: nothing is proposed that would be refused, and nothing is forgotten."""

from __future__ import annotations

import pytest

from hasched.scheduler.explain.reason import pending_reason
from hasched.scheduler.gates import QueueRoom
from hasched.statemachine.commands import UpdateJob
from tests.scheduler.test_limit_gate import Limited


@pytest.fixture
def world() -> Limited:
    world = Limited()
    for name in ("n1", "n2"):
        world.node(name, cpu=50)
    world.put("queue", "night", max_running=3)
    return world


def test_a_full_queue_holds_its_jobs_back_and_no_others(world: Limited) -> None:
    jobs = [world.enter(queue="night", count=2) for _ in range(3)]
    other = world.enter(count=9)
    world.settle()
    assert ([job.active for job in jobs], other.active) == ([2, 1, 0], 9)
    assert not world.planner.ready, "who is blocked costs nothing"
    world.end(jobs[0].id, 0)
    world.settle()
    assert [job.active for job in jobs] == [1, 2, 0]


def test_it_says_so_with_the_change_that_lets_one_more_start(world: Limited) -> None:
    job, gang = world.enter(queue="night", count=4), world.enter(queue="night", count=2, gang=True)
    world.settle()
    (blocker,) = QueueRoom().blockers(world.state, job)
    assert blocker.change is not None
    assert (blocker.code, blocker.text) == ("queue_quota", "queue night runs 3 tasks, and its max_running is 3")
    assert (blocker.change.key, blocker.change.value) == ("queue/night.max_running", 4)
    reason = pending_reason(world.state, gang)
    assert reason is not None and reason.code == "queue_quota"
    world.put("queue", "night", max_running=4)
    world.settle()
    (blocker,) = QueueRoom().blockers(world.state, gang)
    assert (job.active, blocker.change and blocker.change.value) == (4, 6)
    world.put("queue", "night", max_running=6)
    assert QueueRoom().blockers(world.state, gang) == []
    world.settle()
    assert gang.active == 2


def test_a_job_that_leaves_a_queue_leaves_room_in_it(world: Limited) -> None:
    one, two = world.enter(queue="night", count=3), world.enter(queue="night")
    world.settle()
    assert (one.active, two.active) == (3, 0)
    world.do(UpdateJob(job_id=one.id, actor="ada", queue="day"))
    world.settle()
    assert two.active == 1


def test_what_is_on_its_way_counts_where_its_job_is_now(world: Limited) -> None:
    one, two = world.enter(queue="day", count=3), world.enter(queue="night", count=2)
    gate = QueueRoom()
    gate.take(world.state, one, 3)
    assert gate.allowed(world.state, two, 2) == 2
    for event in world.apply(UpdateJob(job_id=one.id, actor="ada", queue="night")).events:
        gate.opened(world.state, event)
    gate.key(world.state, two)
    assert gate.allowed(world.state, two, 2) == 0
    gate.take(world.state, one, -3)
    assert (gate.allowed(world.state, two, 2), gate.given_back()) == (2, [("QueueRoom", "night")])
