"""A manager that speaks the agents' protocol over real TLS, and does what a test tells it: the agent's real peer."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hasched.client.tls import MANAGER_HOSTNAME, client_context, peer_identity, server_context
from hasched.model.ids import AttemptId
from hasched.model.spec import JobSpec
from hasched.model.wire import (
    Assign,
    Assignment,
    AttemptEnded,
    AttemptKey,
    AttemptReport,
    AttemptStarted,
    Freeze,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogChunk,
    LogRead,
    MoreAttempts,
    Redirect,
    Reports,
    ReportsAck,
    Stop,
    ToAgent,
    Welcome,
    decode_from_agent,
    encode_frame,
)

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Certificates:
    """A cluster's CA, one manager's certificate and one agent's."""

    directory: Path

    @classmethod
    def make(cls, directory: Path, node_id: str) -> Certificates:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        ca = _certificate(ca_name, ca_name, ca_key.public_key(), ca_key, ca=True)
        _write(directory / "ca", ca, ca_key)
        for role, name in (("manager", "m1"), ("agent", node_id)):
            key = ec.generate_private_key(ec.SECP256R1())
            subject = x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "hasched"),
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                    x509.NameAttribute(NameOID.COMMON_NAME, name),
                ]
            )
            _write(
                directory / role,
                _certificate(subject, ca_name, key.public_key(), ca_key, server=role == "manager"),
                key,
            )
        return cls(directory)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def server(self) -> ssl.SSLContext:
        return server_context(self.path("ca.crt"), self.path("manager.crt"), self.path("manager.key"))

    def agent(self) -> ssl.SSLContext:
        return client_context(self.path("ca.crt"), self.path("agent.crt"), self.path("agent.key"))


@dataclass
class Peer:
    """One manager. Everything that the agent said is kept in order."""

    certificates: Certificates
    heartbeat_ms: int = 200
    lease_ms: int = 5_000
    acknowledge: bool = True
    answer_heartbeats: bool = True
    redirect_to: str = ""
    origin: str = ""
    orders: tuple[ToAgent, ...] = ()  # that come with the welcome
    redirected: int = 0
    hellos: list[Hello] = field(default_factory=list)
    heartbeats: int = 0
    accepts: bool = True
    reports: list[AttemptReport] = field(default_factory=list)
    chunks: list[LogChunk] = field(default_factory=list)
    url: str = ""
    _socket: web.WebSocketResponse | None = None
    _runner: web.AppRunner | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _requests: int = 0
    _jobs: int = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/agent/stream", self._stream)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        port = int(self.url.rpartition(":")[2]) if self.url else 0  # the same as before, when it starts again
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self.certificates.server())
        await site.start()
        self.url = f"https://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def stop(self) -> None:
        assert self._runner is not None
        await self.drop()
        await self._runner.cleanup()

    async def drop(self) -> None:
        """Close the session, as a manager that dies does."""
        if self._socket is not None:
            await self._socket.close()

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        assert request.transport is not None
        identity = peer_identity(request.transport.get_extra_info("ssl_object"))
        assert identity is not None and identity.role == "agent"
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            for each in decode_from_agent(message.data):
                await self._hear(socket, each)
            self._changed.set()
        if self._socket is socket:
            self._socket = None
        self._changed.set()
        return socket

    async def _hear(self, socket: web.WebSocketResponse, message: object) -> None:
        match message:
            case MoreAttempts():
                pass
            case Hello():
                if self.redirect_to:
                    self.redirected += 1
                    await socket.send_bytes(encode_frame([Redirect("m1", self.redirect_to)]))
                    await socket.close()
                    return
                self.hellos.append(message)
                welcome = Welcome("m1", 1, self.heartbeat_ms, self.lease_ms, self.origin)
                await socket.send_bytes(encode_frame([welcome, *self.orders]))
                self._socket = socket
            case Heartbeat(number=number, accepts=accepts):
                self.heartbeats += 1
                self.accepts = accepts
                if self.answer_heartbeats:
                    await socket.send_bytes(encode_frame([HeartbeatAck(number)]))
            case Reports(number=number, reports=reports):
                self.reports += reports
                if self.acknowledge:
                    await socket.send_bytes(encode_frame([ReportsAck(number)]))
            case LogChunk():
                self.chunks.append(message)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds; it is looked at whenever the agent has said something."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def send(self, *messages: ToAgent) -> None:
        await self.until(lambda: self._socket is not None)
        assert self._socket is not None
        await self._socket.send_bytes(encode_frame(messages))

    async def assign(self, job_id: int, spec: JobSpec, tasks: Sequence[tuple[int, int]] = ((0, 1),)) -> None:
        await self.send(Assign((Assignment(job_id, spec, tuple(tasks)),)))

    async def stop_attempt(self, *key: int) -> None:
        await self.send(Stop((AttemptKey(*key),), "cancelled"))

    async def freeze(self, frozen: bool, *key: int) -> None:
        await self.send(Freeze((AttemptKey(*key),), frozen))

    async def started(self, *key: int) -> AttemptStarted:
        return await self._report(AttemptStarted, AttemptId(*key))

    async def ended(self, *key: int) -> AttemptEnded:
        return await self._report(AttemptEnded, AttemptId(*key))

    async def run(self, spec: JobSpec) -> AttemptEnded:
        """The first attempt of a new job with one task, from its assignment to its end."""
        job_id = self.new_job()
        await self.assign(job_id, spec)
        return await self.ended(job_id, 0, 1)

    def new_job(self) -> int:
        self._jobs += 1
        return self._jobs

    async def log_of(self, ended: AttemptEnded, stream: str = "stdout") -> bytes:
        return text_of(await self.read_log(ended.job_id, ended.index, ended.attempt, stream=stream))

    def ends(self, *key: int) -> list[AttemptEnded]:
        return [each for each in self.reports if isinstance(each, AttemptEnded) and _key(each) == AttemptId(*key)]

    async def _report(self, kind, key: AttemptId):  # type: ignore[no-untyped-def]
        def find() -> list[AttemptReport]:
            return [each for each in self.reports if isinstance(each, kind) and _key(each) == key]

        await self.until(find)
        return find()[-1]

    async def read_log(
        self, *key: int, stream: str = "stdout", offset: int = 0, limit: int = 0, follow: bool = False
    ) -> list[LogChunk]:
        """All chunks of one read."""
        request = await self.request_log(*key, stream=stream, offset=offset, limit=limit, follow=follow)
        await self.until(lambda: any(each.end for each in self.of(request)))
        return self.of(request)

    async def request_log(
        self, *key: int, stream: str = "stdout", offset: int = 0, limit: int = 0, follow: bool = False
    ) -> int:
        self._requests += 1
        await self.send(LogRead(self._requests, *key, stream, offset, limit, follow))
        return self._requests

    def of(self, request: int) -> list[LogChunk]:
        return [each for each in self.chunks if each.request == request]


def text_of(chunks: Sequence[LogChunk]) -> bytes:
    assert not any(each.error for each in chunks), chunks
    return b"".join(each.data for each in chunks)


@dataclass
class AgentProcess:
    """A real agent, with a real supervisor, on a data directory of its own."""

    certificates: Certificates
    data_dir: Path
    managers: list[str]
    settings: dict[str, object] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        config = {
            "data_dir": str(self.data_dir),
            "name": "n1",
            "managers": self.managers,
            "tls": {
                "ca": self.certificates.path("ca.crt"),
                "cert": self.certificates.path("agent.crt"),
                "key": self.certificates.path("agent.key"),
            },
            "reconnect_max": 200,
            **self.settings,
        }
        program = (
            "import sys, msgspec; from hasched.agent.main import run_agent; from hasched.agent.config import AgentConfig; "
            "sys.exit(run_agent(msgspec.json.decode(sys.argv[1], type=AgentConfig)))"
        )
        with open(self.data_dir.parent / "agent.log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, json.dumps(config), stdout=log, stderr=log
            )

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.process.wait()

    def supervisor_pid(self) -> int:
        return int((self.data_dir / "supervisor.lock").read_text())

    async def end(self) -> None:
        """End the agent, then the supervisor with all tasks."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            await self.kill(signal.SIGTERM)
        lock = self.data_dir / "supervisor.lock"
        if lock.exists():
            pid = self.supervisor_pid()
            if is_supervisor(pid):
                os.kill(pid, signal.SIGTERM)
                await until(lambda: not is_supervisor(pid))


@asynccontextmanager
async def run_peer(certificates: Certificates) -> AsyncIterator[Peer]:
    peer = Peer(certificates)
    await peer.start()
    try:
        yield peer
    finally:
        await peer.stop()


@asynccontextmanager
async def run_agent(peer: Peer, directory: Path) -> AsyncIterator[AgentProcess]:
    """An agent of this manager; it isn't started yet."""
    data_dir = directory / "agent"
    data_dir.mkdir()
    agent = AgentProcess(peer.certificates, data_dir, [peer.url])
    try:
        yield agent
    finally:
        await agent.end()


async def until(condition: Callable[[], object]) -> None:
    """Wait for something outside that tells nobody, such as a process that goes away."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def not_expected(error: Exception) -> None:
    """Where a failure would be told that must not come."""
    raise AssertionError("not expected") from error


def is_supervisor(pid: int) -> bool:
    try:
        return b"hasched.agent.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def is_running(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _key(report: AttemptReport) -> AttemptId:
    return AttemptId(report.job_id, report.index, report.attempt)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    ca: bool = False,
    server: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if server:
        names = [x509.DNSName(MANAGER_HOSTNAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    elif not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
