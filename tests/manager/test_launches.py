"""The watch over launches: which nodes are quarantined, for how long, and which never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hasched.manager.launches import LaunchWatch
from hasched.manager.settings import QuarantineSettings
from hasched.model.errors import OutcomeUnknown
from hasched.model.spec import JobSpec, Resources
from hasched.model.states import EndKind
from hasched.model.wire import AttemptEnded, AttemptReport, AttemptStarted, NodeInfo
from hasched.statemachine.commands import (
    EndQuarantine,
    Placement,
    PlacePlan,
    QuarantineNode,
    RegisterNode,
    ReportAttempts,
    SetNodeEligibility,
    StepClock,
    SubmitJob,
)
from hasched.statemachine.control import Quarantine
from tests.manager.local_replica import LocalReplica

SETTINGS = QuarantineSettings(launch_failures=3, window_ms=60_000, initial_ms=10_000, max_ms=15_000)


class Cluster:
    """Nodes, and jobs that are started on them one by one."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.replica = LocalReplica(lambda: self.now_ms, lambda: self.now_ms / 1000)
        self.replica.lead(True)

    def add(self, *node_ids: str) -> None:
        for node_id in node_ids:
            info = NodeInfo(hostname=node_id, agent_version="1", resources=Resources(cpu_milli=64_000))
            self.replica.commit(RegisterNode(node_id=node_id, info=info))

    def launch(self, node_id: str = "n1", *, fails: bool = True, job_id: int = 0, index: int = 0) -> int:
        """A job's launch on a node. Returns the job's id."""
        if not job_id:
            job_id = self.replica.state.next_job_id
            spec = JobSpec(name="job", command=("true",), count=10)
            self.replica.commit(SubmitJob(submission_id=f"s{job_id}", actor="ada", spec=spec))
        self.replica.commit(PlacePlan(placements=(Placement(job_id, node_id, (index,)),)))
        report: AttemptReport = AttemptStarted(job_id, index, 1, self.now_ms)
        if fails:
            kind, why = EndKind.LAUNCH_FAILED, "no such file: python"
            report = AttemptEnded(job_id, index, 1, 0, self.now_ms, kind, reason=why)
        self.replica.commit(ReportAttempts(node_id=node_id, reports=(report,)))
        return job_id

    async def quarantine(self, node_id: str = "n1") -> Quarantine | None:
        """Of the node, once the watch has said what it has to."""
        for _ in range(20):
            await asyncio.sleep(0)
        return self.replica.state.nodes[node_id].control.quarantine

    def wait(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        self.replica.commit(StepClock())


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    cluster.add("n1", "n2")
    watch = asyncio.create_task(LaunchWatch(cluster.replica, SETTINGS).run())
    await asyncio.sleep(0)
    yield cluster
    watch.cancel()


async def test_a_node_is_quarantined_when_launches_of_several_jobs_in_a_row_fail(cluster: Cluster) -> None:
    first = [cluster.launch() for _ in range(2)]
    assert await cluster.quarantine() is None
    last = cluster.launch()
    quarantine = await cluster.quarantine()
    assert quarantine is not None
    assert quarantine.until_ms == cluster.now_ms + 10_000
    assert quarantine.reason == (
        f"launches of 3 jobs in a row failed ({first[0]}, {first[1]}, {last}); the last: no such file: python"
    )


async def test_one_broken_job_is_no_evidence_against_a_node(cluster: Cluster) -> None:
    job_id = cluster.launch()
    for index in range(1, 10):
        cluster.launch(job_id=job_id, index=index)
    assert await cluster.quarantine() is None


async def test_a_launch_that_succeeds_clears_a_node(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.launch()
    cluster.launch(fails=False)
    cluster.launch()
    assert await cluster.quarantine() is None


async def test_what_failed_long_ago_does_not_count(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.launch()
    cluster.wait(SETTINGS.window_ms + 1)
    cluster.launch()
    assert await cluster.quarantine() is None


async def test_broken_jobs_do_not_take_a_whole_cluster_down(cluster: Cluster) -> None:
    """Of two nodes one may be quarantined, of ten two; a node that nobody can stand in for never."""
    for _ in range(9):
        for node_id in ("n1", "n2"):
            cluster.launch(node_id)
    assert await cluster.quarantine("n1") is not None
    assert await cluster.quarantine("n2") is None
    names = [f"n{number}" for number in range(3, 11)]
    cluster.add(*names)
    for node_id in ("n2", *names):
        for _ in range(5):
            cluster.launch(node_id)
    assert [await cluster.quarantine(node_id) is not None for node_id in ("n1", "n2", *names)].count(True) == 2


async def test_the_last_node_that_takes_work_keeps_it(cluster: Cluster) -> None:
    cluster.replica.commit(SetNodeEligibility(node_id="n2", eligible=False, actor="ada"))
    for _ in range(5):
        cluster.launch()
    assert await cluster.quarantine() is None


async def test_on_probation_one_failure_sends_a_node_back_for_longer_up_to_a_bound(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.launch()
    for longer_ms in (15_000, 15_000):
        assert await cluster.quarantine() is not None
        cluster.wait(15_000)
        cluster.launch()
        quarantine = await cluster.quarantine()
        assert quarantine is not None and not quarantine.probation
        assert quarantine.until_ms == cluster.now_ms + longer_ms
        assert quarantine.reason.startswith("a launch failed on probation")


async def test_on_probation_a_launch_that_succeeds_sets_a_node_free(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.launch()
    assert await cluster.quarantine() is not None
    cluster.wait(10_000)
    cluster.launch(fails=False)
    assert await cluster.quarantine() is None
    assert EndQuarantine(node_id="n1") in cluster.replica.commands


async def test_a_verdict_that_is_not_decided_comes_again_with_the_next_failure(cluster: Cluster) -> None:
    cluster.replica.fail_next.append(OutcomeUnknown("nobody answered"))
    for _ in range(3):
        cluster.launch()
    assert await cluster.quarantine() is None
    for _ in range(3):
        cluster.launch()
    assert await cluster.quarantine() is not None


async def test_a_cluster_may_do_without(cluster: Cluster) -> None:
    other = Cluster()
    other.add("n1", "n2")
    watch = asyncio.create_task(LaunchWatch(other.replica, QuarantineSettings(launch_failures=0)).run())
    await asyncio.sleep(0)
    for _ in range(20):
        other.launch()
    assert await other.quarantine() is None
    assert not any(isinstance(command, QuarantineNode) for command in other.replica.commands)
    watch.cancel()
