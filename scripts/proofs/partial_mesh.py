"""Partial meshes: five managers of which each reaches only some: chain, star, one-way cuts, a flapping link.

Real daemons, a network namespace each. While the mesh is cut, a leader that reaches a majority must stay, or one that
does must be found, and terms must not grow for ever. Afterwards all must agree, and nothing acknowledged may be lost.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from chaos.cluster.base import Pair
from chaos.cluster.network import HostNetwork, find_obstacle
from chaos.cluster.topology import both_ways, chain, star
from proofs.report import Proof
from tests.support.cluster import ProcessCluster, eventually
from tests.support.prober import Prober, find_rivals, leaders_by_term, present

PROOF = "partial-mesh"

HOSTS = ("m1", "m2", "m3", "m4", "m5")
SLOT_S = 0.25  # the cluster counts as working in a slot in which a submission was accepted
FLAP_PERIOD_S = 1.5
FLAP_CUT_S = 1.0
ENOUGH = 0.5  # of the time submissions are accepted, at least, on however busy a machine
MANY_TERMS = 0.5  # a second: elections without end


class Case(NamedTuple):
    """What is cut, given who leads when it begins. `flapping`: cut and healed again and again."""

    name: str
    pairs: Callable[[str], list[Pair]]
    flapping: bool = False


def _with_leader_at(place: int, leader: str) -> list[str]:
    """All hosts in a row in which the leader stands at `place`."""
    others = [host for host in HOSTS if host != leader]
    return [*others[:place], leader, *others[place:]]


def _chain_at(place: int) -> Callable[[str], list[Pair]]:
    return lambda leader: chain(_with_leader_at(place, leader))


def _other(leader: str) -> str:
    return next(host for host in HOSTS if host != leader)


CASES = (
    Case("chain, the leader in the middle", _chain_at(2)),
    Case("chain, the leader next to an end", _chain_at(1)),
    Case("chain, the leader at an end", _chain_at(0)),
    Case("star, the leader in the centre", lambda leader: star(leader, HOSTS)),
    Case("star, the leader at a tip", lambda leader: star(_other(leader), HOSTS)),
    Case("one-way, a follower doesn't hear the leader", lambda leader: [(leader, _other(leader))]),
    Case("one-way, the leader hears nobody", lambda leader: [(host, leader) for host in HOSTS if host != leader]),
    Case("one-way, nobody hears the leader", lambda leader: [(leader, host) for host in HOSTS if host != leader]),
    Case("a flapping link of the leader", lambda leader: both_ways([(leader, _other(leader))]), flapping=True),
    Case(
        "a flapping star, the leader at a tip",
        lambda leader: star(_other(leader), HOSTS),
        flapping=True,
    ),
)


class Found(NamedTuple):
    """`accepting`: the share of time in which some manager accepted submissions; `gap_s`: the longest time in which none
    did; `found_s`: from the cut to the first accepted submission that began after it; `terms` and `leaders`: while it was
    cut; `healed_s`: until every manager accepted again.
    """

    accepting: float
    gap_s: float
    found_s: float
    terms: int
    leaders: int
    accepted: int
    healed_s: float


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=60, help="for so long the mesh is cut in each case (60)")
    parser.add_argument("--case", type=int, action="append", choices=range(len(CASES)), help="only this one, by number")


def prove(options: argparse.Namespace) -> Proof:
    if obstacle := find_obstacle():
        raise SystemExit(f"partial-mesh: {obstacle}")
    columns = ("number", "case", "accepting", "gap s", "found s", "terms begun", "leaders", "accepted", "healed s")
    proof = Proof(f"Partial meshes: five managers, cut for {options.seconds:g} s", columns)
    for number, case in enumerate(CASES):
        if options.case is None or number in options.case:
            with tempfile.TemporaryDirectory(prefix="hasched-prove-") as folder:
                found = measure(case, Path(folder), options.seconds, proof)
            if found.accepting < ENOUGH:
                proof.violate(f"{case.name}: submissions were accepted in {found.accepting:.1%} of the time only")
            if found.terms > MANY_TERMS * options.seconds:
                proof.violate(f"{case.name}: {found.terms} terms were begun")
            accepting, gap, first, healed = (
                f"{found.accepting:.1%}",
                *(f"{each:.2f}" for each in (found.gap_s, found.found_s, found.healed_s)),
            )
            proof.add(number, case.name, accepting, gap, first, found.terms, found.leaders, found.accepted, healed)
    return proof


def measure(case: Case, folder: Path, seconds: float, proof: Proof) -> Found:
    """Broken promises go into `proof`."""
    with HostNetwork(HOSTS) as network, ProcessCluster(folder, managers=5, agents=0, network=network) as cluster:
        cluster.start()
        cluster.wait_ready()
        with Prober(cluster) as prober:
            prober.next_accepted(time.monotonic())
            leader = cluster.leader()
            first_term = _highest_term(prober)
            begin = time.monotonic()
            end = begin + seconds
            _hold_cut(network, case, leader, end)
            last_term = _highest_term(prober)
            network.heal()
            healed = time.monotonic()
            eventually(
                "every manager accepts after healing", lambda: len(_first_accepted(prober, healed)) == len(HOSTS)
            )
            all_accept = max(_first_accepted(prober, healed).values()) - healed
            cluster.wait_ready()
        eventually("all managers agree", lambda: _all_agree(cluster))
        broken = prober.find_violations(present(cluster))
    for sentence in broken + find_rivals(prober.sights):
        proof.violate(f"{case.name}: {sentence}")
    during = [each for each in prober.accepted if begin < each.ended < end]
    slots = {int((each.ended - begin) / SLOT_S) for each in during}
    found = min((each.ended for each in during if each.begun >= begin), default=end) - begin
    leaders = leaders_by_term([sight for sight in prober.sights if begin <= sight.at <= end])
    return Found(
        accepting=min(1.0, len(slots) / int(seconds / SLOT_S)),
        gap_s=max(prober.gaps(begin, end)),
        found_s=found,
        terms=last_term - first_term,
        leaders=len(leaders),
        accepted=len(during),
        healed_s=all_accept,
    )


def _hold_cut(network: HostNetwork, case: Case, leader: str, end: float) -> None:
    """Until `end`. The cuts would heal themselves a little later, should this process die."""
    pairs = case.pairs(leader)
    pause = threading.Event()
    while (left := end - time.monotonic()) > 0:
        if case.flapping:
            network.cut(pairs, min(FLAP_CUT_S, left))
            pause.wait(min(FLAP_PERIOD_S, left))
        else:
            network.cut(pairs, left + 5)
            pause.wait(left)


def _highest_term(prober: Prober) -> int:
    return max(sight.term for sight in prober.sights)


def _first_accepted(prober: Prober, after: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in prober.accepted:
        if each.begun >= after:
            found.setdefault(each.manager, each.ended)
    return found


def _all_agree(cluster: ProcessCluster) -> bool:
    with cluster.client() as client:
        page = client.managers()
    return (
        page.leader is not None
        and all(manager.reachable for manager in page.managers)
        and len({(manager.term, manager.last_index, manager.applied_index) for manager in page.managers}) == 1
    )
