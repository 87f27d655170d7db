"""A rolling restart: every manager stopped (SIGTERM) and started in turn, while clients submit; nothing is lost."""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

from chaos.checkers import durability
from proofs.failover import PlainClient, new_cluster
from proofs.report import Proof
from tests.support.cluster import ProcessCluster
from tests.support.prober import Prober, find_rivals, present

PROOF = "rolling-restart"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="so often every manager is restarted (3)")


def prove(options: argparse.Namespace) -> Proof:
    proof = Proof(
        "Rolling restart: the longest time without an accepted submission while a manager is stopped and started",
        ("round", "manager", "role", "stopped in ms", "cluster's gap ms", "one client's gap ms"),
    )
    with new_cluster() as cluster:
        measure(cluster, options.rounds, proof)
    return proof


def measure(cluster: ProcessCluster, rounds: int, proof: Proof) -> None:
    """The next manager goes when the cluster is whole again; the leader goes first."""
    longest = {"leader": 0.0, "follower": 0.0}
    with Prober(cluster) as prober, PlainClient(cluster.client()) as client:
        for number in range(1, rounds + 1):
            first = cluster.leader()
            for name in [first, *(each for each in cluster.manager_names if each != first)]:
                role = "leader" if cluster.leader() == name else "follower"
                begin = prober.next_accepted(time.monotonic()).ended
                status = cluster.terminate(name)
                stopped = time.monotonic()
                if status != 0:
                    proof.violate(f"{name} was stopped and ended with status {status}")
                cluster.start(name)
                cluster.wait_ready()
                end = max(prober.next_accepted(time.monotonic()).ended, client.next_accepted(time.monotonic()))
                gap = max(prober.gaps(begin, end))
                alone = _longest_pause(client, begin, end)
                longest[role] = max(longest[role], gap)
                proof.add(number, name, role, *(round(1000 * each) for each in (stopped - begin, gap, alone)))
    there = present(cluster)
    violations = prober.find_violations(there) + durability.check(client.job_ids, (), there)
    for sentence in violations + find_rivals(prober.sights):
        proof.violate(sentence)
    for role, gap in longest.items():
        proof.facts[f"longest gap when the {role} was restarted"] = f"{gap * 1000:.0f} ms"
    proof.facts["accepted submissions"] = len(prober.accepted) + len(client.job_ids)
    proof.facts["of these lost or doubled"] = len(violations)


def _longest_pause(client: PlainClient, begin: float, end: float) -> float:
    ended = [each for _, each in client.accepted]
    around = [after - before for before, after in pairwise(ended) if after > begin and before < end]
    return max(around, default=end - begin)
