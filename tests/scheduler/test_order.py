"""Who is first: a total order by queue, priority, age and share; nobody starves who shouldn't; shares come out as the weights."""

from __future__ import annotations

import heapq
import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasched.model.policy import FairShare, Namespace, Policy, Queue, kind_of
from hasched.scheduler.order import ByPolicies, ByPriority, group_of
from hasched.statemachine.commands import PutPolicy, UpdateJob
from hasched.statemachine.job import Job
from tests.scheduler.world import World

HOUR = 3_600_000


def put(world: World, name: str, body: Policy) -> None:
    world.do(PutPolicy(kind=kind_of(body), name=name, body=body, actor="ada"))


def started(world: World) -> list[int]:
    """The jobs that start one after the other on a node of one core, to the last."""
    if "one" not in world.state.nodes:
        world.node("one", cpu=1)
    order: list[int] = []
    while True:
        placed = world.settle()
        if not placed:
            return order
        (task,) = placed
        job_id, index = map(int, task.partition("@")[0].split("."))
        order.append(job_id)
        world.end(job_id, index)


def ids(*jobs: Job) -> list[int]:
    return [job.id for job in jobs]


def test_queues_come_before_priorities_and_these_before_age() -> None:
    world = World()
    put(world, "night", Queue(priority=-1))
    put(world, "urgent", Queue(priority=5))
    night = world.submit(priority=900, queue="night")
    old, young, high = world.submit(), world.submit(), world.submit(priority=1)
    urgent = world.submit(queue="urgent")
    assert started(world) == ids(urgent, high, old, young, night)


def test_a_queue_that_is_given_another_priority_moves_what_waits_in_it() -> None:
    world = World()
    first, second = world.submit(), world.submit(queue="batch")
    put(world, "batch", Queue(priority=1))
    assert started(world) == ids(second, first)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_ranks_are_a_total_order_and_equals_are_first_come_first_served(data: st.DataObject) -> None:
    world = World()
    put(
        world,
        "batch",
        Queue(priority=data.draw(st.integers(-1, 1)), weight_milli=data.draw(st.sampled_from([500, 1000]))),
    )
    put(world, "default", FairShare(enabled=data.draw(st.booleans()), ageing_ms=data.draw(st.sampled_from([0, 1, 5]))))
    world.node("n1", cpu=4)
    jobs = []
    for _ in range(data.draw(st.integers(2, 12))):
        priority, queue = data.draw(st.integers(0, 2)), data.draw(st.sampled_from(["default", "batch"]))
        jobs.append(world.submit(priority=priority, queue=queue, actor=data.draw(st.sampled_from(["ada", "bob"]))))
        if data.draw(st.booleans()):
            world.settle()
    order = ByPolicies()
    order.rebuild(world.state)
    ranks = [order.rank(group_of(job), job.id) for job in jobs]  # the first look makes the keys,
    ranks = [order.rank(group_of(job), job.id) for job in jobs]  # and knows then how many queues there are
    assert len(set(ranks)) == len(jobs)
    for earlier, later in itertools.pairwise(jobs):
        if group_of(earlier) == group_of(later):
            assert order.rank(group_of(earlier), earlier.id) < order.rank(group_of(later), later.id)


class TestAgeing:
    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 300)), min_size=2, max_size=8), st.integers(1, 50))
    def test_priority_is_worth_so_much_waiting(self, jobs: list[tuple[int, int]], ageing_ms: int) -> None:
        """Whoever is ahead once both wait is ahead for ever, and that by a whole point at least, or of the same level."""
        world = World()
        put(world, "default", FairShare(enabled=False, ageing_ms=ageing_ms))
        submitted = []
        for priority, pause_ms in jobs:
            world.now_ms += pause_ms
            submitted.append(world.submit(priority=priority))
        order = ByPolicies()
        order.rebuild(world.state)
        for one in submitted:
            for other in submitted:
                gained = (other.submitted_ms - one.submitted_ms) / ageing_ms + one.priority - other.priority
                if gained >= 1:
                    assert order.rank(group_of(one), one.id) < order.rank(group_of(other), other.id)

    def test_nobody_starves_behind_a_stream_of_the_highest_priority(self) -> None:
        world = World()
        put(world, "default", FairShare(enabled=False, ageing_ms=10))
        low = world.submit()
        for number in range(100):
            high = world.submit(priority=5)
            (job_id, *_) = started_once(world)
            if job_id == low.id:
                assert number <= 6  # entries pass a millisecond each, so after 60 of them nobody is before it
                return
            assert job_id == high.id or world.state.jobs[job_id].priority == 5
            world.now_ms += 10
        raise AssertionError("it never started")

    def test_without_it_a_stream_of_a_higher_priority_goes_first(self) -> None:
        world = World()
        low = world.submit()
        for _ in range(20):
            high = world.submit(priority=5)
            world.now_ms += HOUR
            assert started_once(world) == [high.id]
        assert not low.active


def started_once(world: World) -> list[int]:
    """The job that starts next on a node of one core; it ends at once."""
    if "one" not in world.state.nodes:
        world.node("one", cpu=1)
    plan = world.plan()
    assert plan is not None
    world.decide(plan)
    jobs = [placement.job_id for placement in plan.placements]  # type: ignore[union-attr]
    for job_id in jobs:
        world.end(job_id, 0)
    return jobs


class TestFairShare:
    def test_who_has_used_less_goes_first_and_equals_by_age(self) -> None:
        world = World()
        world.node("n1", cpu=8)
        put(world, "default", FairShare())
        busy = world.submit(count=8, actor="ada")
        world.settle()
        world.now_ms += 10 * HOUR
        first, second, third = world.submit(actor="ada"), world.submit(actor="bob"), world.submit(actor="bob")
        for index in range(8):
            world.end(busy.id, index)
        world.lose("n1")
        assert started(world) == ids(second, third, first)

    def test_priority_stands_above_shares(self) -> None:
        world = World()
        put(world, "default", FairShare())
        world.node("n1", cpu=8)
        world.submit(count=8, actor="ada")
        world.settle()
        world.now_ms += 10 * HOUR
        plain, urgent = world.submit(actor="bob"), world.submit(actor="ada", priority=1)
        assert started(world) == ids(urgent, plain)

    def test_accounts_that_are_even_take_turns(self) -> None:
        """Neither waits until the other's last task has started, though nothing that was placed has used anything yet."""
        world = World()
        put(world, "default", FairShare())
        ada, bob = world.submit(count=100, actor="ada"), world.submit(count=100, actor="bob")
        world.node("n1", cpu=40)
        world.settle()
        assert (ada.active, bob.active) == (20, 20)

    @pytest.mark.parametrize(
        ("ada", "bob"),
        [
            pytest.param({"actor": "ada"}, {"actor": "bob"}, id="users"),
            pytest.param({"namespace": "red"}, {"namespace": "blue"}, id="namespaces"),
            pytest.param({"queue": "one"}, {"queue": "other"}, id="queues"),
        ],
    )
    def test_who_stops_to_use_much_is_first_again(self, ada: dict[str, str], bob: dict[str, str]) -> None:
        """All wait the whole time, for a room that isn't there: ada's place has to be made a better one while she waits."""
        world = World()
        put(world, "red", Namespace())
        put(world, "blue", Namespace())
        put(world, "default", FairShare())
        world.node("n1", cpu=12)
        heavy, light = world.submit(count=8, **ada), world.submit(count=4, **bob)
        world.settle()
        bobs = world.submit(**bob)
        adas = world.submit(**{"actor": "eve", **ada})  # a user of hers, who has used nothing himself
        assert world.settle() == []
        world.node("n1", cpu=4)  # what becomes free now is gone at once
        for index in range(heavy.count):
            world.end(heavy.id, index)
        world.now_ms += 2_000
        world.submit(cpu=99)  # anything that happens
        assert (light.active, world.settle()) == (4, [])
        assert started(world) == ids(adas, bobs)

    def test_switched_on_while_work_waits_it_counts_at_once(self) -> None:
        world = World()
        ada, bob = world.submit(count=100, actor="ada"), world.submit(count=100, actor="bob")
        world.node("n1", cpu=8)
        world.settle()
        assert (ada.active, bob.active) == (8, 0)
        put(world, "default", FairShare())
        world.now_ms += HOUR
        world.node("n2", cpu=16)
        world.settle()
        assert (ada.active, bob.active) == (12, 12)

    def test_another_queue_moves_what_is_counted(self) -> None:
        world = World()
        put(world, "default", FairShare())
        put(world, "heavy", Queue(weight_milli=3000))
        light, heavy = world.submit(count=100), world.submit(count=100, queue="heavy", actor="bob")
        world.node("n1", cpu=40)
        world.settle()
        assert abs(heavy.active - 30) <= 4
        world.do(UpdateJob(job_id=light.id, actor="ada", queue="heavy"))
        order = ByPolicies()
        order.rebuild(world.state)
        assert order.rank(group_of(light), light.id)[1] == order.rank(group_of(heavy), heavy.id)[1]


DUE = {("red", "ada"): 0.1875, ("red", "bob"): 0.5625, ("blue", "eve"): 0.25}


@pytest.mark.parametrize("seed", range(2))
def test_shares_come_out_as_the_weights_when_everybody_wants_everything(seed: int) -> None:
    """Three users in two namespaces, jobs of one task to thirty, tasks that run ten times as long as others, a full node.

    After four half-lives everybody has what is his due: blue a quarter, and of red's rest bob three quarters.
    """
    dice, world, half_life_ms = Random(seed), World(), 4 * HOUR
    weights = (("blue", 1000), ("blue/eve", 1000), ("red", 3000), ("red/ada", 1000), ("red/bob", 3000))
    put(world, "red", Namespace())
    put(world, "blue", Namespace())
    put(world, "default", FairShare(half_life_ms=half_life_ms, weights=weights))
    world.node("n1", cpu=32)
    waiting: dict[tuple[str, str], list[Job]] = {name: [] for name in DUE}
    ends: list[tuple[int, int, int]] = []
    over_ms = world.now_ms + 4 * half_life_ms
    while world.now_ms < over_ms:
        for (namespace, user), jobs in waiting.items():
            jobs[:] = [job for job in jobs if job.eligible]
            while sum(job.eligible for job in jobs) < 32:
                jobs.append(world.submit(count=dice.choice((1, 4, 30)), actor=user, namespace=namespace))
        for placed in world.settle():
            job_id, index = map(int, placed.partition("@")[0].split("."))
            heapq.heappush(ends, (world.now_ms + int(HOUR * dice.choice((0.1, 0.3, 1.0))), job_id, index))
        end_ms, job_id, index = heapq.heappop(ends)
        world.now_ms = max(world.now_ms, end_ms)
        world.end(job_id, index)
    shares = world.state.shares
    assert shares is not None
    used = {name: shares.usage(shares.users[name], world.now_ms) for name in DUE}
    parts = {name: usage / sum(used.values()) for name, usage in used.items()}
    assert parts == pytest.approx(DUE, abs=0.02)


def test_without_policies_the_order_is_that_of_priorities() -> None:
    world = World()
    jobs = [world.submit(priority=number % 3) for number in range(9)]
    orders = ByPolicies(), ByPriority()
    for order in orders:
        order.rebuild(world.state)
    plain, usual = (
        [job.id for job in sorted(jobs, key=lambda job: order.rank(group_of(job), job.id))] for order in orders
    )
    assert plain == usual


def test_a_class_whose_first_job_is_gone_has_a_place_still() -> None:
    world = World()
    put(world, "default", FairShare(ageing_ms=5))
    order = ByPolicies()
    order.rebuild(world.state)
    assert order.rank(group_of(world.submit()), 999)[-1] == 999
