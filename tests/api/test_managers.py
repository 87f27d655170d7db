"""Three managers: each answers everything, whoever leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from api_server import FAST, Manager, Pki, make_server, replica_config
from log_agent import PATIENCE_S, connected_agent, start, whole

from chaos.cluster.network import free_ports
from hasched.api.context import ApiLimits
from hasched.api.feed import Wanted
from hasched.api.hub import AgentHub
from hasched.api.managers import _as_listed
from hasched.client.tls import MANAGER_HOSTNAME
from hasched.model.views import ManagerView, PeerView
from hasched.model.wire import LogChunk
from hasched.raft.node import open_replica
from hasched.raft.replica import Member
from hasched.statemachine.events import ManagerAdded, ManagerRemoved

NAMES = ("m1", "m2", "m3")
ALL = (*NAMES, "m4")


class Cluster:
    def __init__(self, folder: Path, pki: Pki, stack: AsyncExitStack) -> None:
        self.managers: dict[str, Manager] = {}
        self.ports = {name: (api, raft) for name, api, raft in zip(ALL, *[iter(free_ports(8))] * 2, strict=True)}
        self._folder = folder
        self._pki = pki
        self._stack = stack

    def member(self, name: str) -> Member:
        api, raft = self.ports[name]
        return Member(name, f"https://127.0.0.1:{api}", f"127.0.0.1:{raft}")

    async def start(self, name: str, *, join: bool = False) -> Manager:
        members = [self.member(each) for each in dict.fromkeys((*NAMES, name))]
        replica = open_replica(replica_config(self._folder, self._pki, name, members, FAST, join=join))
        hub = AgentHub()
        replica.on_role_change(lambda leads: hub.start_leading() if leads else hub.stop_leading())
        server = make_server(self._pki, name, replica, hub, ApiLimits(keep_alive_s=0.05), self.ports[name][0])
        await replica.start()
        self._stack.push_async_callback(replica.stop)
        await server.start()
        self._stack.push_async_callback(server.stop)
        self.managers[name] = manager = Manager(self._pki, replica, hub, server)
        self._stack.push_async_callback(manager.session.close)
        return manager

    async def listed(self, asked: Manager, name: str) -> dict[str, Any] | None:
        page = (await asked.get("/v1/managers")).json
        return next((each for each in page["managers"] if each["id"] == name), None)

    async def until_listed(self, asked: Manager, name: str, **fields: object) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while (seen := await self.listed(asked, name)) is None or not fields.items() <= seen.items():
                await asyncio.sleep(0.01)

    async def leader(self) -> Manager:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for manager in self.managers.values():
                    if manager.hub.leading and manager.replica.state.managers:  # what it writes by itself is written
                        return manager
                await asyncio.sleep(0.005)

    async def wait_for_votes(self) -> None:
        """Until every manager has one, so that any can be lost."""
        async with asyncio.timeout(PATIENCE_S):
            while not all(manager.replica._directory.identity.voter for manager in self.managers.values()):
                await asyncio.sleep(0.005)

    async def followers(self) -> list[Manager]:
        leader = await self.leader()
        async with asyncio.timeout(PATIENCE_S):
            while not all(manager.replica.leader for manager in self.managers.values()):
                await asyncio.sleep(0.005)
        return [manager for manager in self.managers.values() if manager is not leader]


@pytest.fixture
async def cluster(tmp_path: Path, pki: Pki) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        cluster = Cluster(tmp_path, pki, stack)
        for name in NAMES:
            await cluster.start(name)
        yield cluster


async def test_a_follower_takes_jobs_and_reads_its_own_writes(cluster: Cluster) -> None:
    for follower in await cluster.followers():
        job_id = await follower.submit(name="here")
        for manager in cluster.managers.values():
            shown = (await manager.get(f"/v1/jobs/{job_id}")).json
            assert (shown["name"], shown["actor"]) == ("here", "alice")


async def test_an_event_has_the_same_id_everywhere(cluster: Cluster) -> None:
    leader = await cluster.leader()
    submitted = (await leader.post("/v1/jobs", {"command": ["true"]})).json
    seen = []
    for manager in cluster.managers.values():
        await manager.replica.wait_for(submitted["log_index"])
        with manager.server.context.feed.follow(None, Wanted()) as nothing:
            assert not nothing.ended
        seen.append([record.render() for record in manager.server.context.feed._kept])
    assert seen[0] == seen[1] == seen[2]


async def test_what_only_the_leader_knows_is_told_by_all(cluster: Cluster) -> None:
    leader = await cluster.leader()
    async with connected_agent(leader) as agent:
        agent.answer = whole(b"far away\n")
        job_id = await start(leader)
        for follower in await cluster.followers():
            (node,) = (await follower.get("/v1/nodes")).json["nodes"]
            assert (node["id"], node["connected"]) == ("n1", True)
            answer = await follower.get(f"/v1/jobs/{job_id}/tasks/0/logs?offset=4")
            assert (answer.status, answer.body) == (200, b"away\n")
            assert answer.headers["Hasched-Log-Offset"] == "4"
            missing = await follower.get("/v1/nodes/none")
            assert (missing.status, missing.code) == (404, "no_such_node")


async def test_a_passed_on_stream_ends_with_its_leader(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that is frozen says nothing and hangs up on nobody; its readers must be told to ask the new one."""
    await cluster.wait_for_votes()
    leader = await cluster.leader()
    follower, _ = await cluster.followers()
    async with connected_agent(leader) as agent:
        agent.answer = lambda read: [LogChunk(read.request, 0, b"so far\n", 0)]
        job_id = await start(leader)
        async with follower.session.get(
            f"{follower.url}/v1/jobs/{job_id}/tasks/0/logs?follow=true",
            headers={"Authorization": f"Bearer {follower.pki.token}"},
            server_hostname=MANAGER_HOSTNAME,
        ) as response:
            assert await response.content.readline() == b"so far\n"
            monkeypatch.setattr(leader.hub, "stop_leading", lambda: None)
            await leader.replica.stop()
            async with asyncio.timeout(PATIENCE_S):
                with pytest.raises(aiohttp.ClientError):
                    await response.content.read()


async def test_a_request_is_passed_on_once(cluster: Cluster, pki: Pki) -> None:
    """Two managers that take each other for the leader don't send a request round and round."""
    (follower, _) = await cluster.followers()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pki.client("m1"))) as session:
        answer = await follower.get("/v1/nodes", token=None, session=session)
    assert (answer.status, answer.code) == (503, "not_leader")


async def test_managers_are_listed_with_the_one_that_is_down(cluster: Cluster) -> None:
    leader = await cluster.leader()
    gone, asked = await cluster.followers()
    await gone.server.stop()
    await gone.replica.stop()
    page = (await asked.get("/v1/managers")).json
    roles = {manager["id"]: manager["role"] for manager in page["managers"]}
    assert page["leader"] == leader.replica.manager_id
    assert roles[gone.replica.manager_id] == "unreachable"
    assert sorted(roles.values()) == ["follower", "leader", "unreachable"]
    lags = {manager["id"]: manager["lag"] for manager in page["managers"]}
    assert lags[leader.replica.manager_id] == 0
    assert lags[gone.replica.manager_id] is None


async def test_without_a_majority_nothing_is_promised(cluster: Cluster) -> None:
    leader = await cluster.leader()
    following = asyncio.create_task(leader.get("/v1/events"))
    for follower in await cluster.followers():
        await follower.replica.stop()
    async with asyncio.timeout(PATIENCE_S):
        while leader.replica.is_leader:
            await asyncio.sleep(0.01)
    async with asyncio.timeout(PATIENCE_S):
        await following  # a stream that may miss what others see comes to its end
    ready = await leader.get("/readyz")
    assert (ready.status, ready.code) == (503, "no_leader")
    assert ready.headers["Retry-After"] == "1"
    assert (await leader.get("/livez")).status == 200
    assert (await leader.get("/v1/nodes")).code == "no_leader"
    assert (await leader.get("/v1/jobs?consistency=stale")).status == 200
    writes, reads = await asyncio.gather(leader.post("/v1/jobs", {"command": ["true"]}), leader.get("/v1/jobs"))
    assert writes.code in ("no_leader", "outcome_unknown")
    assert reads.code == "no_leader"
    page = msgspec.json.decode((await leader.get("/v1/managers")).body)
    assert page["leader"] is None


async def test_a_manager_is_added_and_removed_through_any_other(cluster: Cluster) -> None:
    await cluster.wait_for_votes()
    asked, _ = await cluster.followers()
    async with asyncio.timeout(PATIENCE_S):
        while not asked.replica.state.managers:
            await asyncio.sleep(0.005)
    address = cluster.member("m4")
    document = {"id": "m4", "api_url": address.api_url + "/", "raft_address": address.raft_address}
    added = await asked.post("/v1/managers", document)
    assert (added.status, added.json["id"], added.json["reachable"]) == (200, "m4", False)
    await cluster.until_listed(asked, "m4", membership="learner", connected=False)
    await cluster.start("m4", join=True)
    await cluster.until_listed(asked, "m4", membership="voter", connected=True, filled=True, role="follower")
    again = await asked.post("/v1/managers", document)
    assert (again.status, again.json["api_url"]) == (200, address.api_url)
    assert (await asked.request("DELETE", "/v1/managers/m4")).status == 204
    async with asyncio.timeout(PATIENCE_S):
        while await cluster.listed(asked, "m4") is not None:
            await asyncio.sleep(0.01)
    events = [record.event for record in asked.server.context.feed._kept]
    told = [event for event in events if isinstance(event, ManagerAdded | ManagerRemoved)]
    assert told == [
        ManagerAdded("m4", "alice", address.api_url, address.raft_address),
        ManagerRemoved("m4", "alice"),
    ]
    async with asyncio.timeout(PATIENCE_S):
        while (await cluster.managers["m4"].get("/v1/managers/self")).json["role"] != "removed":
            await asyncio.sleep(0.01)
    seen = await cluster.listed(cluster.managers["m4"], "m4")
    assert seen is not None
    assert (seen["role"], seen["membership"]) == ("removed", "removed")
    for refused in (
        await cluster.managers["m4"].get("/readyz"),
        await cluster.managers["m4"].get("/v1/jobs"),
        await cluster.managers["m4"].post("/v1/jobs", {"command": ["true"]}),
    ):
        assert (refused.code, "was removed" in refused.json["cause"]) == ("no_leader", True)


@pytest.mark.parametrize(
    ("by_the_asked", "by_the_leader", "listed"),
    [
        pytest.param("learner", True, "voter", id="promoted meanwhile"),
        pytest.param("joining", False, "learner", id="taken in meanwhile"),
        pytest.param("voter", None, "joining", id="not taken in yet, or again"),
        pytest.param("leaving", True, "leaving", id="still there"),
        pytest.param("leaving", None, "removed", id="out"),
    ],
)
def test_the_leader_has_the_last_word_on_who_is_a_member(
    by_the_asked: str, by_the_leader: bool | None, listed: str
) -> None:
    one = ManagerView(
        id="m4",
        api_url="https://m4:7411",
        raft_address="m4:7412",
        role="follower",
        term=1,
        last_index=9,
        commit_index=9,
        applied_index=7,
        version="1",
        reachable=True,
        membership=by_the_asked,
    )
    peers = [] if by_the_leader is None else [PeerView(id="m4", voter=by_the_leader, connected=True, filled=True)]
    leader = msgspec.structs.replace(one, id="m1", role="leader", peers=peers)
    seen = _as_listed(one, leader)
    assert (seen.membership, seen.lag, seen.connected) == (listed, 2, by_the_leader is not None or None)


async def test_leadership_is_handed_over_from_wherever_one_asks(cluster: Cluster) -> None:
    await cluster.wait_for_votes()
    for name in (*NAMES, *NAMES):
        asked = cluster.managers[NAMES[(NAMES.index(name) + 1) % 3]]
        answer = await asked.post(f"/v1/managers/{name}/lead")
        assert (answer.status, answer.json) == (200, {"leader": name})
        assert asked.replica.leader is not None
        assert asked.replica.leader.manager_id == name
    answer = await cluster.managers["m1"].post("/v1/managers/lead")
    assert answer.json["leader"] in ("m1", "m2")
    missing = await cluster.managers["m1"].post("/v1/managers/m9/lead")
    assert (missing.status, missing.code) == (404, "no_such_manager")


async def test_a_comparison_of_states_is_seen_everywhere(cluster: Cluster) -> None:
    await cluster.wait_for_votes()
    for manager in cluster.managers.values():
        asked = await manager.post("/v1/managers/check")
        assert asked.status == 200
        async with asyncio.timeout(PATIENCE_S):
            while True:
                check = (await manager.get("/v1/managers")).json["check"]
                if check is not None and check["log_index"] >= asked.json["log_index"]:
                    break
                await asyncio.sleep(0.01)
        assert (check["agreed"], check["differing"], check["silent"]) == (True, [], [])
