"""Random rules on random clusters, against a reader of the rules as plain as can be, which counts everything anew each time."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hasched.model.policy import THE_GPU_ROOM, GpuRoom, PolicyKind
from hasched.model.reasons import ReasonCode
from hasched.model.spec import (
    JobAffinity,
    JobSelector,
    NodePreference,
    PlacementRules,
    Resources,
    Spread,
    Toleration,
)
from hasched.model.states import NodeState, PlacementPolicy
from hasched.scheduler.filters import find_blockers
from hasched.statemachine.commands import Placement, PlacePlan, PutPolicy, RemoveNode, SetNodeState
from hasched.statemachine.invariants import check
from hasched.statemachine.job import Job
from hasched.statemachine.node import Node
from hasched.statemachine.outcomes import PlanTaken
from tests.scheduler.places import Places, gpu

NODES = ("n1", "n2", "n3", "n4")
NAMES = ("web", "db")
CONSTRAINTS = {
    "label.rack == a": lambda node: node.info.labels.get("rack") == "a",
    "not has label.rack or label.rack in [b, c]": lambda node: node.info.labels.get("rack") in (None, "b", "c"),
    "node != n2": lambda node: node.id != "n2",
    "gpu.count >= 1": lambda node: len(node.info.gpus) >= 1,
}
SELECTORS = st.sampled_from([JobSelector(), JobSelector("db"), JobSelector(labels=(("app", "x"),))])
AFFINITIES = st.lists(
    st.builds(JobAffinity, SELECTORS, st.sampled_from(["", "rack"]), st.sampled_from([0, 0, 50])), max_size=1
).map(tuple)
RULES = st.builds(
    PlacementRules,
    pools=st.sampled_from([("default",), ("default", "p"), ("*",)]),
    constraints=st.lists(st.sampled_from(sorted(CONSTRAINTS)), max_size=1).map(tuple),
    prefer=st.sampled_from([(), (NodePreference("label.rack == b", 70),)]),
    near=AFFINITIES,
    apart=AFFINITIES,
    spread=st.lists(
        st.builds(Spread, st.sampled_from(["", "rack"]), st.integers(1, 2), st.sampled_from([0, 0, 50])), max_size=1
    ).map(tuple),
    tolerations=st.sampled_from([(), (Toleration("t"),), (Toleration("t", "2"),), (Toleration("*"),)]),
    any_of=st.sampled_from(
        [
            (),
            (),
            (Resources(gpus=1, gpu_models=("A100",)), Resources(cpu_milli=1000, gpus=1), Resources(cpu_milli=2000)),
        ]
    ),
)
STATIC = (ReasonCode.POOL, ReasonCode.TAINT, ReasonCode.CONSTRAINT)
DEVICES = st.lists(st.sampled_from([gpu("NVIDIA A100", 40), gpu("Tesla T4")]), max_size=3)


class PlacesStory(RuleBasedStateMachine):
    """One task at a time is proposed and decided, so that each can be judged by what ran when it was placed."""

    @initialize(policy=st.sampled_from(PlacementPolicy), kept_for_gpus=st.booleans())
    def begin(self, policy: PlacementPolicy, kept_for_gpus: bool) -> None:
        self.world = Places(policy)
        self.kept_for_gpus = kept_for_gpus
        if not kept_for_gpus:
            body = GpuRoom(enabled=False)
            self.world.do(PutPolicy(kind=PolicyKind.GPU_ROOM, name=THE_GPU_ROOM, body=body, actor="ada"))

    # What the cluster does

    @rule(
        node=st.sampled_from(NODES),
        cpu=st.integers(0, 5),
        devices=DEVICES,
        pool=st.sampled_from(["default", "default", "p"]),
        taints=st.sampled_from([[], [], ["t=1"], ["t=2"], ["t:avoid"]]),
        labels=st.sampled_from([{}, {"rack": "a"}, {"rack": "b"}, {"rack": "c"}]),
    )
    def register(
        self, node: str, cpu: int, devices: list, pool: str, taints: list[str], labels: dict[str, str]
    ) -> None:  # type: ignore[type-arg]
        self.world.place(node, cpu, gpus=devices, pool=pool, taints=taints, **labels)

    @rule(node=st.sampled_from(NODES), state=st.sampled_from(NodeState))
    def judge(self, node: str, state: NodeState) -> None:
        self.world.do(SetNodeState(node_id=node, state=state, reason="judged"))

    @rule(node=st.sampled_from(NODES))
    def remove(self, node: str) -> None:
        self.world.do(RemoveNode(node_id=node, actor="ada"))

    @rule(
        rules=RULES,
        count=st.integers(1, 6),
        name=st.sampled_from(NAMES),
        app=st.sampled_from(["", "x"]),
        max_running=st.integers(0, 3),
    )
    def submit(self, rules: PlacementRules, count: int, name: str, app: str, max_running: int) -> None:
        labels = {"app": app} if app else {}
        self.world.ask(count, rules, name=name, labels=labels, max_running=max_running)

    @rule(data=st.data(), code=st.integers(0, 1))
    def end(self, data: st.DataObject, code: int) -> None:
        active = self.world.active()
        if active:
            job_id, index, _ = data.draw(st.sampled_from(active))
            self.world.end(job_id, index, code)

    @rule()
    def take_over(self) -> None:
        for _ in self.world.planner.rebuild(self.world.state):
            pass

    # What the leader does

    @precondition(lambda self: self.world.planner.ready)
    @rule()
    def place_one(self) -> None:
        plan = self.world.plan(budget=1)
        if plan is None:
            return
        (placement,) = plan.placements
        (index,) = placement.indices
        job, node = self.world.state.jobs[placement.job_id], self.world.state.nodes[placement.node_id]
        assert self.may_run(job, node), f"task {job.id}.{index} was sent to {node.id}"
        better = range(placement.choice)
        assert not any(self.fits_anywhere(job, choice) for choice in better), "a preferred request would have fitted"
        assert self.world.decide(plan).refused == 0

    # What another leader does, whose plan comes late

    @precondition(lambda self: self.world.state.jobs)
    @rule(number=st.integers(0, 9), node_id=st.sampled_from(NODES))
    def propose(self, number: int, node_id: str) -> None:
        jobs = list(self.world.state.jobs.values())
        job, node = jobs[number % len(jobs)], self.world.state.nodes.get(node_id)
        index = next(job.pending_indices(), None)
        if node is None or index is None:
            return
        may = self.may_run(job, node) and node.takes_work and node.room_for(job.request(0), 1)
        may = may and not (job.max_running and job.active >= job.max_running)
        outcome = self.world.do(PlacePlan(placements=(Placement(job.id, node_id, (index,)),)))
        assert isinstance(outcome, PlanTaken)
        assert bool(outcome.scheduled) is bool(may), f"task {job.id}.{index} on {node_id}"

    @rule()
    def come_to_rest(self) -> None:
        self.world.settle(budget=5)
        for job in self.world.state.jobs.values():
            if job.eligible and not (job.max_running and job.active >= job.max_running):
                choices = range(len(job.placement.any_of) if job.placement else 1)
                fits = [choice for choice in choices or (0,) if self.fits_anywhere(job, choice)]
                assert not fits, f"job {job.id} waits, but its request {fits[0]} fits"

    @invariant()
    def the_state_is_sound(self) -> None:
        assert check(self.world.state) == []

    # What the rules say

    def fits_anywhere(self, job: Job, choice: int) -> bool:
        held = self.world.planner.held_nodes  # for who stands before
        nodes = [node for node in self.world.state.nodes.values() if self.usable(node) and node.id not in held]
        if self.kept_for_gpus and not job.request(choice).gpus:  # beside free GPUs a part is kept
            nodes = [node for node in nodes if node.allocated_gpus >= node.info.resources.gpus]
        return any(self.may_run(job, node) and node.room_for(job.request(choice), 1) for node in nodes)

    def usable(self, node: Node) -> bool:
        return node.takes_work and node.id in self.world.reachable

    def may_run(self, job: Job, node: Node) -> bool:
        """Whether every rule that must hold does, if one more task of the job starts on the node."""
        if not self.admits(job, node):
            return False
        rules = job.placement or PlacementRules()
        for near in rules.near:
            if near.weight or (near.jobs.means_itself and job.count == 1):
                continue
            running = list(self.running(job, near.jobs))
            first = not running and (near.jobs.means_itself or near.jobs.selects(job.name, job.labels))
            if self.place_of(node, near.within) is None:
                return False
            if not first and not any(self.same_place(node, other, near.within) for other in running):
                return False
        for apart in rules.apart:
            running = [] if apart.weight else list(self.running(job, apart.jobs))
            if any(self.same_place(node, other, apart.within) for other in running):
                return False
        for spread in rules.spread:
            if spread.weight or job.count == 1:
                continue
            places = [
                self.place_of(each, spread.label) for each in self.world.state.nodes.values() if self.counts(job, each)
            ]
            counted = [self.place_of(other, spread.label) for other in self.running(job, JobSelector())]
            here = self.place_of(node, spread.label)
            lowest = min(counted.count(place) for place in places if place is not None) if any(places) else 0
            if here is None or counted.count(here) + 1 - lowest > spread.max_skew:
                return False
        return True

    def counts(self, job: Job, node: Node) -> bool:
        return self.usable(node) and self.admits(job, node)

    def admits(self, job: Job, node: Node) -> bool:
        rules = job.placement or PlacementRules()
        in_pool = "*" in rules.pools or node.info.pool in rules.pools
        tolerated = all(
            taint.effect.value == "avoid"
            or any(each.key in ("*", taint.key) and each.value in (None, taint.value) for each in rules.tolerations)
            for taint in node.info.taints
        )
        admitted = in_pool and tolerated and all(CONSTRAINTS[each](node) for each in rules.constraints)
        assert admitted is not any(blocker.code in STATIC for blocker in find_blockers(node.facts, job))
        return admitted

    def running(self, job: Job, selector: JobSelector) -> Iterator[Node]:
        """The node of each task that the selector of a job's rule means."""
        for other in self.world.state.jobs.values():
            if other.id == job.id if selector.means_itself else selector.selects(other.name, other.labels):
                for active in (other.active_attempts or {}).values():
                    yield self.world.state.nodes[active.node_id]

    def place_of(self, node: Node, label: str) -> str | None:
        return node.info.labels.get(label) if label else node.id

    def same_place(self, one: Node, other: Node, label: str) -> bool:
        place = self.place_of(one, label)
        return place is not None and place == self.place_of(other, label)


TestPlacesStory = PlacesStory.TestCase
TestPlacesStory.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
