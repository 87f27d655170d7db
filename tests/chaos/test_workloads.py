"""The workloads at work on a real cluster that nobody disturbs: every promise holds, and every one of them was looked at."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from chaos import final, judge, settle
from chaos.checkers.history import Ending
from chaos.cluster.own import OwnCluster
from chaos.observer import Observer
from chaos.record import Record
from chaos.registry import Registry
from chaos.safety.ledger import Ledger
from chaos.workloads.desk import STALE_READ, Desk

SECONDS = 6.0
LATEST_S = 60.0


async def work(cluster, workloads, record):
    """Every workload for a while, and then to its end."""
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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run left: its record, what the cluster said at the end, and the verdicts."""

    async def do():
        workloads = list(Registry().workloads.values())
        record = Record()
        with Ledger.open("chaos", command="pytest") as ledger:
            settings = {"capacity": {"cpu": 4, "memory": "4Gi", "countables": {"licence": 3}}}
            async with OwnCluster(ledger, agent_settings=settings) as cluster:
                await settle.ready(cluster, LATEST_S)
                unfinished = await work(cluster, workloads, record)
                settled = await settle.whole(cluster, LATEST_S)
                found = await final.collect(cluster, record)
                left = list((cluster.folder / "scratch").iterdir())
        return workloads, record, found, unfinished, judge.judge(record, found, settled, unfinished), left

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HASCHED_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        return asyncio.run(do())


def test_without_faults_all_ten_promises_hold(run):
    _, _, found, unfinished, verdicts, _ = run
    assert unfinished == [] and found.obstacles == {}
    assert {each.name: (each.verdict, each.wrong, each.undecided) for each in verdicts} == {
        each.name: ("held", [], []) for each in verdicts
    }
    assert len(verdicts) == 10


def test_every_workload_made_calls_and_nearly_all_were_answered(run):
    workloads, record, *_ = run
    calls = Counter(each.client.rpartition("-")[0] for each in record.history.operations())
    assert all(calls[workload.name] > 0 for workload in workloads), calls
    endings = Counter(each.ending for each in record.history.operations())
    assert endings[Ending.UNKNOWN] == 0 and endings[Ending.FAILED] == 0, endings
    kinds = Counter(each.kind for each in record.history.operations())
    assert {"submit", "read", "cancel", "suspend", "resume", "delete", STALE_READ} <= kinds.keys(), kinds


def test_what_was_observed_comes_from_every_manager_and_has_no_gaps(run):
    _, record, found, *_ = run
    assert {sight.manager for sight in record.sights} == {"m1", "m2", "m3"}
    assert record.event_gaps == [] and record.contradictions == [] and record.notes == []
    types = Counter(event.type for event in record.events)
    assert types["JobSubmitted"] >= len(found.jobs) and types["AttemptEnded"] > 0


def test_effects_are_brought_on_record_and_their_file_is_gone(run):
    _, record, *_, left = run
    assert {effect.what for effect in record.effects} == {"began", "alive", "ended"}
    assert left == []
