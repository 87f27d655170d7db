"""One manager without its duties: replica, hub and API, as `hasched manager start` puts them together."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from hasched.api.agents import AgentStreams, StreamSettings
from hasched.api.auth import Authenticator
from hasched.api.context import ApiContext, ApiLimits
from hasched.api.hub import AgentHub
from hasched.api.server import ApiServer
from hasched.certs.issuing import create_ca, create_token, issue_agent, issue_manager
from hasched.client.tls import MANAGER_HOSTNAME, client_context, server_context
from hasched.raft.node import ReplicaConfig, ReplicaNode, open_replica
from hasched.raft.replica import Member
from hasched.raft.tuning import Tuning
from hasched.statemachine.digest import digest
from hasched.statemachine.snapshot import records

FAST = Tuning(heartbeat_s=0.03, election_min_s=0.1, election_max_s=0.2)
ALONE = Tuning(heartbeat_s=0.01, election_min_s=0.04, election_max_s=0.08)


class Pki:
    """The certificates of a cluster, and one user's token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        create_ca(folder, "test")
        for name in ("m1", "m2", "m3", "m4"):
            issue_manager(folder, name, ["127.0.0.1"])
        issue_agent(folder, "n1")
        self.tokens = folder / "tokens"
        self.token = create_token(self.tokens, "alice")

    def server(self, name: str, client_cert: Any = "optional") -> ssl.SSLContext:
        return server_context(self.ca, self.folder / f"{name}.crt", self.folder / f"{name}.key", client_cert)

    def client(self, name: str | None = None) -> ssl.SSLContext:
        if name is None:
            return client_context(self.ca)
        return client_context(self.ca, self.folder / f"{name}.crt", self.folder / f"{name}.key")

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"


class Answer(msgspec.Struct):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body[:300]
        problem = self.json
        assert problem["status"] == self.status
        return problem["code"]


class Manager:
    """A running manager, and an HTTP session of a user of it."""

    def __init__(self, pki: Pki, replica: ReplicaNode, hub: AgentHub, server: ApiServer) -> None:
        self.pki = pki
        self.replica = replica
        self.hub = hub
        self.server = server
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pki.client(), limit=0))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}"

    @property
    def digest(self) -> str:
        return digest(self.replica.state)

    @property
    def contents(self) -> list[Any]:
        """The state without the index and the time that it goes up to: what a committed refusal leaves as it was."""
        state = self.replica.state
        return [*list(records(state))[1:], state.next_job_id, *sorted(state.nodes), *state.submissions]

    async def request(self, method: str, path: str, *, token: str | None = "", **options: Any) -> Answer:
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers.setdefault("Authorization", f"Bearer {token or self.pki.token}")
        session = options.pop("session", self.session)
        async with session.request(
            method, self.url + path, headers=headers, server_hostname=MANAGER_HOSTNAME, **options
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, document: Any = None, **options: Any) -> Answer:
        body = document if isinstance(document, bytes) or document is None else msgspec.json.encode(document)
        return await self.request("POST", path, data=body, **options)

    async def submit(self, **document: Any) -> int:
        answer = await self.post("/v1/jobs", {"command": ["true"], **document})
        assert answer.status == 201, answer.body
        return int(answer.json["id"])


def make_server(
    pki: Pki, name: str, replica: ReplicaNode, hub: AgentHub, limits: ApiLimits, port: int = 0
) -> ApiServer:
    context = ApiContext(
        cluster="test",
        replica=replica,
        hub=hub,
        agents=AgentStreams(replica, hub, StreamSettings()),
        authenticator=Authenticator(pki.tokens),
        limits=limits,
    )
    return ApiServer(context, "127.0.0.1", port, pki.server(name), pki.client(name))


def replica_config(
    folder: Path, pki: Pki, name: str, members: list[Member], tuning: Tuning, listen: str = "", *, join: bool = False
) -> ReplicaConfig:
    return ReplicaConfig(
        cluster_id="test",
        manager_id=name,
        members=members,
        listen=listen or next(member.raft_address for member in members if member.manager_id == name),
        data_dir=folder / name,
        server_ssl=pki.server(name, "required"),
        client_ssl=pki.client(name),
        tuning=tuning,
        join=join,
    )


@asynccontextmanager
async def running_manager(folder: Path, pki: Pki, limits: ApiLimits | None = None) -> AsyncIterator[Manager]:
    members = [Member("m1", "https://127.0.0.1:1", "127.0.0.1:2")]
    replica = open_replica(replica_config(folder, pki, "m1", members, ALONE, listen="127.0.0.1:0"))
    hub = AgentHub()
    server = make_server(pki, "m1", replica, hub, limits or ApiLimits())
    leading, recorded = asyncio.Event(), asyncio.Event()
    replica.subscribe(lambda applied: recorded.set() if replica.state.managers else None)
    replica.on_role_change(lambda leads: leading.set() if leads else leading.clear())
    await replica.start()
    await server.start()
    manager = Manager(pki, replica, hub, server)
    try:
        await leading.wait()
        await recorded.wait()  # the last that a new cluster writes by itself
        hub.start_leading()
        yield manager
    finally:
        await manager.session.close()
        await server.stop()
        await replica.stop()
