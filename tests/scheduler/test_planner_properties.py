"""Whatever happens in whatever order: nothing is booked twice, and in the end nothing that fits is left waiting."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hasched.model.policy import THE_GPU_ROOM, FairShare, GpuRoom, PolicyKind
from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.model.states import NodeState, PlacementPolicy
from hasched.scheduler.explain import pending_reason
from hasched.scheduler.order import group_of
from hasched.scheduler.slots import MAX_ATTEMPTS_PER_NODE
from hasched.statemachine.commands import (
    CancelJob,
    PlacePlan,
    PutPolicy,
    RemoveNode,
    ResumeJob,
    SetNodeState,
    StepClock,
    SuspendJob,
    UpdateJob,
)
from hasched.statemachine.invariants import check
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from tests.scheduler.world import World

NODES = ("n1", "n2", "n3")
REQUESTS = st.sampled_from(
    [
        {"cpu": 1},
        {"cpu": 2},
        {"cpu": 1, "memory": 3},
        {"cpu": 0},
        {"cpu": 1, "gpus": 1},
        {"cpu": 0, "countables": (("licence", 2),)},
        {"cpu": 50},
    ]
)


class PlannerStory(RuleBasedStateMachine):
    """Plans are decided in the order they were made, and anything may be applied before each."""

    @initialize(policy=st.sampled_from(PlacementPolicy), kept_for_gpus=st.booleans())
    def begin(self, policy: PlacementPolicy, kept_for_gpus: bool) -> None:
        self.world = World(policy)
        self.kept_for_gpus = kept_for_gpus
        if not kept_for_gpus:
            body = GpuRoom(enabled=False)
            self.world.do(PutPolicy(kind=PolicyKind.GPU_ROOM, name=THE_GPU_ROOM, body=body, actor="ada"))
        self.on_their_way: list[PlacePlan] = []
        self.calm = True  # since the oldest plan on its way was made, nothing has taken away what it relies on

    # What the cluster does

    @rule(node=st.sampled_from(NODES), cpu=st.integers(0, 6), memory=st.integers(0, 8), gpus=st.integers(0, 2))
    def register(self, node: str, cpu: int, memory: int, gpus: int) -> None:
        self.calm = False
        self.world.node(node, cpu=cpu, memory=memory, gpus=gpus, licence=4)

    @rule(node=st.sampled_from(NODES), state=st.sampled_from(NodeState))
    def judge(self, node: str, state: NodeState) -> None:
        self.calm = False
        self.world.do(SetNodeState(node_id=node, state=state, reason="judged"))

    @rule(node=st.sampled_from(NODES))
    def remove(self, node: str) -> None:
        self.world.do(RemoveNode(node_id=node, actor="ada"))

    @rule(node=st.sampled_from(NODES))
    def come_or_go(self, node: str) -> None:
        if self.world.reachable.pop(node, "") is not None:
            self.world.reachable[node] = None
        self.world.planner.node_came_or_went(self.world.state, node)

    @rule(
        request=REQUESTS,
        count=st.integers(1, 9),
        priority=st.integers(0, 2),
        max_running=st.integers(0, 3),
        retries=st.integers(0, 2),
        backoff_ms=st.sampled_from([0, 50]),
        limit_ms=st.sampled_from([0, 40, 200]),
        priority_class=st.sampled_from(["", "", "high"]),
        not_before_ms=st.sampled_from([0, 0, 50]),
        actor=st.sampled_from(["ada", "bob"]),
        queue=st.sampled_from(["default", "default", "batch"]),
    )
    def submit(self, request: dict[str, int], **options: int | str) -> None:
        self.world.submit(**options, **request)

    @rule(data=st.data(), code=st.integers(0, 1))
    def end(self, data: st.DataObject, code: int) -> None:
        active = self.world.active()
        if active:
            job_id, index, _ = data.draw(st.sampled_from(active))
            self.world.end(job_id, index, code)

    @rule(enabled=st.booleans(), ageing_ms=st.sampled_from([0, 20]))
    def order_otherwise(self, enabled: bool, ageing_ms: int) -> None:
        body = FairShare(half_life_ms=60_000, enabled=enabled, ageing_ms=ageing_ms)
        self.world.do(PutPolicy(kind=PolicyKind.FAIR_SHARE, name="default", body=body, actor="ada"))

    @rule(data=st.data(), priority=st.integers(0, 2), queue=st.sampled_from([None, "batch"]))
    def update(self, data: st.DataObject, priority: int, queue: str | None) -> None:
        if self.world.state.jobs:
            job_id = data.draw(st.sampled_from(list(self.world.state.jobs)))
            self.world.do(UpdateJob(job_id=job_id, actor="ada", priority=priority, queue=queue))

    @rule(data=st.data(), what=st.sampled_from([SuspendJob, ResumeJob, CancelJob]))
    def command(self, data: st.DataObject, what: type[SuspendJob | ResumeJob | CancelJob]) -> None:
        if self.world.state.jobs:
            self.calm = False
            self.world.do(what(job_id=data.draw(st.sampled_from(list(self.world.state.jobs))), actor="ada"))

    @rule(ms=st.integers(1, 100))
    def step_clock(self, ms: int) -> None:
        self.world.now_ms += ms
        self.world.do(StepClock())

    # What the leader does

    @rule(budget=st.integers(1, 12))
    def plan(self, budget: int) -> None:
        plan = self.world.plan(budget)
        if plan is not None:
            self.on_their_way.append(plan)

    @precondition(lambda self: self.on_their_way)
    @rule()
    def decide(self) -> None:
        outcome = self.world.decide(self.on_their_way.pop(0))
        assert outcome.refused == 0 or not self.calm
        self.calm = self.calm or not self.on_their_way

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
        rank = self.world.planner._order.rank
        waiting = [job for job in self.world.state.jobs.values() if job.eligible and not job.ended]
        ranks = sorted(rank(group_of(job), job.id) for job in waiting)
        for job in waiting:
            *_, ahead = self.world.planner.count_ahead(job)
            assert ahead == ranks.index(rank(group_of(job), job.id))
        for job in self.world.state.jobs.values():
            assert not self.may_start(job), f"job {job.id} waits, but something of it fits"
            reason = pending_reason(self.world.state, job)
            if reason is not None and reason.code == ReasonCode.WAITING_TURN:
                nodes = self.world.state.nodes
                assert self.world.planner.held_nodes or any(node not in self.world.reachable for node in nodes)
            if job.resources.cpu_milli == 50_000 and reason is not None and job.eligible and not job.suspended:
                assert reason.code in (ReasonCode.UNSATISFIABLE, ReasonCode.NO_NODES, ReasonCode.NOT_BEFORE)

    def may_start(self, job: Job) -> bool:
        if (
            job.suspended
            or job.cancelling
            or job.not_before_ms
            or not job.eligible
            or (job.max_running and job.active >= job.max_running)
        ):
            return False
        held = self.world.planner.held_nodes
        return any(
            node.state is NodeState.HEALTHY
            and held.get(node.id, job.id) == job.id
            and node.id in self.world.reachable
            and node.room_for(job.resources, 1)
            and len(node.attempts) < MAX_ATTEMPTS_PER_NODE
            and not (self.keeps(node) and not job.resources.gpus)
            for node in self.world.state.nodes.values()
        )

    def keeps(self, node: Node) -> bool:
        """Whether a part of the node may be kept beside free GPUs."""
        return self.kept_for_gpus and node.allocated_gpus < node.info.resources.gpus

    @invariant()
    def state_is_sound(self) -> None:
        if hasattr(self, "world"):
            assert check(self.world.state) == []


def test_resources_compare_by_value() -> None:
    assert hash(Resources(cpu_milli=1)) == hash(Resources(cpu_milli=1)), "classes are keyed by the request"


TestPlannerStory = PlannerStory.TestCase
TestPlannerStory.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
