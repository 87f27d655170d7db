"""The workloads at work on a real cluster that nobody disturbs: every promise holds, and every one of them was looked at."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from types import SimpleNamespace

import pytest

from chaos import final, judge, settle
from chaos.amounts import amounts_of
from chaos.checkers.history import Ending
from chaos.cluster.own import OwnCluster
from chaos.observer import Observer
from chaos.record import Record
from chaos.registry import Registry
from chaos.safety.ledger import Ledger
from chaos.workloads.desk import STALE_READ, Desk
from chaos.workloads.jobs import job, sleep
from chaos.workloads.mixed_resources import draw_job
from hasched.model.parse import parse_spec
from hasched.model.spec import Resources

SECONDS = 6.0
LATEST_S = 60.0


async def work(cluster, workloads, record):
    """Every workload for a while, and then to its end; gives what has not ended."""
    over = asyncio.Event()
    async with Observer(cluster, record):
        async with asyncio.TaskGroup() as group:
            for workload in workloads:
                for number in range(1, workload.clients + 1):
                    name = f"{workload.name}-{number}"
                    group.create_task(one_client(workload, name, cluster, record, over))
            await asyncio.sleep(SECONDS)
            over.set()
        return await settle.drained(cluster, record, LATEST_S)


async def one_client(workload, name, cluster, record, over):
    async with Desk(name, cluster, record, f"1 {name}", over) as desk:
        await workload.run(desk)


async def look_at_work_that_does_not_end(cluster):
    """What is said of it after a moment."""
    record = Record()
    async with Desk("late", cluster, record, "1", asyncio.Event()) as desk:
        submission_id = desk.new_id()
        told = await desk.submit(job(sleep(60)), submission_id)
        left = await settle.drained(cluster, record, 0.5)
        await desk.cancel(submission_id, told.id)
    return left, await settle.drained(cluster, record, LATEST_S)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run left: its record, what the cluster said at the end, and the verdicts."""

    async def do():
        seen = SimpleNamespace(workloads=list(Registry().workloads.values()), record=Record())
        with Ledger.open("chaos", command="pytest") as ledger:
            async with OwnCluster(ledger) as cluster:
                await settle.ready(cluster, LATEST_S)
                seen.unfinished = await work(cluster, seen.workloads, seen.record)
                seen.settled = await settle.whole(cluster, LATEST_S)
                seen.final = await final.collect(cluster, seen.record)
                seen.left = list((cluster.folder / "scratch").iterdir())
                seen.late, seen.later = await look_at_work_that_does_not_end(cluster)
                async with cluster.processes.down("n2", LATEST_S):
                    seen.broken = await settle.whole(cluster, 1.0)
                seen.mended = await settle.whole(cluster, LATEST_S)
        seen.verdicts = judge.judge(seen.record, seen.final, seen.settled, seen.unfinished)
        return seen

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASCHED_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        return asyncio.run(do())


def test_without_faults_all_ten_promises_hold(run):
    assert run.unfinished == [] and run.final.obstacles == {} and len(run.final.nodes) == 2
    assert [(each.name, each.wrong, each.undecided) for each in run.verdicts if each.verdict != "held"] == []
    assert len(run.verdicts) == 10


def test_every_workload_made_calls_and_nearly_all_were_answered(run):
    operations = run.record.history.operations()
    calls = Counter(each.client.rpartition("-")[0] for each in operations)
    assert [workload.name for workload in run.workloads if not calls[workload.name]] == []
    assert sum(each.ending is Ending.RETURNED for each in operations) > 0.9 * len(operations) > 100
    kinds = Counter(each.kind for each in operations)
    assert {"submit", "read", "cancel", "suspend", "resume", STALE_READ} <= kinds.keys()
    assert any(each.kind == "submit" and each.result.duplicate for each in operations)


def test_what_was_observed_comes_from_every_manager_and_has_no_gaps(run):
    record = run.record
    assert {sight.manager for sight in record.sights} == {"m1", "m2", "m3"}
    assert record.event_gaps == [] and record.contradictions == [] and record.notes == []
    submitted = Counter(event.job_id for event in record.events if event.type == "JobSubmitted")
    assert {each.id for each in run.final.jobs} <= submitted.keys() and set(submitted.values()) == {1}


def test_tasks_ask_for_up_to_all_that_a_node_has_and_never_for_more():
    total = Resources(cpu_milli=4000, memory_bytes=2**32, countables=(("licence", 3),))
    chance = random.Random(1)
    asked = [amounts_of(parse_spec(dict(draw_job(chance, total))).resources) for _ in range(300)]
    most = {name: max(each.get(name, 0) for each in asked) for each in asked for name in each}
    assert most == amounts_of(total)


def test_effects_are_brought_on_record_and_their_file_is_gone(run):
    assert {effect.what for effect in run.record.effects} == {"began", "alive", "ended"}
    assert run.left == []


def test_what_has_not_ended_and_what_is_not_whole_is_said(run):
    assert len(run.late) == 1 and "-late-1) is " in run.late[0] and run.later == []
    assert run.broken.obstacles == ["the agent of n2 is not connected"]
    assert run.mended.obstacles == []
