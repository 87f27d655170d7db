"""Schedules every second in 50 zones, in simulated time: every slot is settled once, as its `catch_up` wants it, whoever leads.

Beside those that catch up all that was missed, of which each second has to have its run, there are some of every other policy.
Slots are compared with what had to become of them as they are settled.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

from hasched.model.schedule import CatchUp, ScheduleSpec
from hasched.model.spec import JobSpec
from hasched.timetable.zones import DAY_S
from proofs.report import Proof, say
from proofs.slot_cluster import SlotCluster
from tests.timetable.table import changing_zones

PROOF = "schedules"
START_MS = 1_774_569_600_000  # 2026-03-27: summer time begins in Europe two days later
SAID_EVERY_S = 30.0
FIRST = ("Europe/Berlin", "Australia/Lord_Howe", "Asia/Beirut", "America/Santiago", "UTC", "Asia/Kathmandu")
KEEPING = ("all", CatchUp.ALL, 1000, 30_000)  # no fault lasts so long that it would not keep all
OTHERS = (  # what is late is caught up or missed by these; the short grace lets `latest` fire something at all
    ("skip", CatchUp.SKIP, 1, 3000),
    ("latest", CatchUp.LATEST, 1, 400),
    ("seven", CatchUp.ALL, 7, 1000),
)


class Part(NamedTuple):
    """What one cluster has shown of its share of the schedules."""

    days: float
    faults: dict[str, int]
    figures: dict[str, int]
    settled: dict[str, tuple[int, int, int]]  # fired, caught up and missed, by policy
    wrong: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--zones", type=int, default=50)
    parser.add_argument("--days", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes, each a cluster with a share of the zones")
    parser.add_argument(
        "--at-most", type=float, default=1e9, metavar="SECONDS", help="give up after so long, and say how far"
    )


def prove(options: argparse.Namespace) -> Proof:
    began = time.monotonic()
    names = list(dict.fromkeys([*FIRST, *changing_zones(2026, 2026)]))
    names = (names * (options.zones // len(names) + 1))[: options.zones]
    shares = [
        (options.seed * 1000 + number, names[number :: options.jobs], options.days, options.at_most)
        for number in range(options.jobs)
    ]
    if options.jobs == 1:
        parts = [run(*shares[0])]
    else:
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            parts = [each.result() for each in [pool.submit(run, *share) for share in shares]]
    proof = Proof("Schedules every second", ("fault or policy", "times", "fired in time", "caught up", "missed"))
    for name in parts[0].faults:
        proof.add(name, sum(part.faults[name] for part in parts), "", "", "")
    for policy in parts[0].settled:
        columns = [sum(column) for column in zip(*(part.settled[policy] for part in parts), strict=True)]
        proof.add(f"`{policy}`", f"{sum(columns):,} slots", *(f"{each:,}" for each in columns))
    for sentence in [sentence for part in parts for sentence in part.wrong[:20]]:
        proof.violate(sentence)
    proof.facts = {
        "schedules": sum(part.figures["schedules"] for part in parts),
        "clusters": len(parts),
        "simulated days": round(min(part.days for part in parts), 2),
    }
    for name in parts[0].figures:
        proof.facts.setdefault(name, f"{sum(part.figures[name] for part in parts):,}")
    proof.facts["seconds"] = round(time.monotonic() - began)
    return proof


def specs_of(zones: list[str]) -> dict[str, tuple[str, ScheduleSpec]]:
    """The schedules of these zones, by name, each with what its policy is called: one that keeps everything in every zone, and in
    some zones one that doesn't."""
    kinds = [(zone, KEEPING) for zone in zones]
    kinds += [(zones[number % len(zones)], kind) for number, kind in enumerate(OTHERS * (-(-len(zones) // 25)))]
    found: dict[str, tuple[str, ScheduleSpec]] = {}
    for number, (zone, (policy, catch_up, limit, grace_ms)) in enumerate(kinds):
        spec = ScheduleSpec(
            cron="* * * * * *",
            timezone=zone,
            catch_up=catch_up,
            catch_up_limit=limit,
            grace_ms=grace_ms,
            job=JobSpec(name="tick", command=("true",)),
        )
        found[f"{policy}{number}"] = policy, spec
    return found


def run(seed: int, zones: list[str], days: float, at_most_s: float) -> Part:
    """Simulate a cluster with a schedule in each of the zones."""
    schedules = specs_of(zones)
    cluster = SlotCluster(seed, START_MS, {name: spec for name, (_, spec) in schedules.items()})
    began = said = time.monotonic()
    end_ms = START_MS + round(days * DAY_S * 1000)
    while cluster.state.now_ms < end_ms and len(cluster.wrong) < 100 and time.monotonic() - began < at_most_s:
        cluster.go_on()
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            fired = sum(book.fired + book.caught_up for book in cluster.books.values())
            done = (cluster.state.now_ms - START_MS) / 1000 / DAY_S
            say(f"{done:.2f} days, {fired:,} slots fired, {sum(cluster.faults.values())} faults")
    cluster.settle()
    return _sum_up(cluster, schedules)


def _sum_up(cluster: SlotCluster, schedules: dict[str, tuple[str, ScheduleSpec]]) -> Part:
    settled: dict[str, tuple[int, int, int]] = {}
    missed = left_out = wrongly = extra = 0
    now_ms = cluster.state.now_ms
    for name, (policy, _) in schedules.items():
        book = cluster.books[name]
        fired, caught_up, skipped = settled.get(policy, (0, 0, 0))
        settled[policy] = fired + book.fired, caught_up + book.caught_up, skipped + book.missed
        missed += book.missed if policy == KEEPING[0] else 0
        left_out += book.gaps + max(0, (now_ms - book.next_ms) // 1000 + 1)
        wrongly += book.wrongly
        extra += book.extra
    wrong = list(cluster.wrong)
    wrong += [f"{missed} slots were missed that `catch_up: all` had to keep"] if missed else []
    wrong += [f"nothing became of {left_out} slots"] if left_out else []
    figures = {
        "schedules": len(schedules),
        "slots fired": sum(fired + caught_up for fired, caught_up, _ in settled.values()),
        "missed though they were to be kept": missed,
        "without any outcome": left_out,
        "with another outcome than their policy's": wrongly,
        "extra": extra,
        "plans refused as outdated": cluster.outdated,
        "plans lost with a leader that was cut off": cluster.lost,
        "managers filled from a snapshot": cluster.filled,
    }
    return Part((now_ms - START_MS) / 1000 / DAY_S, cluster.faults, figures, settled, wrong)
