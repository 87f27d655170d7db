"""A state, and what applying commands to it costs, in CPU time."""

from __future__ import annotations

import time

from hasched.model.policy import Policy, kind_of
from hasched.model.spec import JobSpec, Resources
from hasched.model.wire import NodeInfo
from hasched.statemachine import commands as c
from hasched.statemachine.apply import apply
from hasched.statemachine.state import State

NOW_MS = 1_700_000_000_000
A_NODE = 4096  # tasks, as many as the planner places on one
CORE = Resources(cpu_milli=1000)


class Applied:
    """A state, and what applying commands to it has cost."""

    def __init__(self) -> None:
        self.state = State()
        self.now_ms = NOW_MS

    def do(self, *commands: c.Command) -> float:
        """One log entry, decoded already. Milliseconds of CPU."""
        batch = c.decode_batch(c.encode_batch(self.now_ms, [c.encode_command(command) for command in commands]))
        began_s = time.thread_time()
        applied = apply(self.state, self.state.index + 1, batch)
        took_ms = (time.thread_time() - began_s) * 1000
        assert not applied.faults and applied.events
        return took_ms

    def put(self, name: str, body: Policy) -> float:
        return self.do(c.PutPolicy(kind=kind_of(body), name=name, body=body, actor="bench"))

    def submit(self, jobs: int = 1, **fields: object) -> range:
        """In one entry."""
        self.time_submissions(jobs, **fields)
        return range(self.state.next_job_id - jobs, self.state.next_job_id)

    def time_submissions(self, jobs: int, **fields: object) -> float:
        """Likewise, in milliseconds."""
        first, submissions = self.state.next_job_id, []
        for number in range(first, first + jobs):
            spec = JobSpec(**{"name": f"job-{number}", "command": ("true",), "resources": CORE, **fields})
            submissions.append(c.SubmitJob(submission_id=f"s{number}", actor=f"user-{number % 1000}", spec=spec))
        return self.do(*submissions)

    def start(self, tasks: list[tuple[int, int]], choice: int = 0) -> None:
        """These (job, index), `A_NODE` on each node, and nodes for them."""
        for number, at in enumerate(range(0, len(tasks), A_NODE)):
            info = NodeInfo(hostname="h", agent_version="1", resources=Resources(cpu_milli=10**9))
            self.do(c.RegisterNode(node_id=f"n{number}", info=info))
            by_job: dict[int, list[int]] = {}
            for job_id, index in tasks[at : at + A_NODE]:
                by_job.setdefault(job_id, []).append(index)
            placements = (c.Placement(job, f"n{number}", tuple(some), choice) for job, some in by_job.items())
            self.do(c.PlacePlan(placements=tuple(placements)))
