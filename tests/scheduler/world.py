"""A state with a planner beside it, in the place of a leader: entries are applied one by one, plans when a test says so."""

from __future__ import annotations

from typing import Any

from hasched.model.ids import AttemptId
from hasched.model.spec import Backoff, JobSpec, Resources, Retries
from hasched.model.states import EndKind, NodeState, PlacementPolicy
from hasched.model.wire import AttemptEnded, NodeInfo
from hasched.scheduler.planner import Planner
from hasched.statemachine.apply import Applied, apply
from hasched.statemachine.commands import (
    BATCH_VERSION,
    Batch,
    Command,
    PlaceGang,
    PlacePlan,
    PreemptAttempts,
    RegisterNode,
    ReportAttempts,
    SetNodeState,
    SubmitJob,
)
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import AttemptsPreempted, JobAccepted, Outcome, PlanTaken
from hasched.statemachine.state import State

START_MS = 1_700_000_000_000


class World:
    def __init__(self, policy: PlacementPolicy = PlacementPolicy.BIN_PACK) -> None:
        self.state = State()
        self.reachable: dict[str, None] = {}
        self.planner = Planner(policy, self.reachable)
        self.submitted = 0
        self.preempted: list[list[str]] = []  # tasks, by command
        self.now_ms = START_MS

    def apply(self, *commands: Command) -> Applied:
        self.now_ms += 1
        applied = apply(self.state, self.state.index + 1, Batch(BATCH_VERSION, self.now_ms, list(commands)))
        assert applied.faults == []
        self.planner.observe(self.state, applied)
        return applied

    def do(self, command: Command) -> Outcome:
        return self.apply(command).outcomes[0]

    def node(
        self,
        node_id: str,
        cpu: int = 4,
        memory: int = 0,
        gpus: int = 0,
        labels: dict[str, str] | None = None,
        **countables: int,
    ) -> None:
        """Register a node with so many cores, and connect it."""
        self.reachable[node_id] = None
        resources = Resources(
            cpu_milli=cpu * 1000, memory_bytes=memory, gpus=gpus, countables=tuple(sorted(countables.items()))
        )
        info = NodeInfo(hostname=node_id, agent_version="1", resources=resources, labels=labels or {})
        self.do(RegisterNode(node_id=node_id, info=info))
        self.planner.node_came_or_went(self.state, node_id)

    def submit(
        self,
        count: int = 1,
        *,
        cpu: int = 1,
        memory: int = 0,
        gpus: int = 0,
        priority: int = 0,
        max_running: int = 0,
        retries: int = 0,
        backoff_ms: int = 0,
        not_before_ms: int = 0,
        limit_ms: int = 0,
        countables: tuple[tuple[str, int], ...] = (),
        actor: str = "ada",
        **fields: Any,
    ) -> Job:
        self.submitted += 1
        spec = JobSpec(
            name="job",
            command=("true",),
            count=count,
            priority=priority,
            max_running=max_running,
            not_before_after_ms=not_before_ms,
            timeout_ms=limit_ms,
            kill_grace_ms=0 if limit_ms else 5_000,
            resources=Resources(cpu_milli=cpu * 1000, memory_bytes=memory, gpus=gpus, countables=countables),
            retries=Retries(max=retries, backoff=Backoff(initial_ms=backoff_ms)),
            **fields,
        )
        outcome = self.do(SubmitJob(submission_id=f"s{self.submitted}", actor=actor, spec=spec))
        assert isinstance(outcome, JobAccepted)
        return self.state.jobs[outcome.job_id]

    def plan(self, budget: int = 1000) -> PlacePlan | PlaceGang | None:
        """The next placements. What has to give way before is told so at once."""
        plan = self.planner.plan(self.state, budget)
        if not isinstance(plan, PreemptAttempts):
            return plan
        outcome = self.do(plan)
        assert isinstance(outcome, AttemptsPreempted) and not outcome.refused
        self.preempted.append([f"{key.job_id}.{key.index}" for key in plan.attempts])
        self.planner.settle(self.state, plan)
        return None

    def decide(self, plan: PlacePlan | PlaceGang) -> PlanTaken:
        """The log takes a plan, and the leader hears of it."""
        outcome = self.do(plan)
        assert isinstance(outcome, PlanTaken)
        self.planner.settle(self.state, plan)
        return outcome

    def settle(self, budget: int = 1000) -> list[str]:
        """Plan and decide until there is nothing to look at; the attempts placed, in order, as `JOB.INDEX@NODE`."""
        placed = []
        while self.planner.ready:
            plan = self.plan(budget)
            if plan is not None:
                assert self.decide(plan).refused == 0, "nothing interfered, so nothing may be refused"
                placed += [f"{p.job_id}.{index}@{p.node_id}" for p in plan.placements for index in p.indices]
        return placed

    def active(self) -> list[AttemptId]:
        return [
            AttemptId(job_id, index, attempt)
            for node in self.state.nodes.values()
            for (job_id, index), attempt in node.attempts.items()
        ]

    def end(self, job_id: int, index: int, code: int = 0) -> None:
        active = self.state.jobs[job_id].attempt_of(index)
        assert active is not None
        ended = AttemptEnded(job_id, index, active.attempt, self.now_ms, self.now_ms, EndKind.EXITED, code)
        self.do(ReportAttempts(node_id=active.node_id, reports=(ended,)))

    def lose(self, node_id: str) -> None:
        self.do(SetNodeState(node_id=node_id, state=NodeState.DISCONNECTED, reason="silent"))
