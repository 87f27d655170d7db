"""Managers 3 → 5 → 3 under load, with a manager killed in every step: nothing acknowledged is lost, and all states agree."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from proofs.report import Proof, say
from tests.support.cluster import ProcessCluster, eventually
from tests.support.submitters import Submitters, find_violations

PROOF = "membership"
COLUMNS = ("round", "step", "killed", "seconds", "acknowledged", "longest wait (s)", "term")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="how often 3 become 5 and 3 again")
    parser.add_argument("--clients", type=int, default=4, help="how many submit meanwhile")
    parser.add_argument("--seed", type=int, default=1, help="who is killed, and when")


def prove(options: argparse.Namespace) -> Proof:
    proof = Proof("Membership 3 → 5 → 3 under load with kills", COLUMNS)
    with (
        tempfile.TemporaryDirectory(prefix="hasched-prove-") as folder,
        ProcessCluster(Path(folder), agents=0) as cluster,
    ):
        cluster.start()
        cluster.wait_ready()
        with Submitters(cluster, options.clients) as submitters:
            rounds = _Rounds(proof, cluster, submitters, random.Random(options.seed))
            try:
                for number in range(1, options.rounds + 1):
                    rounds.run(number)
                    _judge(proof, cluster, submitters, f"after round {number}")
            except AssertionError as error:
                proof.violate(str(error))
            submitters.stop()
        _judge(proof, cluster, submitters, "at the end")
        proof.facts = {
            "changes of membership": rounds.changes,
            "managers killed": rounds.kills,
            "acknowledged submissions": len(submitters.acknowledged),
            "submissions without an answer": len(submitters.unknown),
            "longest wait of a client (s)": f"{rounds.longest_s:.2f}",
            "violations": len(proof.violations),
        }
    return proof


def _judge(proof: Proof, cluster: ProcessCluster, submitters: Submitters, when: str) -> None:
    with cluster.client() as client:
        for violation in find_violations(client, dict(submitters.acknowledged)):
            proof.violate(f"{when}: {violation}")


class _Rounds:
    def __init__(self, proof: Proof, cluster: ProcessCluster, submitters: Submitters, dice: random.Random) -> None:
        self.changes = self.kills = 0
        self.longest_s = 0.0
        self._proof = proof
        self._cluster = cluster
        self._submitters = submitters
        self._dice = dice
        self._number = 0
        self._next = 4

    def run(self, number: int) -> None:
        """Two new managers come, the two that have been there longest go; who leads goes in every other round."""
        self._number = number
        cluster = self._cluster
        old = cluster.manager_names[:2]
        for _ in old:
            name = f"m{self._next}"
            self._next += 1
            cluster.add_manager(name)
            self._step(f"add {name}", partial(self._add, name))
        self._expect(cluster.manager_names)
        if number % 2:
            done = cluster.hasched("manager", "transfer", old[0])
            assert done.returncode in (0, 75), done.stderr
        for name in old:
            self._step(f"remove {name}", partial(self._remove, name))
        self._expect(cluster.manager_names)

    def _step(self, what: str, change: Callable[[], str]) -> None:
        submitters = self._submitters
        before, submitters.longest_s, begun = len(submitters.acknowledged), 0.0, time.monotonic()
        killed = change()
        seconds = time.monotonic() - begun
        submitters.more(50)
        self.changes += 1
        self.longest_s = max(self.longest_s, submitters.longest_s)
        with self._cluster.client() as client:
            term = max(manager.term for manager in client.managers().managers)
        gained = len(submitters.acknowledged) - before
        self._proof.add(self._number, what, killed, f"{seconds:.1f}", gained, f"{submitters.longest_s:.2f}", term)

    def _add(self, name: str) -> str:
        """It is wanted first, then somebody dies, then it is started."""
        cluster, member = self._cluster, self._cluster.member(name)
        asked = ("manager", "add", name, "--api", member["api"], "--raft", member["raft"])
        self._run(*asked, "--no-wait")
        killed = self._kill([each for each in cluster.manager_names if each != name])
        cluster.start(name)
        self._run(*asked)
        return killed

    def _remove(self, name: str) -> str:
        cluster = self._cluster
        self._run("manager", "remove", name, "--no-wait")
        killed = self._kill([each for each in cluster.manager_names if each != name])
        self._run_until_gone(name)
        cluster.terminate(name)
        cluster.forget_manager(name)
        return killed

    def _run_until_gone(self, name: str) -> None:
        with self._cluster.client(*(each for each in self._cluster.manager_names if each != name)) as client:
            eventually(f"{name} is out", lambda: all(each.id != name for each in client.managers().managers))

    def _kill(self, names: list[str]) -> str:
        """Whoever leads, or anybody: SIGKILL, and a start with what is on its disk."""
        leader = self._cluster.leader()
        name = leader if leader in names and self._dice.random() < 0.7 else self._dice.choice(names)
        self._cluster.kill(name)
        self._cluster.start(name)
        self.kills += 1
        return f"{name} (leader)" if name == leader else name

    def _run(self, *arguments: str) -> None:
        done = self._cluster.hasched(*arguments)
        assert done.returncode == 0, f"hasched {' '.join(arguments)}: {done.stderr}"

    def _expect(self, names: list[str]) -> None:
        """Exactly these vote."""
        with self._cluster.client() as client:

            def as_wanted() -> bool:
                page = client.managers()
                voters = {manager.id: manager.membership for manager in page.managers}
                return voters == dict.fromkeys(names, "voter") and all(each.filled for each in page.managers)

            eventually(f"{', '.join(names)} vote, and nobody else", as_wanted)
        say(f"  {', '.join(names)} vote")
