"""Whatever happens in whatever order: the invariants hold, and no task has two outcomes.

`Machine` checks the invariants after every command; here Hypothesis looks for an order that breaks them.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hasched.model.policy import FairShare, PolicyKind
from hasched.model.spec import Resources
from hasched.model.states import EndKind, NodeState, TaskState
from hasched.model.taints import Taint
from hasched.model.wire import AttemptKey
from hasched.statemachine import queries
from hasched.statemachine.commands import (
    AddManager,
    DeleteJob,
    DrainNode,
    EndQuarantine,
    PlaceGang,
    Placement,
    PlacePlan,
    PreemptAttempts,
    PutPolicy,
    QuarantineNode,
    RecordManagers,
    RecordOrigin,
    RemoveManager,
    RemoveNode,
    ResumeJob,
    SetNodeEligibility,
    SetNodeProperties,
    SetNodeState,
    SuspendJob,
    UndrainNode,
    UpdateJob,
)
from hasched.statemachine.digest import digest
from hasched.statemachine.manager import ManagerAddress
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import Job
from tests.statemachine.machine import Machine, retries

NODES = st.sampled_from(["n1", "n2"])
INDICES = st.integers(0, 4)


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.outcomes: dict[tuple[int, int], TaskState] = {}

    def pick(self, number: int) -> Job:
        jobs = self.machine.state.jobs
        return jobs[list(jobs)[number % len(jobs)]]

    @rule(node_id=NODES, cpu=st.integers(1, 4))
    def register(self, node_id: str, cpu: int) -> None:
        self.machine.node(node_id, cpu=cpu)

    @rule(
        count=st.integers(1, 5),
        most=st.integers(0, 2),
        node_lost=st.integers(0, 2),
        initial_ms=st.sampled_from([0, 1000]),
        max_running=st.integers(0, 2),
        cpu_milli=st.sampled_from([0, 500, 3000]),
        priority=st.sampled_from([0, 0, 7]),
        times_ms=st.sampled_from([(0, 0), (0, 0), (1000, 0), (0, 2000), (1000, 2000)]),
        together=st.sampled_from(["", "", "gang", "elastic gang", "elastic"]),
    )
    def submit(
        self,
        count: int,
        most: int,
        node_lost: int,
        initial_ms: int,
        max_running: int,
        cpu_milli: int,
        priority: int,
        times_ms: tuple[int, int],
        together: str,
    ) -> None:
        self.machine.submit(
            gang="gang" in together,
            min_count=(count + 1) // 2 if "elastic" in together else 0,
            priority=priority,
            count=count,
            max_running=0 if together else max_running,
            resources=Resources(cpu_milli=cpu_milli),
            not_before_after_ms=times_ms[0],
            deadline_after_ms=times_ms[1],
            retries=retries(most, node_lost=node_lost, initial_ms=initial_ms),
        )

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), node_id=NODES, indices=st.lists(INDICES, max_size=5))
    def place(self, number: int, node_id: str, indices: list[int]) -> None:
        self.machine.do(PlacePlan(placements=(Placement(self.pick(number).id, node_id, tuple(indices)),)))

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), size=st.integers(1, 5), cut=st.integers(0, 5), swap=st.booleans())
    def place_together(self, number: int, size: int, cut: int, swap: bool) -> None:
        """On one node, or on both."""
        job, names = self.pick(number), ["n2", "n1"] if swap else ["n1", "n2"]
        size = max(size, job.floor)
        parts = [tuple(range(min(cut, size))), tuple(range(min(cut, size), size))]
        there = tuple(Placement(job.id, name, ranks) for name, ranks in zip(names, parts, strict=True) if ranks)
        self.machine.do(PlaceGang(job_id=job.id, placements=there, port=29_400 + number))

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), node_id=NODES, index=INDICES, attempt=st.integers(0, 4))
    def start(self, number: int, node_id: str, index: int, attempt: int) -> None:
        self.machine.start(self.pick(number), index, attempt, node_id)

    @precondition(lambda self: self.machine.state.jobs)
    @rule(
        number=st.integers(0, 9),
        node_id=NODES,
        index=INDICES,
        attempt=st.integers(0, 4),
        kind=st.sampled_from(EndKind),
        code=st.integers(0, 1),
        reason=st.sampled_from(["", "because"]),
    )
    def end(self, number: int, node_id: str, index: int, attempt: int, kind: EndKind, code: int, reason: str) -> None:
        self.machine.end(self.pick(number), index, attempt, node_id, kind=kind, code=code, reason=reason)

    @rule(data=st.data(), kind=st.sampled_from(EndKind), code=st.integers(0, 1))
    def end_what_runs(self, data: st.DataObject, kind: EndKind, code: int) -> None:
        running = [(node, *task) for node in self.machine.state.nodes.values() for task in node.attempts.items()]
        if not running:
            return
        node, (job_id, index), attempt = data.draw(st.sampled_from(running))
        self.machine.end(self.machine.state.jobs[job_id], index, attempt, node.id, kind=kind, code=code)

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), indices=st.lists(st.just(0), max_size=1))
    def cancel(self, number: int, indices: list[int]) -> None:
        self.machine.cancel(self.pick(number), *indices)

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), indices=st.lists(INDICES, max_size=2))
    def preempt(self, number: int, indices: list[int]) -> None:
        self.machine.preempt(self.pick(number), *indices)

    @rule(data=st.data(), number=st.integers(0, 9))
    def preempt_what_runs(self, data: st.DataObject, number: int) -> None:
        running = [
            AttemptKey(*task, attempt)
            for node in self.machine.state.nodes.values()
            for task, attempt in node.attempts.items()
        ]
        if not running:
            return
        winner = self.pick(number)
        keys = data.draw(st.lists(st.sampled_from(running), max_size=3))
        before = {job.id: dict(job.yields or {}) for job in self.machine.state.jobs.values()}
        self.machine.do(PreemptAttempts(attempts=tuple(keys), for_job=winner.id))
        for job in self.machine.state.jobs.values():
            if len(job.yields or {}) > len(before[job.id]):
                assert job.priority < winner.priority, "an equal gave way"

    @rule(data=st.data())
    def checkpoint(self, data: st.DataObject) -> None:
        running = [(node, *task) for node in self.machine.state.nodes.values() for task in node.attempts.items()]
        if running:
            node, (job_id, index), attempt = data.draw(st.sampled_from(running))
            report = self.machine.checkpointed(self.machine.state.jobs[job_id], index, attempt)
            self.machine.report(report, node_id=node.id)

    @precondition(lambda self: self.machine.state.jobs)
    @rule(number=st.integers(0, 9), command=st.sampled_from([SuspendJob, ResumeJob, DeleteJob]))
    def change(self, number: int, command: type[SuspendJob]) -> None:
        job = self.pick(number)
        self.machine.do(command(job_id=job.id, actor="ada"))

    @precondition(lambda self: self.machine.state.jobs)
    @rule(
        number=st.integers(0, 9),
        priority_class=st.sampled_from([None, "low", "high"]),
        not_before_ms=st.sampled_from([None, 0, 1000]),
        deadline_ms=st.sampled_from([None, 0, 1500]),
    )
    def update(
        self, number: int, priority_class: str | None, not_before_ms: int | None, deadline_ms: int | None
    ) -> None:
        job = self.pick(number)
        times: dict[str, int] = {}
        for name, after_ms in (("not_before", not_before_ms), ("deadline", deadline_ms)):
            if after_ms is not None:
                times[f"{name}_{'after_ms' if after_ms else 'ms'}"] = after_ms
        self.machine.do(UpdateJob(job_id=job.id, actor="ada", priority_class=priority_class, **times))

    @rule(half_life_ms=st.sampled_from([60_000, 90_000]), enabled=st.booleans())
    def share(self, half_life_ms: int, enabled: bool) -> None:
        body = FairShare(half_life_ms=half_life_ms, enabled=enabled)
        self.machine.do(PutPolicy(kind=PolicyKind.FAIR_SHARE, name="default", body=body, actor="ada"))

    @rule(node_id=NODES, state=st.sampled_from(NodeState))
    def judge(self, node_id: str, state: NodeState) -> None:
        self.machine.do(SetNodeState(node_id=node_id, state=state, reason="judged"))

    @rule(node_id=NODES)
    def remove(self, node_id: str) -> None:
        self.machine.do(RemoveNode(node_id=node_id, actor="ada"))

    @rule(node_id=NODES, eligible=st.booleans(), reason=st.sampled_from(["", "fan"]))
    def cordon(self, node_id: str, eligible: bool, reason: str) -> None:
        self.machine.do(SetNodeEligibility(node_id=node_id, eligible=eligible, actor="ada", reason=reason))

    @rule(node_id=NODES, wait_ms=st.sampled_from([None, 0, 1000, 3000]), undrain=st.booleans())
    def drain(self, node_id: str, wait_ms: int | None, undrain: bool) -> None:
        self.machine.do(DrainNode(node_id=node_id, actor="ada", wait_ms=wait_ms))
        if undrain:
            self.machine.do(UndrainNode(node_id=node_id, actor="ada"))

    @rule(node_id=NODES, actor=st.sampled_from([None, "", "ada"]))
    def quarantine(self, node_id: str, actor: str | None) -> None:
        if actor is None:
            self.machine.do(QuarantineNode(node_id=node_id, reason="launches fail", wait_ms=1000))
        else:
            self.machine.do(EndQuarantine(node_id=node_id, actor=actor))

    @rule(
        node_id=NODES,
        pool=st.sampled_from(["", "default", "lab"]),
        rack=st.sampled_from(["r1", None]),
        taint=st.sampled_from([Taint("loud"), None]),
        reset=st.booleans(),
    )
    def overrule(self, node_id: str, pool: str, rack: str | None, taint: Taint | None, reset: bool) -> None:
        command = SetNodeProperties(
            node_id=node_id, actor="ada", pool=pool, labels={"rack": rack}, taints={"loud": taint}, reset=reset
        )
        self.machine.do(command)
        node = self.machine.state.nodes.get(node_id)
        if node is not None:
            assert node.info.labels.get("rack") == rack
            assert [each for each in node.info.taints if each.key == "loud"] == ([taint] if taint else [])

    @rule(origin=st.sampled_from(["a", "b", ""]))
    def record_an_origin(self, origin: str) -> None:
        before = self.machine.state.origin
        self.machine.do(RecordOrigin(origin=origin))
        assert self.machine.state.origin == (before or origin)

    @rule(name=st.sampled_from(["m1", "m2", "m3"]), add=st.booleans())
    def change_managers(self, name: str, add: bool) -> None:
        address = ManagerAddress(name, f"https://{name}:7411", f"{name}:7412")
        self.machine.do(
            RecordManagers(members=(address,)),
            AddManager(manager_id=name, actor="ada", api_url=address.api_url, raft_address=address.raft_address)
            if add
            else RemoveManager(manager_id=name, actor="ada"),
        )
        assert len(self.machine.state.managers) >= 1

    @rule(duration_ms=st.sampled_from([0, 1000, 2000]))
    def wait(self, duration_ms: int) -> None:
        self.machine.wait(duration_ms)

    @rule()
    def restart(self) -> None:
        """A manager that comes back from a snapshot has lost nothing."""
        described = {node.id: (node.info, node.said) for node in self.machine.state.nodes.values()}
        before, timers = digest(self.machine.state), self.machine.state.node_timers
        captured = capture(self.machine.state)
        self.machine.state = restore(iter(captured.next_chunk, None))
        assert digest(self.machine.state) == before
        assert self.machine.state.node_timers == timers
        assert {node.id: (node.info, node.said) for node in self.machine.state.nodes.values()} == described

    @invariant()
    def an_outcome_is_final(self) -> None:
        """A rank's success is final with its gang's."""
        for job in self.machine.state.jobs.values():
            for index in range(job.count):
                state = job.task_state(index)
                if state.final and (job.ended or not (job.is_gang and state is TaskState.SUCCEEDED)):
                    assert self.outcomes.setdefault((job.id, index), state) is state

    @invariant()
    def a_waiting_task_can_start_again(self) -> None:
        """Nobody is forgotten: what waits, and isn't in backoff, is what a plan may place now."""
        for job in self.machine.state.jobs.values():
            if job.is_gang and not job.active and not job.ended and not job.in_backoff:
                assert job.eligible == job.count, "a gang in which nothing runs starts again as a whole"

    @invariant()
    def everything_can_be_shown(self) -> None:
        state = self.machine.state
        for job in state.jobs.values():
            assert queries.job_view(state, job.id) is not None
            page = queries.list_tasks(state, job.id)
            assert page is not None and [task.task_index for task in page.tasks] == list(range(job.count))
            for task in page.tasks:
                shown = queries.task_view(state, job.id, task.task_index)
                assert shown is not None and len(shown.attempts) == shown.attempt == job.attempts_made(task.task_index)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
