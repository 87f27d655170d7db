"""Bytes a manager needs for a queued job, a waiting array task and a finished one.

Measured twice: the state machine alone (exact, by tracemalloc), and the resident memory of a real leader.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable

import psutil

from benchmarks.cluster import Cluster
from benchmarks.submissions import Target, submit_batches
from hasched.model.parse import parse_spec
from hasched.model.spec import Resources
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, NodeInfo
from hasched.statemachine.apply import apply
from hasched.statemachine.commands import (
    Batch,
    Command,
    Placement,
    PlacePlan,
    RegisterNode,
    ReportAttempts,
    SubmitJob,
    decode_batch,
    encode_batch,
    encode_command,
)
from hasched.statemachine.state import State

TRUE = b'{"command": ["/bin/true"], "resources": {"cpu": "0.01"}}'


class _Machine:
    """A state machine that is fed entries as a manager is: decoded from bytes, so that nothing is shared by accident."""

    def __init__(self) -> None:
        self.state = State()

    def do(self, *commands: Command) -> None:
        entry = encode_batch(1_700_000_000_000, [encode_command(command) for command in commands])
        batch: Batch = decode_batch(entry)
        apply(self.state, self.state.index + 1, batch)


def state_bytes(count: int = 100_000) -> dict[str, float]:
    """Bytes per queued single-task job, per waiting and per finished task of one array of `count`."""
    spec = parse_spec(TRUE)
    array = parse_spec(TRUE[:-1] + f', "count": {count}}}'.encode())
    node = NodeInfo(hostname="n1", agent_version="0", resources=Resources(cpu_milli=10**9))

    machine = _Machine()

    def queue() -> None:
        for first in range(0, count, 1000):
            machine.do(
                *(SubmitJob(submission_id=f"{n:032x}", actor="a", spec=spec) for n in range(first, first + 1000))
            )

    queued = _growth(queue) / count

    arrays = _Machine()
    arrays.do(RegisterNode(node_id="n1", info=node))
    waiting = _growth(lambda: arrays.do(SubmitJob(submission_id="array", actor="a", spec=array))) / count
    job = arrays.state.next_job_id - 1

    def finish() -> None:
        for first in range(0, count, 1000):
            indices = tuple(range(first, min(first + 1000, count)))
            arrays.do(PlacePlan(placements=(Placement(job, "n1", indices),)))
            reports = tuple(
                AttemptEnded(job, index, 1, 1_700_000_000_001, 1_700_000_000_005, EndKind.EXITED) for index in indices
            )
            arrays.do(ReportAttempts(node_id="n1", reports=reports))

    finished = waiting + _growth(finish) / count
    return {"queued_job": queued, "waiting_task": waiting, "finished_task": finished}


def _growth(work: Callable[[], None]) -> float:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def leader_bytes_per_queued_job(cluster: Cluster, jobs: int = 100_000) -> float:
    """Growth of a real leader's resident memory, journal and event buffer included, per queued job."""
    pid = cluster.processes()[cluster.leader()]
    before = psutil.Process(pid).memory_info().rss
    asyncio.run(submit_batches(Target(cluster), jobs))
    return (psutil.Process(pid).memory_info().rss - before) / jobs
