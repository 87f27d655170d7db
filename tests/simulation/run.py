"""A run: a safety phase under faults, a healing phase, and a verdict. All of it follows from the seed."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeAlias

from chaos.checkers import overlap
from chaos.checkers.overlap import Ran
from tests.simulation import mutants_above  # noqa: F401 (it adds to the mutants)
from tests.simulation.checks import Checks, watching_elections
from tests.simulation.clients import Client, Record, Settler
from tests.simulation.echo import echo_messages
from tests.simulation.faults import Faults
from tests.simulation.mutants import MUTANTS
from tests.simulation.notices import Notices
from tests.simulation.options import Options, draw
from tests.simulation.patches import Patches
from tests.simulation.schedules import Schedules
from tests.simulation.stock import StockChecks, use_stock
from tests.simulation.workflows import Workflows
from tests.simulation.world import Violated, World

Keeper: TypeAlias = Schedules | Workflows | Notices

PROGRESS_S = 80.0  # after all is healed: within so long a submission is accepted
FINISH_S = 400.0  # and within so long every job has ended, or was cancelled and has ended then


@dataclass
class Verdict:
    """`violations` are sentences; `simulated_s` and what follows say how much was tried."""

    seed: int
    profile: str
    violations: list[str] = field(default_factory=list)
    simulated_s: float = 0.0
    real_s: float = 0.0
    calls: int = 0
    answered: int = 0
    acknowledged: int = 0
    entries: int = 0
    messages: int = 0
    terms: int = 0
    tasks: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    undecided: int = 0
    fingerprint: str = ""
    trace: list[str] = field(default_factory=list)


def run(seed: int, profile: str = "any", mutant: str = "", *, stock: bool = False, keep_trace: bool = False) -> Verdict:
    """Simulate what this seed stands for. `mutant` is the name of a bug to put back; `stock`: see stock.py."""
    options = draw(seed, profile)
    verdict = Verdict(seed, profile)
    began = time.process_time()
    with ExitStack() as stack:
        patches = stack.enter_context(Patches())
        if mutant:
            MUTANTS[mutant].install(patches)
        if options.echo:
            echo_messages(patches, options.echo, options.election_s)
        world = stack.enter_context(World(seed, options.settings, keep_trace=keep_trace))
        record = Record(world)
        checks = (StockChecks if stock else Checks)(world, record)
        stack.enter_context(watching_elections(checks))
        if stock:
            use_stock(world, patches, checks)
        clients = [Client(world, f"c{number}", options, record) for number in range(1, options.clients + 1)]
        for client in clients:
            stack.callback(client.close)
        faults = Faults(world, options, checks, [client.name for client in clients])
        stack.callback(faults.operator.close)
        keepers: list[Keeper] = [Schedules(world, patches)] if options.schedules else []
        keepers += [Workflows(world, options.task_s)] if options.workflows else []
        keepers += [Notices(world, patches)] if options.notices else []
        try:
            verdict.violations += _phases(world, options, record, checks, clients, faults, keepers, stack)
        except Violated as violated:
            verdict.violations.append(str(violated))
        verdict.simulated_s = world.now
        verdict.messages = world.network.delivered
        verdict.fingerprint = world.fingerprint
        verdict.trace = world.trace or []
    verdict.calls, verdict.answered, verdict.acknowledged = record.asked, record.returned, len(record.acknowledged)
    verdict.entries, verdict.terms, verdict.tasks = checks.entries, len(checks.monotone.leaders), len(checks.outcomes)
    verdict.faults, verdict.undecided = faults.made, checks.undecided
    verdict.real_s = time.process_time() - began
    return verdict


def _phases(
    world: World,
    options: Options,
    record: Record,
    checks: Checks,
    clients: list[Client],
    faults: Faults,
    keepers: list[Keeper],
    stack: ExitStack,
) -> list[str]:
    world.start()
    if options.steady:
        world.run(60, world.agree)
    settled_terms = len(checks.monotone.leaders)
    for client in clients:
        client.start()
    for keeper in keepers:
        keeper.start()
    faults.start()
    world.run(options.duration_s)
    faults.stop()
    world.heal()
    for client in clients:
        client.stop()
    healed_at = world.now
    settler = Settler(world, options, record, clients)
    stack.callback(settler.close)
    settler.start()
    for keeper in keepers:
        keeper.stop()
    if not world.run(PROGRESS_S, lambda: settler.accepted):
        return [f"no submission was accepted within {PROGRESS_S:g} s after everything was healed at {healed_at:.3f} s"]
    ends = [settler, *clients, *keepers]
    done = world.run(FINISH_S, lambda: all(each.finished for each in ends) and world.agree())
    for client in (settler, *clients):
        client.check()
    if not done:
        left = settler.complaint() or _unsettled(world, clients, keepers)
        return [f"{FINISH_S:g} s after a submission was accepted again, {left}"]
    deposed = _deposed(checks, settled_terms) if options.steady else []
    kept = [sentence for keeper in keepers for sentence in keeper.verdict()]
    return deposed + kept + checks.verdict() + overlaps(world)


def _deposed(checks: Checks, settled_terms: int) -> list[str]:
    leaders = list(checks.monotone.leaders.items())[settled_terms:]
    return [f"a healthy leader was deposed: {name} came to lead in term {term}" for term, name in leaders]


def _unsettled(world: World, clients: list[Client], keepers: list[Keeper]) -> str:
    waiting = [client.name for client in clients if not client.finished]
    if waiting:
        return f"{', '.join(waiting)} still wait for an answer"
    if not all(keeper.finished for keeper in keepers):
        return "executions have not ended, or notices not arrived"
    statuses = [each.replica.status for each in world.managers.values() if each.running]
    leader = world.leader()
    if leader is not None and leader.core.engine.membership.voters != sorted(world.managers):
        return f"{leader.core.engine.membership.voters} vote, and {sorted(world.managers)} are wanted"
    seen = [(each.manager_id, each.role, each.term, each.last_index, each.applied_index) for each in statuses]
    return f"the managers don't agree: {seen}"


def overlaps(world: World) -> list[str]:
    """Of jobs that must never run twice at once, on any nodes; of any job, on one node."""
    runs = [
        Ran((run.key.job_id, run.key.index), run.key.attempt, run.node, run.started_s, run.ended_s or float("inf"))
        for run in world.runs
    ]
    strict = [ran for ran, run in zip(runs, world.runs, strict=True) if run.stop_on_disconnect]
    wrong = overlap.check(strict)
    for node in world.agents:
        wrong += overlap.check(ran for ran in runs if ran.node_id == node)
    return wrong
