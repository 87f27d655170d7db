"""Divergence: a manager whose state holds a flipped bit is detected, fenced and rebuilt."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from proofs.report import Proof
from tests.support.flipped_bit import tell

PROOF = "flipped-bit"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="each on a new cluster of three managers (default: 3)")


def prove(options: argparse.Namespace) -> Proof:
    proof = Proof(
        "A flipped bit in the state of one of three managers",
        (
            "round",
            "changed",
            "found at entry",
            "after s",
            "exit",
            "all agree again after s",
            "accepted",
            "one digest at",
        ),
    )
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory(prefix="hasched-flipped-bit-") as folder:
            try:
                outcome = tell(Path(folder))
            except AssertionError as error:
                proof.violate(f"round {number}: {error}")
                continue
        proof.add(
            number,
            f"{outcome.manager}: {outcome.what}",
            outcome.index,
            f"{outcome.found_after_s:.1f}",
            outcome.exit_status,
            f"{outcome.rebuilt_after_s:.1f}",
            outcome.accepted,
            outcome.equal_at,
        )
    proof.facts["times"] = "from a start of the manager, under a stream of submissions; checks every 100 entries"
    return proof
