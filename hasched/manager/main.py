"""`hasched manager start`: wires a manager together and runs it until SIGTERM, or until its replica fails.

The order matters. The data directory is read first, so that a damaged one is refused before anything listens. The leader's
duties subscribe before consensus starts, so that no change of role is missed. The API comes last, and goes first.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
import uvloop

from hasched.api.agents import AgentStreams, StreamSettings
from hasched.api.auth import Authenticator
from hasched.api.context import ApiContext
from hasched.api.hub import AgentHub
from hasched.api.plugins import load_plugins
from hasched.api.server import ApiServer
from hasched.client.daemon import configure_logs, feed_watchdog, notify
from hasched.client.tls import client_context, server_context
from hasched.manager.config import ManagerConfig, find_file_problems
from hasched.manager.leader import LeaderDuties
from hasched.model.addresses import check_api_url, split_address
from hasched.model.errors import ConfigInvalid, HaschedError
from hasched.model.parse import JobDefaults
from hasched.raft.node import ReplicaConfig, ReplicaNode, open_replica
from hasched.raft.replica import Member

THREADS = 32  # for names, files and secrets, so that some of them that hang hold up no others

log = structlog.get_logger(__name__)


def run_manager(config: ManagerConfig) -> int:
    """Run the manager in the foreground.

    Returns the exit status: 0 after SIGTERM, 78 for files that it can't start with, however often, and 1 after a failure.
    """
    configure_logs()
    try:
        if problems := [*find_file_problems(config), *load_plugins()]:
            raise ConfigInvalid(f"manager {config.name}", problems)
        raise_file_limit()
        Path(config.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        return uvloop.run(_run(config))
    except ConfigInvalid as error:
        log.critical("manager_failed", code=error.code, cause=error.cause)
        return os.EX_CONFIG
    except HaschedError as error:
        log.critical("manager_failed", code=error.code, cause=error.cause, hint=error.hint)
    except OSError as error:
        log.critical("manager_failed", cause=str(error))
    return 1


def raise_file_limit() -> None:
    """Every connection is a file, and the usual limit is for programs that use select(2)."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _run(config: ManagerConfig) -> int:
    replica = _open_replica(config)
    hub = AgentHub()
    duties = LeaderDuties(replica, hub, config.leader_settings)
    server = _make_server(config, replica, hub)
    gc.freeze()  # what was loaded stays: the collector need not walk it again and again
    stop = asyncio.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    duties.start()
    await replica.start()
    try:
        await server.start()
        log.info("manager_started", manager=config.name, cluster=config.cluster, api=config.api.listen)
        notify("READY=1")
        await _run_until(stop, replica)
    finally:
        notify("STOPPING=1")
        await replica.hand_over()
        await duties.stop()
        await server.stop()
        await replica.stop()
    log.info("manager_stopped", manager=config.name)
    return 0


async def _run_until(stop: asyncio.Event, replica: ReplicaNode) -> None:
    """Returns when `stop` is set; raises what ended the replica if that comes first."""
    stopping = asyncio.create_task(stop.wait())
    failing = asyncio.create_task(replica.wait_failed())
    watchdog = asyncio.create_task(feed_watchdog())
    try:
        await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            failing.result()
    finally:
        for task in (stopping, failing, watchdog):
            task.cancel()


def _open_replica(config: ManagerConfig) -> ReplicaNode:
    tls = config.tls
    return open_replica(
        ReplicaConfig(
            cluster_id=config.cluster,
            manager_id=config.name,
            members=[Member(member.name, check_api_url(member.api), member.raft) for member in config.members],
            listen=config.raft.listen,
            data_dir=Path(config.data_dir),
            server_ssl=server_context(tls.ca, tls.cert, tls.key, client_cert="required"),
            client_ssl=client_context(tls.ca, tls.cert, tls.key),
            tuning=config.tuning,
            join=config.join,
        )
    )


def _make_server(config: ManagerConfig, replica: ReplicaNode, hub: AgentHub) -> ApiServer:
    settings, defaults, tls = config.leader_settings, config.job_defaults, config.tls
    streams = AgentStreams(replica, hub, StreamSettings(heartbeat_ms=settings.heartbeat_ms, lease_ms=settings.lease_ms))
    context = ApiContext(
        cluster=config.cluster,
        replica=replica,
        hub=hub,
        agents=streams,
        authenticator=Authenticator(Path(config.tokens)),
        defaults=JobDefaults(timeout_ms=defaults.timeout, retries=defaults.retry_policy, resources=defaults.resources),
        test_cluster=config.test_cluster,
        placement=settings.placement,
    )
    host, port = split_address(config.api.listen)
    return ApiServer(
        context,
        host,
        port,
        server_context(tls.ca, tls.cert, tls.key, client_cert="optional"),
        client_context(tls.ca, tls.cert, tls.key),
    )
