"""From the options of a command to a run, its cluster and its report; what `chaos/commands.py` calls."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from chaos import planning
from chaos.cluster.attached import AttachedCluster
from chaos.cluster.base import Cluster
from chaos.cluster.own import OwnCluster, find_missing
from chaos.consent import require
from chaos.drills.base import Drill
from chaos.drills.play import play
from chaos.planning import Planned
from chaos.registry import Registry
from chaos.report import build, files, text
from chaos.report.document import BROKEN, Document, DrillPart
from chaos.run import Tell, Work, run
from chaos.safety.ledger import Ledger
from hasched.cli.exits import Exit
from hasched.cli.output import print_json
from hasched.model.errors import BadRequest

T = TypeVar("T")

MANAGERS, AGENTS = 3, 2
TRY_S = 60.0


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a command, defaults filled in."""

    seed: int
    context_name: str | None = None
    attach: bool = False
    typed: str | None = None
    managers: int = MANAGERS
    agents: int = AGENTS
    minutes: float = 0.0
    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    hasched: tuple[str, ...] = ()  # the command under test

    @property
    def registry(self) -> Registry:
        return Registry(self.files)


def wish_from(context_name: str | None, options: Mapping[str, Any]) -> Wish:
    """Raises BadRequest for options that exclude each other."""
    attach, typed = options.get("attach", False), options.get("typed")
    managers, agents = options.get("managers"), options.get("agents")
    command = options.get("command")
    if attach and (managers or agents or command):
        raise BadRequest("--attach takes the cluster as it is", "leave out --managers, --agents and --hasched")
    if typed and not attach:
        raise BadRequest("--cluster is consent to hit a running cluster", "give it together with --attach")
    seed = options.get("seed")
    return Wish(
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        context_name=context_name,
        attach=attach,
        typed=typed,
        managers=int(managers or MANAGERS),
        agents=agents or AGENTS,
        minutes=options.get("minutes", 0.0),
        wanted=options.get("wanted", ()),
        unwanted=options.get("unwanted", ()),
        workloads=options.get("workloads", ()),
        files=options.get("files", ()),
        hasched=tuple(shlex.split(command)) if command else (sys.executable, "-m", "hasched"),
    )


# --- plan ---


def plan_for(wish: Wish) -> tuple[list[Planned], list[str]]:
    """The schedule, and what is left out."""
    nemeses, left_out = planning.usable(wish.registry.choose_nemeses(wish.wanted, wish.unwanted), _imagined(wish))
    return planning.draw(wish.seed, nemeses, wish.minutes * 60), left_out


def _imagined(wish: Wish) -> planning.Offer:
    """The cluster that the wish is about, as far as it can be known without making one."""
    if wish.attach:
        return _attended(_look_at(wish))
    return planning.Offer(
        managers=[f"m{number}" for number in range(1, wish.managers + 1)],
        agents=[f"n{number}" for number in range(1, wish.agents + 1)],
        missing=find_missing(),
    )


async def _look_at(wish: Wish) -> planning.Offer:
    cluster = await AttachedCluster.look(wish.context_name)
    return planning.Offer(managers=cluster.managers, agents=cluster.agents, missing=cluster.missing)


# --- run ---


def run_for(wish: Wish, output: Path, *, as_json: bool) -> int:
    """The exit code. Interrupted, it heals first."""
    document = _attended(_run(wish, _teller()))
    return _deliver(document, output, as_json=as_json)


async def _run(wish: Wish, tell: Tell) -> Document:
    await asyncio.to_thread(_try_command, wish)
    registry = wish.registry
    work = Work(
        seed=wish.seed,
        seconds=wish.minutes * 60,
        nemeses=registry.choose_nemeses(wish.wanted, wish.unwanted),
        workloads=registry.choose_workloads(wish.workloads),
    )
    tell(f"seed {wish.seed}")
    with Ledger.open(_cluster_name(wish), command=_repeat(wish, "run")) as ledger:
        async with _open_cluster(wish, ledger) as cluster:
            await require(cluster, wish.typed, interactive=sys.stdin.isatty())
            ran = await run(cluster, work, tell)
            broken = any(verdict.verdict == BROKEN for verdict in ran.verdicts)
            left_out = [*getattr(cluster, "left_out", []), *ran.left_out]
            head = build.head_of(cluster, ran.record, seed=wish.seed, command=_repeat(wish, "run"), left_out=left_out)
            return build.build(ran.record, ran.verdicts, head, cluster.logs() if broken else {})


def _open_cluster(wish: Wish, ledger: Ledger, drill: Drill | None = None) -> AbstractAsyncContextManager[Cluster]:
    if wish.attach:
        return AttachedCluster.attached(wish.context_name, ledger)
    if drill is None:
        return OwnCluster(ledger, wish.managers, wish.agents, hasched=list(wish.hasched))
    return OwnCluster(
        ledger,
        drill.managers,
        drill.agents,
        settings=drill.settings,
        agent_settings=drill.agent_settings,
        hasched=list(wish.hasched),
    )


# --- drills ---


def drill_for(wish: Wish, names: Sequence[str], output: Path, *, as_json: bool) -> int:
    document = _attended(_drill(wish, names, _teller()))
    return _deliver(document, output, as_json=as_json)


async def _drill(wish: Wish, names: Sequence[str], tell: Tell) -> Document:
    parts: list[DrillPart] = []
    drills = wish.registry.choose_drills(names)
    await asyncio.to_thread(_try_command, wish)
    command = _repeat(wish, "drill", *(names or ["--all"]))
    began = build.begin()
    with Ledger.open(_cluster_name(wish), command=command) as ledger:
        for drill in drills:
            tell(f"{drill.name}: {drill.happened}")
            part = await _play(wish, drill, ledger)
            tell(f"{drill.name}: {part.verdict}" + (f": {part.why}" if part.why else f" ({part.seconds:.1f} s)"))
            parts.append(part)
    return build.build_drills(parts, build.head_of_drills(began, seed=wish.seed, command=command))


async def _play(wish: Wish, drill: Drill, ledger: Ledger) -> DrillPart:
    async def consented(cluster: Cluster) -> None:
        await require(cluster, wish.typed, interactive=sys.stdin.isatty())

    return await play(drill, lambda: _open_cluster(wish, ledger, drill), consented)


# --- reports ---


def show_report(path: Path, page: Path | None, *, as_json: bool) -> int:
    document = files.read(path)
    if page is not None:
        files.write_page(document, page)
    if as_json:
        print_json(document)
    else:
        click.echo(text.render(document))
        if page is not None:
            click.echo(f"page: {page}")
    return Exit.OK if document.all_held else Exit.VIOLATED


def _deliver(document: Document, output: Path, *, as_json: bool) -> int:
    written, page = files.write(document, output)
    if as_json:
        print_json(document)
    else:
        click.echo(text.render(document))
        click.echo(f"report: {written}\npage:   {page}")
    return Exit.OK if document.all_held else Exit.VIOLATED


# --- what they share ---


def _try_command(wish: Wish) -> None:
    """Raises BadRequest if the command under test is not one of hasched's."""
    command = [*wish.hasched, "version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRY_S, check=False)
        said = "" if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise BadRequest(
            f"`{shlex.join(command)}` can't be run: {said.splitlines()[-1]}",
            "give --hasched a command that starts hasched",
        )


def _repeat(wish: Wish, verb: str, *names: str) -> str:
    """The command that does the same again."""
    words = ["hasched", *(["--context", wish.context_name] if wish.context_name else []), "chaos", verb, *names]
    if verb == "run":
        words += ["--minutes", f"{wish.minutes:g}"]
        words += [word for name in wish.wanted for word in ("--nemesis", name)]
        words += [word for name in wish.unwanted for word in ("--without", name)]
        words += [word for name in wish.workloads for word in ("--workload", name)]
    if wish.attach:
        words += ["--attach", *(["--cluster", wish.typed] if wish.typed else [])]
    elif verb == "run":
        words += ["--managers", str(wish.managers), "--agents", str(wish.agents)]
    words += [word for path in wish.files for word in ("--with", str(path))]
    if wish.hasched != (sys.executable, "-m", "hasched"):
        words += ["--hasched", shlex.join(wish.hasched)]
    return shlex.join([*words, "--seed", str(wish.seed)])


def _cluster_name(wish: Wish) -> str:
    return "a cluster of our own" if not wish.attach else wish.context_name or "the current context's cluster"


def _attended(work: Coroutine[Any, Any, T]) -> T:
    """Run it to its end. SIGINT and SIGTERM cancel it, so that it cleans up; a second one doesn't hurry it."""

    async def attended() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(attended())
    except asyncio.CancelledError:
        click.echo("interrupted: what was done is undone, and there is no report", err=True)
        raise KeyboardInterrupt from None


def _teller() -> Tell:
    """Progress goes to stderr, so that stdout is the report's."""
    begun_s = time.monotonic()
    return lambda line: click.echo(f"{time.monotonic() - begun_s:7.1f} s  {line}", err=True)
