"""Cron semantics against a second implementation: ten years, every zone whose clocks are changed, 16 expressions."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor

from proofs.report import Proof, say
from tests.timetable.table import EXPRESSIONS, changing_zones, differences

PROOF = "cron-table"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--first-year", type=int, default=2020)
    parser.add_argument("--last-year", type=int, default=2029)
    parser.add_argument("--jobs", type=int, default=1, help="processes")


def prove(options: argparse.Namespace) -> Proof:
    proof = Proof("Cron semantics", ("clock", "zones that show it", "slots", "differences"))
    zones = changing_zones(options.first_year, options.last_year)
    say(f"{len(zones)} different clocks, {len(EXPRESSIONS)} expressions")
    with ProcessPoolExecutor(options.jobs) as pool:
        tasks = {
            zone: pool.submit(differences, zone, EXPRESSIONS, options.first_year, options.last_year) for zone in zones
        }
        total = 0
        for zone, task in tasks.items():
            compared, found = task.result()
            total += compared
            proof.add(zone, len(zones[zone]), f"{compared:,}", len(found))
            for sentence in found:
                proof.violate(sentence)
    proof.facts = {
        "expressions": len(EXPRESSIONS),
        "zones": sum(map(len, zones.values())),
        "years": f"{options.first_year} to {options.last_year}",
        "slots compared": f"{total:,}",
        "differences": len(proof.violations),
    }
    return proof
