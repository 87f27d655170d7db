"""The leading part of a manager on the real consensus: a restart, and a change of leader, lose no work and repeat none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from hasched.certs.issuing import issue_manager
from hasched.client.tls import client_context, server_context
from hasched.manager.settings import LeaderSettings
from hasched.model.spec import JobSpec
from hasched.model.states import EndKind, TaskState
from hasched.model.wire import Assign, AttemptEnded, AttemptKey, Freeze, Redirect, Reports, ReportsAck
from hasched.raft.node import ReplicaConfig, open_replica
from hasched.raft.replica import Member
from hasched.statemachine.commands import SubmitJob
from tests.manager.local_replica import until
from tests.manager.stream import Manager, make_certs

SPEC = JobSpec(name="job", command=("true",))


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certs(folder)
    for name in ("m2", "m3"):
        issue_manager(folder, name, ["localhost"])
    return folder


def make_members(count: int) -> list[Member]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [Member(f"m{n}", f"https://m{n}:7411", address) for n, address in enumerate(addresses, 1)]


@asynccontextmanager
async def run(member: Member, members: list[Member], certs: Path, folder: Path) -> AsyncIterator[Manager]:
    pair = (certs / f"{member.manager_id}.crt", certs / f"{member.manager_id}.key")
    replica = open_replica(
        ReplicaConfig(
            cluster_id="test",
            manager_id=member.manager_id,
            members=members,
            listen=member.raft_address,
            data_dir=folder / member.manager_id,
            server_ssl=server_context(certs / "ca.crt", *pair, client_cert="required"),
            client_ssl=client_context(certs / "ca.crt", *pair),
        )
    )
    async with Manager(replica, certs, LeaderSettings()).run() as manager:
        await replica.start()
        try:
            yield manager
        finally:
            await replica.stop()


def takes_agents(manager: Manager) -> bool:
    """A new leader first says which cluster it leads."""
    return manager.hub.leading and bool(manager.replica.state.origin)


def ended(job_id: int) -> AttemptEnded:
    return AttemptEnded(job_id, 0, 1, 1, 2, EndKind.EXITED)


async def test_a_manager_that_restarts_knows_what_its_agents_run(certs: Path, tmp_path: Path) -> None:
    members = make_members(1)
    async with run(members[0], members, certs, tmp_path) as manager:
        await until(lambda: takes_agents(manager))
        async with manager.agent() as agent:
            await manager.replica.propose(SubmitJob(submission_id="s1", actor="ada", spec=SPEC))
            assert (await agent.expect(Assign)).assignments[0].tasks == ((0, 1),)
    async with run(members[0], members, certs, tmp_path) as manager:
        await until(lambda: takes_agents(manager))
        async with manager.agent(attempts=[AttemptKey(1, 0, 1)]) as agent:
            assert isinstance(await agent.expect(Freeze), Freeze)
            await agent.send(Reports(1, (ended(1),)))
            assert await agent.expect(ReportsAck) == ReportsAck(1)
            assert manager.replica.state.jobs[1].state is TaskState.SUCCEEDED


async def test_when_the_leader_goes_its_agents_find_the_next_and_nothing_runs_twice(
    certs: Path, tmp_path: Path
) -> None:
    members = make_members(3)
    async with AsyncExitStack() as all_managers:
        stacks = {member.manager_id: await all_managers.enter_async_context(AsyncExitStack()) for member in members}
        managers = {
            member.manager_id: await stacks[member.manager_id].enter_async_context(
                run(member, members, certs, tmp_path)
            )
            for member in members
        }
        await until(lambda: any(takes_agents(manager) for manager in managers.values()))
        first = next(name for name, manager in managers.items() if manager.hub.leading)
        follower = next(name for name in managers if name != first)
        async with managers[follower].connect() as agent:
            assert (await agent.expect(Redirect)).leader == first
        async with managers[first].agent() as agent:
            await managers[follower].replica.propose(SubmitJob(submission_id="s1", actor="ada", spec=SPEC))
            await agent.expect(Assign)
            await stacks[first].aclose()
        del managers[first]
        await until(lambda: any(takes_agents(manager) for manager in managers.values()))
        second = next(manager for manager in managers.values() if manager.hub.leading)
        async with second.agent(attempts=[AttemptKey(1, 0, 1)]) as agent:
            await agent.expect(Freeze)
            await agent.send(Reports(1, (ended(1),)))
            assert await agent.expect(ReportsAck) == ReportsAck(1)
            async with asyncio.timeout(10):
                for manager in managers.values():
                    await manager.replica.read_barrier()
                    assert manager.replica.state.jobs[1].state is TaskState.SUCCEEDED
