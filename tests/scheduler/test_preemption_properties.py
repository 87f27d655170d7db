"""Preemption in any order of events: only of a lower priority, gangs whole, elastic jobs no further than they have to."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hasched.model.states import EndKind, NodeState
from hasched.model.wire import AttemptEnded
from hasched.statemachine.apply import Applied
from hasched.statemachine.commands import (
    CancelJob,
    PlaceGang,
    PlacePlan,
    PreemptAttempts,
    ReportAttempts,
    ResumeJob,
    SetNodeState,
    SuspendJob,
)
from hasched.statemachine.events import TasksPreempted
from hasched.statemachine.invariants import check, check_capacity
from hasched.statemachine.job import Job
from hasched.statemachine.rules.preemption import can_yield
from tests.scheduler.world import World

NODES = ("n1", "n2", "n3", "n4", "n5")
LIMIT = 60
SPINS = 500


class PreemptionStory(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.on_their_way: list[PlacePlan | PlaceGang | PreemptAttempts] = []
        for node in NODES:
            self.world.node(node, cpu=3)

    @rule(
        count=st.integers(1, 9),
        cpu=st.integers(1, 3),
        kind=st.sampled_from(["array", "array", "gang", "elastic"]),
        priority_class=st.sampled_from(["low", "medium", "high", "high"]),
        max_running=st.sampled_from([0, 0, 2]),
    )
    def submit(self, count: int, cpu: int, kind: str, priority_class: str, max_running: int) -> None:
        terms: dict[str, int | bool] = {"max_running": max_running} if kind == "array" else {}
        if kind == "gang":
            terms = {"gang": True}
        elif kind == "elastic":
            terms = {"min_count": min(2, count)}
        self.world.submit(count, cpu=cpu, priority_class=priority_class, **terms)  # type: ignore[arg-type]

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        active = self.world.active()
        if active:
            job_id, index, _ = data.draw(st.sampled_from(active))
            self.world.end(job_id, index)

    @rule()
    def give_way(self) -> None:
        """The agents have stopped everybody who was told to."""
        for job, index in self.leaving():
            active = job.attempt_of(index)
            if active is not None:
                now_ms = self.world.now_ms
                ended = AttemptEnded(job.id, index, active.attempt, now_ms, now_ms, EndKind.STOPPED, 15)
                self.world.do(ReportAttempts(node_id=active.node_id, reports=(ended,)))

    def leaving(self) -> list[tuple[Job, int]]:
        return [
            (job, index)
            for job in self.world.state.jobs.values()
            for index in job.active_attempts or ()
            if not can_yield(job, index)
        ]

    @rule(node=st.sampled_from(NODES), state=st.sampled_from(NodeState))
    def judge(self, node: str, state: NodeState) -> None:
        self.world.do(SetNodeState(node_id=node, state=state, reason="judged"))

    @precondition(lambda self: self.world.state.jobs)
    @rule(number=st.integers(0, 9), command=st.sampled_from([CancelJob, SuspendJob, ResumeJob]))
    def steer(self, number: int, command: type[CancelJob]) -> None:
        jobs = list(self.world.state.jobs)
        self.world.do(command(job_id=jobs[number % len(jobs)], actor="ada"))

    @rule(budget=st.integers(1, 12))
    def plan(self, budget: int) -> None:
        plan = self.world.planner.plan(self.world.state, budget)
        if plan is not None:
            self.on_their_way.append(plan)

    @precondition(lambda self: self.on_their_way)
    @rule()
    def decide(self) -> None:
        plan = self.on_their_way.pop(0)
        self.look_at(self.world.apply(plan), plan)
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
        """With everybody gone who was told to, the planner finds an end of it."""
        while self.on_their_way:
            self.decide()
        for _ in range(LIMIT):
            for _ in range(SPINS):
                if not self.world.planner.ready:
                    break
                self.plan(50)
                while self.on_their_way:
                    self.decide()
            assert not self.world.planner.ready, "the planner finds no end"
            if not self.leaving():
                break
            self.give_way()
        else:
            raise AssertionError("one drives out the other for ever")
        self.nobody_waits_who_could_drive_out()

    def nobody_waits_who_could_drive_out(self) -> None:
        state = self.world.state
        for job in state.jobs.values():
            if not job.preempts or not job.eligible or job.suspended or job.ending or job.gang is not None:
                continue
            if job.max_running and job.active >= job.max_running:
                continue
            if any(other.id != job.id and other.preempts and other.eligible for other in state.jobs.values()):
                continue  # they hold nodes for each other
            for node in state.nodes.values():
                if not node.takes_work:
                    continue
                lower = [
                    (state.jobs[job_id], index)
                    for job_id, index in node.attempts
                    if state.jobs[job_id].priority < job.priority
                ]
                free = node.total.cpu_milli - node.allocated_cpu_milli
                made = free + sum(other.request_of(index).cpu_milli for other, index in lower)
                assert made < job.resources.cpu_milli, f"job {job.id} waits, and could have room on {node.id}"

    def look_at(self, applied: Applied, plan: PlacePlan | PlaceGang | PreemptAttempts) -> None:
        state = self.world.state
        for event in applied.events:
            if isinstance(event, TasksPreempted):
                winner, victim = state.jobs[event.for_job], state.jobs[event.job_id]
                assert victim.priority < winner.priority and winner.preempts
                staying = sum(can_yield(victim, index) for index in victim.active_attempts or ())
                if victim.gang is not None:
                    assert not staying or (not victim.gang.whole and staying >= victim.floor), "in part"

    @invariant()
    def state_is_sound(self) -> None:
        if hasattr(self, "world"):
            assert check(self.world.state) == []
            assert check_capacity(self.world.state) == []


TestPreemptionStory = PreemptionStory.TestCase
TestPreemptionStory.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
