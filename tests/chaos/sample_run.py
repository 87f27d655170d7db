"""A run that never was, as real as the report needs it: clients, strikes, changes of leader, gaps, and a few mistakes."""

from __future__ import annotations

import random
from pathlib import Path

from chaos.checkers.models import CANCEL, DELETE, READ, RESUME, SUBMIT, SUSPEND, Accepted, Done, Refused, Seen
from chaos.record import Phase, Record, Sight, Struck
from chaos.report.build import build
from chaos.report.document import ClusterPart, Document, DrillPart, Head, Verdict

NEMESES = [
    ("kill-manager", "process", 4),
    ("freeze-leader", "process", 6),
    ("freeze-manager", "process", 5),
    ("kill-all-managers", "process", 5),
    ("halves", "network", 9),
    ("one-way-cut", "network", 8),
    ("flapping-link", "network", 12),
    ("slow-links", "network", 10),
    ("lossy-links", "network", 9),
    ("full-disk", "disk", 8),
    ("power-cut", "disk", 5),
    ("flipped-bit", "disk", 4),
    ("slow-syncs", "disk", 9),
    ("clock-jump", "clock", 8),
    ("drifting-clock", "clock", 14),
    ("agent-cut-off", "agent", 10),
    ("node-reboot", "agent", 4),
    ("agent-restart", "agent", 3),
    ("submission-storm", "load", 7),
    ("huge-bodies", "load", 5),
    ("rolling-restart", "operator", 15),
    ("new-manager", "operator", 11),
]
MANAGERS, AGENTS = ["m1", "m2", "m3"], ["n1", "n2"]
KINDS = [READ] * 10 + [CANCEL, SUSPEND, RESUME, DELETE]


def head(**changes: object) -> Head:
    told: dict[str, object] = {
        "kind": "run",
        "seed": 20417,
        "command": "hasched chaos run --minutes 5 --managers 3 --agents 2 --seed 20417",
        "began_ms": 1_767_355_200_000,
        "seconds": 330.0,
        "host": "host-1",
        "versions": {
            "hasched": "0.1.0",
            "Python": "3.11.2",
            "pysyncobj": "0.3.17",
            "kernel": "Linux 6.1.0",
            "machine": "x86_64, 2 cores, 8.0 GiB of memory",
        },
        "cluster": ClusterPart(name="chaos-20417", kind="own", managers=MANAGERS, agents=AGENTS),
        "left_out": [
            "lossy-links: links of any kind can't be had here: this kernel has no sch_netem; load it with `modprobe sch_netem`"
        ],
    }
    return Head(**{**told, **changes})  # type: ignore[arg-type]


def record(*, seed: int = 1, seconds: int = 300, strikes: int = 150, calls_a_second: float = 40) -> Record:
    """`seconds` of faults, with calm before and after."""
    chance = random.Random(seed)
    run = Record()
    run.began_ms = 1_767_355_200_000
    end = seconds + 30.0
    run.phases = [
        Phase(name="set-up", from_s=0, until_s=6),
        Phase(name="faults", from_s=6, until_s=end - 24),
        Phase(name="healing", from_s=end - 24, until_s=end - 16),
        Phase(name="draining", from_s=end - 16, until_s=end - 4),
        Phase(name="verdict", from_s=end - 4, until_s=end),
    ]
    run.strikes = _strikes(chance, strikes, seconds)
    outages = _lead(chance, run, end)
    _call(chance, run, seconds, calls_a_second, outages)
    run.note("the client submitter-2 ended by TimeoutError: nobody answered")
    run.event_gaps = ["between events 1812.0 and 1840.3 some may be missing: m1 had compacted them"]
    return run


def _strikes(chance: random.Random, count: int, seconds: int) -> list[Struck]:
    found = []
    for number, at_s in enumerate(sorted(chance.uniform(7, seconds) for _ in range(count)), 1):
        name, family, length = chance.choice(NEMESES)
        outcome = chance.choices(["done", "skipped", "failed"], [90, 9, 1])[0]
        targets = [chance.choice(AGENTS if family == "agent" else MANAGERS)] if family != "load" else []
        until_s = at_s + (0.1 if outcome == "skipped" else chance.uniform(0.4, 1.4) * length)
        notes = {"skipped": ["not all managers are whole"], "failed": ["nft: Operation not supported\nexit status 1"]}
        found.append(
            Struck(
                number=number,
                nemesis=name,
                family=family,
                at_s=at_s,
                until_s=until_s,
                targets=targets if outcome != "skipped" else [],
                outcome=outcome,
                notes=notes.get(outcome, [f"{targets[0]} was hit"] if targets else []),
            )
        )
    return found


def _lead(chance: random.Random, run: Record, end: float) -> list[tuple[float, float]]:
    """Sights of all managers; gives the times without a leader."""
    at, term, outages = 1.0, 2, []
    leader = "m2"
    while at < end:
        until = at + chance.uniform(6, 40)
        now = at
        while now < min(until, end):
            for name in MANAGERS:
                run.sights.append(
                    Sight(at_s=now, manager=name, role="leader" if name == leader else "follower", term=term)
                )
            now += 0.5
        pause = chance.choice([0.4, 0.9, 2.2, 5.4])
        outages.append((until, until + pause))
        run.sights += [Sight(at_s=until, manager=name, role="silent") for name in MANAGERS]
        at, term, leader = until + pause, term + chance.choice([1, 1, 2]), chance.choice(MANAGERS)
    return outages


def _call(chance: random.Random, run: Record, seconds: int, rate: float, outages: list[tuple[float, float]]) -> None:
    now, number, jobs = 2.0, 0, []
    while now < seconds + 8:
        now += chance.expovariate(rate)
        wait = chance.lognormvariate(-4.6, 0.7)
        out = next((each for each in outages if each[0] < now < each[1]), None)
        if chance.random() < 0.3 or not jobs:
            number += 1
            key, kind = f"{run.began_ms}-submitter-{chance.randint(1, 4)}-{number}", SUBMIT
        else:
            (key, job), kind = chance.choice(jobs[-60:]), chance.choice(KINDS)
        client = f"reader-{chance.randint(1, 3)}" if kind == READ else "-".join(key.split("-")[1:3])
        call = run.history.begin(client, key, kind, now)
        if out is not None and chance.random() < 0.75:
            if chance.random() < 0.2:
                run.history.unknown(call)
            else:
                run.history.failed(call, now + wait)
            continue
        until = now + wait if out is None else out[1] + wait
        if kind == SUBMIT:
            jobs.append((key, number))
            run.history.returned(call, until, Accepted(number, False))
        elif kind == READ:
            run.history.returned(call, until, Seen(job, False, chance.random() < 0.1, chance.choice(["", "SUCCEEDED"])))
        else:
            run.history.returned(call, until, chance.choice([Done(), Refused("job_ended")]))


def verdicts(run: Record) -> list[Verdict]:
    """Two broken, one undecided, the others held."""
    first, second, third = list(run.history.by_key())[3:6]
    held = {
        "one outcome": ("Every task gets one outcome, once, and it never changes.", "3,421 tasks"),
        "no overlap": (
            "Attempts of a job that says `on_disconnect: stop` never run twice at once.",
            "212 attempts of 180 tasks",
        ),
        "capacity": (
            "What a node's attempts are promised together never exceeds what it has.",
            "3,604 placements on 2 nodes",
        ),
        "terms": ("Terms only grow, and no term has two leaders.", "1,980 sights of 3 managers"),
        "replicas agree": ("All managers have the same state.", "the digests of 3 managers at entry 20,117"),
        "liveness": ("Within 90 s of the last fault the cluster is whole again.", "whole after 2.4 s"),
        "every job ends": ("Every accepted job has ended.", "3,390 jobs"),
    }
    return [
        Verdict(
            name="durability",
            promise="What was acknowledged is there, once; what was refused is not.",
            verdict="broken",
            looked_at="3,390 acknowledged submissions",
            wrong=[f"submission {first} was acknowledged as job 4 and is lost"],
        ),
        Verdict(
            name="linearizability",
            promise="There is one order of all calls in which every answer is right.",
            verdict="broken",
            looked_at="11,676 calls about 3,402 jobs",
            wrong=[
                f"{second} is not linearizable:\n"
                "  3.120000 to 3.141000  submitter-1: submit -> Accepted(job_id=5, duplicate=False)\n"
                "  3.300000 to 3.310000  reader-2: read -> None\n  no order of these explains the last answer, of reader-2"
            ],
        ),
        Verdict(
            name="fences",
            promise="An attempt begins at most once, and only attempts of the record do.",
            verdict="undecided",
            looked_at="3,604 attempts",
            undecided=[f"{third}: 31 calls, no order found and none ruled out in 200000 states"],
        ),
        *(
            Verdict(name=name, promise=promise, verdict="held", looked_at=looked_at)
            for name, (promise, looked_at) in held.items()
        ),
    ]


def logs() -> dict[str, str]:
    lines = "\n".join(
        f"2026-01-02T12:{second // 60:02}:{second % 60:02}Z info became follower term={second}" for second in range(60)
    )
    return dict.fromkeys((*MANAGERS, *AGENTS), lines)


def document() -> Document:
    run = record()
    return build(run, verdicts(run), head(), logs())


def drills() -> list[DrillPart]:
    return [
        DrillPart(
            name="fleet-declared-dead",
            happened="a fresh leader marked 192 live nodes down within a minute, while their jobs ran on",
            expects="no node is lost after a change of leader",
            verdict="passed",
            seconds=14.2,
            evidence=["0.1 s  m2 leads", "3.2 s  m2 was killed", "9.9 s  no node was declared lost (2 healthy)"],
        ),
        DrillPart(
            name="slot-leak",
            happened="an agent died between assigned and running; the slot was held for ever",
            expects="the slot is free after the grace period",
            verdict="failed",
            why="expected: both slots are free; seen: 1 of 2",
            seconds=31.0,
            evidence=["0.4 s  n1 was killed", "30.9 s  n1 is lost"],
            logs={"m1": "line 1\nline 2"},
        ),
        DrillPart(
            name="dst-hour",
            happened="thousands of cron runs in an hour, or none",
            expects="each due time once",
            verdict="left out",
            why="hasched has no schedules yet",
        ),
    ]


if __name__ == "__main__":  # for people: python tests/chaos/sample_run.py FOLDER, and look at the page
    import sys

    from chaos.report import files

    print(files.write(document(), Path(sys.argv[1])))
