"""Managers of one cluster in this process: real files, real sockets on loopback, real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chaos.cluster.network import free_ports
from hasched.model.spec import JobSpec
from hasched.raft.node import ReplicaConfig, ReplicaNode, open_replica
from hasched.raft.replica import Member
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import SubmitJob

CLUSTER = "test-cluster"
WIRE_BYTES = 8192
NAMES = ("m1", "m2", "m3")
FAST = Tuning(heartbeat_s=0.03, election_min_s=0.15, election_max_s=0.3)


class Authority:
    """A private CA that signs managers' certificates into `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject("manager", "ca")
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.path = directory / "ca.pem"
        directory.mkdir(exist_ok=True)
        self.path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """One whose certificates are all issued."""
        authority = cls.__new__(cls)
        authority.directory, authority.path = directory, directory / "ca.pem"
        return authority

    def issue(self, name: str, role: str = "manager") -> tuple[Path, Path]:
        certificate, private = self.directory / f"{role}-{name}.pem", self.directory / f"{role}-{name}.key"
        if not certificate.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            builder = _builder(_subject(role, name), self._name, key.public_key())
            hosts = [x509.DNSName("manager.hasched.internal"), x509.DNSName(f"{name}.manager.hasched.internal")]
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
            private.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                )
            )
        return certificate, private

    def contexts(self, name: str, role: str = "manager") -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """The server's and the client's."""
        certificate, private = self.issue(name, role)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for context in (server, client):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_verify_locations(self.path)
            context.load_cert_chain(certificate, private)
        return server, client


def _subject(role: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hasched"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


class Cluster:
    """`names` of managers with their directories under `root`; each can be started, stopped and started again."""

    def __init__(self, root: Path, names: tuple[str, ...] = NAMES, tuning: Tuning = FAST) -> None:
        self.root = root
        self.authority = Authority(root / "certs")
        self.tuning = tuning
        ports = free_ports(len(names))
        self.members = [
            Member(name, f"https://127.0.0.1:{port}", f"127.0.0.1:{port}")
            for name, port in zip(names, ports, strict=True)
        ]
        self.nodes: dict[str, ReplicaNode] = {}

    def config(self, name: str, **changes: object) -> ReplicaConfig:
        server, client = self.authority.contexts(name)
        config = ReplicaConfig(
            cluster_id=CLUSTER,
            manager_id=name,
            members=self.members,
            listen=next(member.raft_address for member in self.members if member.manager_id == name),
            data_dir=self.root / name,
            server_ssl=server,
            client_ssl=client,
            tuning=self.tuning,
        )
        return msgspec.structs.replace(config, **changes)

    async def start(self, *names: str, **changes: object) -> None:
        for name in names or [member.manager_id for member in self.members]:
            self.nodes[name] = open_replica(self.config(name, **changes))
            await self.nodes[name].start()

    async def stop(self, *names: str) -> None:
        for name in names or list(self.nodes):
            await self.nodes.pop(name).stop()

    async def leader(self) -> ReplicaNode:
        """The manager that leads, has caught up with its term, and has nothing to write by itself."""
        await until(lambda: self._leaders() != [])
        return self._leaders()[0]

    def _leaders(self) -> list[ReplicaNode]:
        return [
            node
            for node in self.nodes.values()
            if node.is_leader
            and node.status.commit_index >= node._core.engine.first_own_index
            and node.state.managers  # what it writes by itself is written
        ]

    async def followers(self) -> list[ReplicaNode]:
        leader = await self.leader()
        return [node for node in self.nodes.values() if node is not leader]


class Wire:
    """A TCP proxy in front of one manager, for what one other sends. While it is `cut` it swallows bytes without a word.

    With a `rate` it passes so many bytes a second, and keeps next to nothing of what waits.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.cut = False
        self.rate: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> str:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WIRE_BYTES)
        self._server = await asyncio.start_server(self._accept, sock=sock, limit=WIRE_BYTES)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers.append(far_writer)
        self._tasks += [
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        ]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(WIRE_BYTES):
                if self.cut:
                    break
                writer.write(data)
                if self.rate is not None:
                    await writer.drain()
                    await asyncio.sleep(len(data) / self.rate)
        if not self.cut:
            writer.close()

    def heal(self) -> None:
        """What was swallowed is gone, so the connections end."""
        self.cut = False
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.heal()


class PartitionedCluster(Cluster):
    """Every manager reaches every other through a wire of its own."""

    async def wire(self) -> None:
        self.wires: dict[tuple[str, str], Wire] = {}
        self._views: dict[str, list[Member]] = {}
        for member in self.members:
            view = []
            for other in self.members:
                host, _, port = other.raft_address.rpartition(":")
                wire = self.wires[member.manager_id, other.manager_id] = Wire(host, int(port))
                view.append(msgspec.structs.replace(other, raft_address=await wire.open()))
            self._views[member.manager_id] = view

    def config(self, name: str, **changes: object) -> ReplicaConfig:
        return super().config(name, members=self._views[name], **changes)

    def isolate(self, name: str) -> None:
        for pair, wire in self.wires.items():
            if name in pair:
                wire.cut = True

    def heal(self) -> None:
        for wire in self.wires.values():
            if wire.cut:
                wire.heal()


@asynccontextmanager
async def partitioned(root: Path, tuning: Tuning) -> AsyncIterator[PartitionedCluster]:
    cluster = PartitionedCluster(root, NAMES, tuning)
    await cluster.wire()
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()
        for wire in cluster.wires.values():
            await wire.close()


@asynccontextmanager
async def running(root: Path, names: tuple[str, ...] = NAMES, tuning: Tuning = FAST) -> AsyncIterator[Cluster]:
    cluster = Cluster(root, names, tuning)
    await cluster.start()
    try:
        yield cluster
    finally:
        await cluster.stop()


async def until(condition: Callable[[], bool], timeout: float = 10) -> None:
    """Wait for a condition that other tasks bring about."""
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


def submit(number: int, size: int = 0) -> SubmitJob:
    """A submission that is different for each number."""
    return SubmitJob(
        submission_id=f"submission-{number}",
        actor="test",
        spec=JobSpec(name=f"job-{number}", command=("true",), input=b"x" * size),
    )


def submissions(node: ReplicaNode) -> list[str]:
    """The ids of all jobs that a manager holds, in their order."""
    return [job.submission_id for job in node.state.jobs.values()]
