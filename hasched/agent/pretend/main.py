"""`hasched agent simulate`: many agents in one process, each with a stream of its own, until SIGTERM.

Core, driver and link are those of every agent. What lies below them pretends: nothing is written, spawned or measured.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from hasched.agent.config import AgentConfig, TlsFiles
from hasched.agent.driver import Driver
from hasched.agent.environment import Environment, OnMessages
from hasched.agent.events import Row, Save
from hasched.agent.pretend.nodes import PretendConfig, PretendNode, certificate, check, describe
from hasched.agent.pretend.tasks import PretendTasks
from hasched.agent.protocol import Configure
from hasched.client.daemon import configure_logs, feed_watchdog, notify
from hasched.client.files import read_config
from hasched.client.tls import client_context, find_tls_problems
from hasched.model.config_text import load_config
from hasched.model.identity import PeerIdentity
from hasched.model.wire import NodeUsage

_log = structlog.get_logger(__name__)


def load_pretend_config(path: Path, env: Mapping[str, str]) -> PretendConfig:
    """The file at `path` under the overrides in `env`. Raises ConfigInvalid."""
    return load_config(read_config(path), str(path), PretendConfig, env, check)


def run_pretenders(config: PretendConfig) -> int:
    """Run an agent for each node until SIGTERM or SIGINT; their tasks end with them.

    Returns the exit status: 0 after a signal, 78 (EX_CONFIG) if the configuration has to be mended first.
    """
    configure_logs()
    problems = [
        (node.name, problem)
        for node in config.nodes
        for problem in find_tls_problems(*certificate(config, node), PeerIdentity("agent", node.name))
    ]
    for name, problem in problems:
        _log.critical("agent_not_started", node=name, field=problem.path, cause=problem.cause)
    if problems:
        return os.EX_CONFIG
    Path(config.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    asyncio.run(_run(config))
    return 0


async def _run(config: PretendConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = [asyncio.create_task(_live(config, node), name=node.name) for node in config.nodes]
    stopping = asyncio.create_task(stop.wait())
    watchdog = asyncio.create_task(feed_watchdog())
    _log.info("agents_simulated", nodes=len(config.nodes))
    notify("READY=1")
    done, _ = await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    for task in (*running, stopping, watchdog):
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for task in done:
        if task is not stopping:
            await task  # a pretender that fails is a fault of ours


async def _live(config: PretendConfig, node: PretendNode) -> None:
    ca, cert, key = certificate(config, node)
    settings = AgentConfig(
        data_dir=config.data_dir,
        managers=config.managers,
        tls=TlsFiles(ca=ca, cert=cert, key=key),
        name=node.name,
        reconnect_max=config.reconnect_max,
    )
    driver = Driver(settings, client_context(ca, cert, key), _pretended(node))
    await driver.start()
    try:
        await driver.run()
    finally:
        driver.close()


class _Table:
    """A table of attempts that is kept nowhere."""

    def __init__(self, node: PretendNode, on_saved: Callable[[int, str], None]) -> None:
        self.table_id = describe(node).table_id
        self._on_saved = on_saved

    def open(self) -> tuple[Row, ...]:
        return ()

    def save(self, save: Save) -> None:
        self._on_saved(save.number, "")

    def close(self) -> None:
        pass


def _pretended(node: PretendNode) -> Environment:
    """What an agent finds around it, where there is nothing."""
    tasks = PretendTasks(instance=f"simulated-{node.name}-{os.getpid()}")
    info = describe(node)

    async def connect(_: Path, settings: Configure, on_messages: OnMessages, __: Callable[[], None]) -> PretendTasks:
        tasks.connect(settings, on_messages)
        return tasks

    return Environment(
        open_table=lambda _path, on_saved, _on_failed: _Table(node, on_saved),
        connect_supervisor=connect,
        collect_supervisor=lambda _pid: None,
        discover=lambda _config, _isolation: info,
        open_inventory=lambda _config: None,
        read_usage=lambda _path: NodeUsage(),
        probe=lambda _path: None,
    )
