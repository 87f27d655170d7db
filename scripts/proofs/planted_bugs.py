"""Planted bugs: the fault harness must find bugs put back into real daemons, and find nothing without them.

Three bugs of consensus and three of the agents and their fences. Each is run under faults that the harness draws from a
seed; what must be found is a broken promise, by the name of its verdict.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from proofs.report import Proof

PROOF = "planted-bugs"

ROOT = Path(__file__).resolve().parent.parent.parent
MUTATED = (sys.executable, str(ROOT / "tests" / "support" / "mutated.py"))
CHAOS = (sys.executable, "-m", "hasched", "chaos", "run", "--json")


class Planted(NamedTuple):
    """A bug, by its name in tests/simulation; the faults and the work that bring it to light, and the verdicts that tell."""

    bug: str
    layer: str
    nemeses: tuple[str, ...]
    workloads: tuple[str, ...]
    told_by: tuple[str, ...]
    minutes: float = 0.75


PLANTED = (
    Planted(
        "journal-not-synced", "consensus", ("power-cut",), ("submit", "batches"), ("durability", "linearizability")
    ),
    # A leader that goes on as one while it is cut off, and answers reads.
    Planted(
        "stale-read+no-check-quorum",
        "consensus",
        ("isolate-leader",),
        ("cancel-races", "reads"),
        ("linearizability",),
    ),
    Planted(
        "ids-not-in-snapshot",
        "consensus",
        ("kill-all-managers", "rolling-restart"),
        ("submit-with-retries", "submit"),
        ("durability", "linearizability"),
    ),
    Planted("report-not-repeated", "agent", ("reset-connections", "kill-leader"), ("submit",), ("every job ends",)),
    Planted("fence-not-checked", "agent", ("agent-cut-off",), ("side-effects",), ("one outcome", "fences")),
    Planted("grace-not-fresh", "agent", ("leader-and-node",), ("side-effects",), ("no overlap", "fences")),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bug", action="append", choices=[each.bug for each in PLANTED], help="only this one")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="how many runs a bug may hide from")
    parser.add_argument("--without-control", action="store_true", help="leave out the same runs without the bug")


def prove(options: argparse.Namespace) -> Proof:
    proof = Proof("Planted bugs", ("bug", "layer", "faults", "found by seed", "told by", "without the bug"))
    for planted in PLANTED:
        if options.bug is None or planted.bug in options.bug:
            _plant(planted, options, proof)
    found = sum(1 for row in proof.rows if row[3] != "none")
    proof.facts["found"] = f"{found} of {len(proof.rows)}"
    return proof


def _plant(planted: Planted, options: argparse.Namespace, proof: Proof) -> None:
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        verdicts = _verdicts(planted, seed, [*MUTATED, planted.bug])
        if told := [name for name in planted.told_by if verdicts[name] == "broken"]:
            break
    else:
        proof.violate(f"{planted.bug} was not found in {options.seeds} runs")
        proof.add(planted.bug, planted.layer, ", ".join(planted.nemeses), "none", "", "")
        return
    control = "not run"
    if not options.without_control:
        verdicts = _verdicts(planted, seed, None)
        not_held = [
            f"{name} {verdict}"
            for name, verdict in verdicts.items()
            if verdict == "broken"
            or (verdict != "held" and name in planted.told_by)  # others may have nothing to look at
        ]
        control = ", ".join(not_held) or "all held"
        if not_held:
            proof.violate(f"without {planted.bug}, the same run does not hold: {control}")
    proof.add(planted.bug, planted.layer, ", ".join(planted.nemeses), seed, ", ".join(told), control)


def _verdicts(planted: Planted, seed: int, command: list[str] | None) -> dict[str, str]:
    """Of a run, by name: held, broken or undecided. Raises RuntimeError if there was none."""
    chosen = [word for name in planted.nemeses for word in ("--nemesis", name)]
    chosen += [word for name in planted.workloads for word in ("--workload", name)]
    under_test = ["--hasched", shlex.join(command)] if command else []
    with tempfile.TemporaryDirectory(prefix="hasched-prove-") as output:
        arguments = [*chosen, "--minutes", str(planted.minutes), "--seed", str(seed), "--output", output, *under_test]
        done = subprocess.run([*CHAOS, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"`{shlex.join([*CHAOS, *arguments])}` ended with {done.returncode}")
    return {each["name"]: each["verdict"] for each in json.loads(done.stdout)["verdicts"]}
