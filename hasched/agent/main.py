"""`hasched agent start`: wires an agent together and runs it until SIGTERM.

Stopping the agent stops no task: the node isn't deregistered, the supervisor stays, and the next agent goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sqlite3
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from hasched.agent import holes
from hasched.agent.config import AgentConfig
from hasched.agent.driver import Driver
from hasched.agent.health import probe
from hasched.agent.supervisor_client import SupervisorFailed
from hasched.agent.table import TableFailed
from hasched.client.daemon import configure_logs, feed_watchdog, notify
from hasched.client.tls import client_context, find_tls_problems
from hasched.model.identity import PeerIdentity

STOPS = (signal.SIGTERM, signal.SIGINT)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_DISK_PAUSE_S = 5.0
_log = structlog.get_logger(__name__)


def run_agent(config: AgentConfig) -> int:
    """Run the agent until SIGTERM or SIGINT; its tasks go on under the supervisor.

    On a full disk it waits until there is room. Returns the exit status: 0 after a signal, 78 (EX_CONFIG) if the configuration
    has to be mended first, 1 otherwise.
    """
    configure_logs()
    problems = list(
        find_tls_problems(config.tls.ca, config.tls.cert, config.tls.key, PeerIdentity("agent", config.node_id))
    )
    for problem in problems:
        _log.critical("agent_not_started", field=problem.path, cause=problem.cause)
    if problems:
        return os.EX_CONFIG
    while True:
        failed: list[BaseException] = []
        try:
            return _try_to_run(config)
        except* (OSError, sqlite3.Error, SupervisorFailed, TableFailed) as failures:
            failed = list(leaves(failures))
        if not is_disk_full(Path(config.data_dir), failed):
            for failure in failed:
                _log.critical("agent_failed", cause=str(failure))
            return 1
        if _wait_for_room(config.data_dir, "; ".join(map(str, failed))):
            return 0


def _try_to_run(config: AgentConfig) -> int:
    data_dir = Path(config.data_dir)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_dir / "attempts").mkdir(mode=0o750, exist_ok=True)
    with _alone(data_dir):
        tls = client_context(config.tls.ca, config.tls.cert, config.tls.key)
        if not holes.supported(str(data_dir)):
            _log.warning("logs_unbounded", cause="the filesystem can't punch holes", directory=str(data_dir))
        return asyncio.run(_run(config, tls))


def is_disk_full(data_dir: Path, failures: Sequence[BaseException]) -> bool:
    """Whether that is why the agent failed. Not each error says so, as one of the supervisor's: then it is tried."""
    if any(isinstance(failure, OSError) and failure.errno in DISK_FULL for failure in failures):
        return True
    try:
        probe(data_dir)
    except OSError as error:
        return error.errno in DISK_FULL
    return False


def _wait_for_room(data_dir: str, cause: str) -> bool:
    """For a while. Whether the agent was told to stop meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        _log.error("disk_full", directory=data_dir, cause=cause, hint="free some space: it is tried again")
        longer_us = int(3 * FULL_DISK_PAUSE_S * 1_000_000)  # what the service manager has to have patience for
        notify(f"STATUS=waits for space on its disk\nEXTEND_TIMEOUT_USEC={longer_us}")
        return signal.sigtimedwait(STOPS, FULL_DISK_PAUSE_S) is not None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The exceptions in a group of groups."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(each)
        else:
            yield each


async def _run(config: AgentConfig, tls: ssl.SSLContext) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, stop.set)
    driver = Driver(config, tls)
    try:
        await driver.start()
    except BaseException:
        driver.close()
        raise
    _log.info("agent_started", node=config.node_id, data_dir=config.data_dir)
    running = asyncio.create_task(driver.run())
    stopping = asyncio.create_task(stop.wait())
    watchdog = asyncio.create_task(feed_watchdog())
    notify("READY=1")
    await asyncio.wait([running, stopping], return_when=asyncio.FIRST_COMPLETED)
    notify("STOPPING=1")
    for task in (running, stopping, watchdog):
        task.cancel()
    try:
        await running
    except asyncio.CancelledError:
        _log.info("agent_stopped", node=config.node_id)
    finally:
        driver.close()
    return 0


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Hold the data directory's lock. Raises OSError if another agent has it."""
    fd = os.open(data_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another agent uses {data_dir}") from None
        yield
    finally:
        os.close(fd)
