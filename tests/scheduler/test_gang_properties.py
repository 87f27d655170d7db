"""Gangs in any order of events: never a part of one, never too much on a node, and the first that fits is not left waiting,
whoever behind it holds a node."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hasched.model.spec import JobAffinity, JobSelector, PlacementRules, Resources, Spread, TaskGroup
from hasched.model.states import NodeState
from hasched.statemachine.commands import (
    CancelJob,
    PlaceGang,
    PlacePlan,
    PreemptTasks,
    ResumeJob,
    SetNodeState,
    SuspendJob,
)
from hasched.statemachine.invariants import check, check_capacity
from hasched.statemachine.job import Job
from tests.scheduler.world import World

NODES = ("n1", "n2", "n3", "n4")
OTHERS = JobSelector("job")  # all jobs have this name
RULES = (
    None,
    None,
    PlacementRules(spread=(Spread("rack"),)),
    PlacementRules(spread=(Spread(""),), near=(JobAffinity(OTHERS, "rack"),)),
    PlacementRules(apart=(JobAffinity(OTHERS, "rack"),)),
    PlacementRules(apart=(JobAffinity(OTHERS, ""),)),
    PlacementRules(near=(JobAffinity(OTHERS, "rack", weight=50),)),
)


class GangStory(RuleBasedStateMachine):
    """Plans are decided in the order they were made, and anything may be applied before each."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.on_their_way: list[PlacePlan | PlaceGang] = []
        for number, node in enumerate(NODES):
            self.world.node(node, cpu=4, labels={"rack": str(number // 2)})

    @rule(
        count=st.integers(1, 10),
        min_count=st.integers(0, 10),
        gang=st.booleans(),
        priority=st.sampled_from([{"priority": 0}, {"priority": 1}, {"priority_class": "high"}]),
        rules=st.sampled_from(RULES),
    )
    def submit(
        self, count: int, min_count: int, gang: bool, priority: dict[str, Any], rules: PlacementRules | None
    ) -> None:
        smallest = min(min_count, count)
        if rules is not None:
            priority = {**priority, "placement": rules}
        if gang or smallest:
            self.world.submit(count, gang=gang, min_count=smallest, retries=1, **priority)

    @rule(driver=st.integers(1, 4), workers=st.integers(1, 6))
    def submit_groups(self, driver: int, workers: int) -> None:
        groups = (
            TaskGroup("driver", 1, Resources(cpu_milli=driver * 1000)),
            TaskGroup("worker", workers, Resources(cpu_milli=1000)),
        )
        self.world.submit(1 + workers, gang=True, groups=groups)

    @rule(count=st.integers(1, 5), cpu=st.integers(1, 3), limit_ms=st.sampled_from([0, 5, 50]))
    def submit_others(self, count: int, cpu: int, limit_ms: int) -> None:
        self.world.submit(count, cpu=cpu, limit_ms=limit_ms)

    @rule(data=st.data(), code=st.integers(0, 1))
    def end(self, data: st.DataObject, code: int) -> None:
        active = self.world.active()
        if active:
            job_id, index, _ = data.draw(st.sampled_from(active))
            self.world.end(job_id, index, code)

    @rule(node=st.sampled_from(NODES), state=st.sampled_from(NodeState))
    def judge(self, node: str, state: NodeState) -> None:
        self.world.do(SetNodeState(node_id=node, state=state, reason="judged"))

    @rule(node=st.sampled_from(NODES), cpu=st.integers(0, 6), rack=st.sampled_from("01"))
    def register(self, node: str, cpu: int, rack: str) -> None:
        self.world.node(node, cpu=cpu, labels={"rack": rack})
        self.shrunk = True

    @precondition(lambda self: self.world.state.jobs)
    @rule(number=st.integers(0, 9), command=st.sampled_from([CancelJob, SuspendJob, ResumeJob, PreemptTasks]))
    def steer(self, number: int, command: type[CancelJob]) -> None:
        jobs = list(self.world.state.jobs)
        self.world.do(command(job_id=jobs[number % len(jobs)], actor="ada"))

    @rule(budget=st.integers(1, 12))
    def plan(self, budget: int) -> None:
        plan = self.world.plan(budget)
        if plan is not None:
            self.on_their_way.append(plan)

    @precondition(lambda self: self.on_their_way)
    @rule()
    def decide(self) -> None:
        plan = self.on_their_way.pop(0)
        self.world.do(plan)
        self.world.planner.settle(self.world.state, plan)

    @precondition(lambda self: self.on_their_way)
    @rule()
    def give_up_a_plan(self) -> None:
        self.world.planner.settle(self.world.state, self.on_their_way.pop())

    @precondition(lambda self: not self.on_their_way)
    @rule()
    def take_over(self) -> None:
        for _ in self.world.planner.rebuild(self.world.state):
            pass

    @rule()
    def come_to_rest(self) -> None:
        while self.on_their_way:
            self.decide()
        self.world.settle(budget=7)
        waiting = [job for job in self.world.state.jobs.values() if self.may_start(job)]
        if waiting:
            first = min(waiting, key=lambda job: (-job.priority, job.id))
            held = self.world.planner.held_nodes
            nodes = [node for node in self.usable() if not self.before(held.get(node.id, first.id), first)]
            free = sum(node.room_for(first.resources, first.floor) for node in nodes)
            assert free < max(first.floor, 1) or first.gang is None or first.gang.groups or first.placement, (
                f"gang {first.id} fits, and waits"
            )

    def before(self, holder: int, job: Job) -> bool:
        """Whether who holds a node stands before a job."""
        other = self.world.state.jobs[holder]
        return (-other.priority, other.id) < (-job.priority, job.id)

    def may_start(self, job: Job) -> bool:
        if not job.starts_together or job.active or job.suspended or job.ending:
            return False
        return job.eligible == job.count if job.is_gang else job.eligible >= max(job.floor, 1)

    def usable(self):  # type: ignore[no-untyped-def]
        return [node for node in self.world.state.nodes.values() if node.takes_work]

    @invariant()
    def state_is_sound(self) -> None:
        if hasattr(self, "world"):
            assert check(self.world.state) == []
            assert hasattr(self, "shrunk") or check_capacity(self.world.state) == []


TestGangStory = GangStory.TestCase
TestGangStory.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
