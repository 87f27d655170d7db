"""The command `hasched dev`.

Real daemons, started as in production: own processes, own configuration files, own data, TLS and a token. What is killed
comes back; Ctrl-C stops everything, tasks included, because the whole cluster is this terminal's.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from hasched.cli.dev.layout import CLUSTER, SIMULATION, Layout, prepare
from hasched.cli.dev.processes import Child, Processes, kill_daemons, kill_work
from hasched.cli.exits import Exit
from hasched.cli.settings import Settings, json_option
from hasched.client.context import Context, save_context
from hasched.client.sync import Client
from hasched.model.errors import Conflict, HaschedError
from hasched.model.words import counted

POLL_S = 0.03
SLOW_S = 20.0  # then we say where to look
STOP_PATIENCE_S = 10.0


@click.command()
@click.option("--managers", type=click.Choice(["1", "3", "5"]), default="3", show_default=True, help="How many vote.")
@click.option("--agents", type=click.IntRange(0, 64), default=2, show_default=True, help="How many do work.")
@click.option(
    "--simulate-nodes",
    "simulated",
    type=click.IntRange(0, 2000),
    default=0,
    metavar="N",
    help="So many nodes more that only pretend, with GPUs and racks: to try policies on a large cluster.",
)
@click.option(
    "--plugins",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIRECTORY",
    help="Device plugins of all agents (docs/devices.md); they are asked every second.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where it lives; a cluster that was there goes on. [default: ~/.local/share/hasched/dev]",
)
@click.option(
    "--port-base", type=click.IntRange(1024, 65000), help="The first port; free ones are found and kept by default."
)
@json_option
@click.pass_obj
def dev(
    settings: Settings,
    /,
    managers: str,
    data_dir: Path | None,
    plugins: Path | None,
    port_base: int | None,
    **numbers: int,
) -> int:
    """Run a whole cluster in this terminal: TLS, a token, managers that survive kill -9, agents that do work.

    Makes itself the current context, so that `hasched job run -- echo hi` works in another terminal. Every agent offers
    all of this machine's CPUs and memory, so together they offer more than there is.

    Simulated nodes s1, s2, … take tasks and run nothing: a task lasts as long as SIMULATED_DURATION in its environment says,
    or as its `sleep N`, and ends with SIMULATED_EXIT_CODE. They have the label `simulated`.
    """
    begun_s = time.monotonic()
    directory = (data_dir or _default_directory()).absolute()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = directory.resolve()
    teller = _Teller(settings.as_json, begun_s)
    with _lock(directory):
        kill_daemons(directory)
        layout = prepare(directory, int(managers), numbers["agents"], numbers["simulated"], port_base, plugins=plugins)
        save_context(CLUSTER, Context(managers=layout.urls, ca=str(layout.ca), token=layout.token), current=True)
        return _run(layout, teller)


def _run(layout: Layout, teller: _Teller) -> int:
    signals = [signal.SIGCHLD, signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # Under nohup a closed terminal doesn't matter.
        signals.append(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # They are waited for below; children start with a clean mask.
    names = [*layout.managers, *layout.agents, *([SIMULATION] if layout.simulated else [])]
    children = [Child(name, _command(layout, name), layout.log(name)) for name in names]
    processes = Processes(children, layout.processes, teller.restarted)
    processes.start_all()
    threading.Thread(target=_announce, args=(layout, teller), name="readiness", daemon=True).start()
    try:
        while True:
            due_s = processes.next_due_s()
            received = signal.sigwaitinfo(signals) if due_s is None else signal.sigtimedwait(signals, due_s)
            if received is not None and received.si_signo != signal.SIGCHLD:
                teller.stopping()
                return Exit.OK
            processes.restart_due()
    finally:
        processes.stop_all([name for name in names if name not in layout.managers], STOP_PATIENCE_S)
        processes.stop_all(layout.managers, STOP_PATIENCE_S)
        kill_work(layout.directory)
        layout.processes.unlink(missing_ok=True)


def _command(layout: Layout, name: str) -> list[str]:
    kind = "manager" if name in layout.managers else "agent"
    verb = "simulate" if name == SIMULATION else "start"
    return [sys.executable, "-P", "-m", "hasched", kind, verb, "--config", str(layout.config(name))]


def _announce(layout: Layout, teller: _Teller) -> None:
    """Wait until every manager answers, one leads, and every node is connected; then say so."""
    slow_at = time.monotonic() + SLOW_S
    while not _is_whole(layout):
        if time.monotonic() > slow_at:
            teller.slow(layout)
            slow_at = float("inf")
        time.sleep(POLL_S)
    teller.ready(layout)


def _is_whole(layout: Layout) -> bool:
    context = Context(managers=layout.urls, ca=str(layout.ca), token=layout.token)
    try:
        with Client(context, timeout_s=1.0) as client:
            managers = client.managers()
            if managers.leader is None or not all(manager.reachable for manager in managers.managers):
                return False
            connected = {node.id for node in client.nodes().nodes if node.connected}
            return connected.issuperset(layout.agents) and connected.issuperset(layout.simulated)
    except HaschedError:  # Still starting.
        return False


class _Teller:
    """Says what happens: sentences for people, one JSON object a line for programs."""

    def __init__(self, as_json: bool, begun_s: float) -> None:
        self._as_json = as_json
        self._begun_s = begun_s

    def ready(self, layout: Layout) -> None:
        took_s = time.monotonic() - self._begun_s
        if self._as_json:
            self._event(
                "ready", seconds=round(took_s, 3), managers=layout.urls, data_dir=str(layout.directory), context=CLUSTER
            )
            return
        apis = ", ".join(f"{name} {url}" for name, url in zip(layout.managers, layout.urls, strict=True))
        what = [counted(len(layout.managers), "manager"), counted(len(layout.agents), "agent")]
        if layout.simulated:
            what.append(counted(len(layout.simulated), "simulated node"))
        self._say(f"ready in {took_s:.1f} s: {', '.join(what)}")
        self._say(f"  API      {apis}")
        self._say(f"  context  {CLUSTER}, now the current one")
        self._say(f"  data     {layout.directory} (logs: *.log)")
        self._say(f"  nodes    each offers all {os.cpu_count()} CPUs of this machine")
        self._say("  try      hasched job run --wait -- echo hi")
        self._say("Ctrl-C stops everything.")

    def slow(self, layout: Layout) -> None:
        if self._as_json:
            self._event("slow", logs=str(layout.directory))
        else:
            self._say(f"still starting after {SLOW_S:.0f} s; the logs are {layout.directory}/*.log")

    def restarted(self, name: str, text: str) -> None:
        if self._as_json:
            self._event("process", name=name, text=text)
        else:
            self._say(f"{name} {text}")

    def stopping(self) -> None:
        if self._as_json:
            self._event("stopping")
        else:
            self._say("stopping: agents and their tasks, then managers")

    def _event(self, kind: str, **fields: object) -> None:
        self._say(msgspec.json.encode({"event": kind, **fields}).decode())

    def _say(self, text: str) -> None:
        click.echo(text)
        sys.stdout.flush()


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """One `hasched dev` for each directory. Raises Conflict."""
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"a `hasched dev` is running in {directory}", "stop it, or use another --data-dir") from None
        yield


def _default_directory() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "hasched" / "dev"
