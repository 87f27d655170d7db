"""A world whose nodes have labels, pools, taints and GPUs of several models, and jobs with placement rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hasched.model.spec import ANYWHERE, JobSpec, PlacementRules, Resources
from hasched.model.taints import parse_taint
from hasched.model.wire import GpuDevice, NodeInfo
from hasched.statemachine.commands import RegisterNode, SubmitJob
from hasched.statemachine.job import Job
from hasched.statemachine.outcomes import JobAccepted
from tests.scheduler.world import World

GIB = 2**30
ONE_CORE = Resources(cpu_milli=1000)


def gpu(model: str, gib: int = 16, numa_node: int = -1, nvlink_group: int = -1) -> GpuDevice:
    return GpuDevice(f"GPU-{model}", model, gib * GIB, numa_node, nvlink_group)


class Places(World):
    def place(
        self,
        node_id: str,
        cpu: int = 4,
        *,
        gpus: Sequence[GpuDevice] = (),
        pool: str = "default",
        taints: Sequence[str] = (),
        attributes: dict[str, str] | None = None,
        disk_bytes: int = 0,
        **labels: str,
    ) -> None:
        """Register a node with so many cores and these labels, and connect it."""
        self.reachable[node_id] = None
        info = NodeInfo(
            hostname=node_id,
            agent_version="1",
            resources=Resources(cpu_milli=cpu * 1000, gpus=len(gpus), disk_bytes=disk_bytes),
            labels=labels,
            gpus=tuple(gpus),
            pool=pool,
            taints=tuple(map(parse_taint, taints)),
            attributes=attributes or {},
        )
        self.do(RegisterNode(node_id=node_id, info=info))
        self.planner.node_came_or_went(self.state, node_id)

    def ask(
        self,
        count: int = 1,
        rules: PlacementRules = ANYWHERE,
        *,
        name: str = "job",
        labels: dict[str, str] | None = None,
        resources: Resources = ONE_CORE,
        **more: Any,
    ) -> Job:
        """Submit a job."""
        self.submitted += 1
        resources = rules.any_of[0] if rules.any_of else resources
        spec = JobSpec(
            name=name,
            command=("true",),
            count=count,
            resources=resources,
            labels=labels or {},
            placement=rules,
            **more,
        )
        outcome = self.do(SubmitJob(submission_id=f"s{self.submitted}", actor="ada", spec=spec))
        assert isinstance(outcome, JobAccepted), outcome
        return self.state.jobs[outcome.job_id]

    def nodes_of(self, job: Job) -> list[str]:
        """Where its tasks run, sorted."""
        return sorted(active.node_id for active in (job.active_attempts or {}).values())
