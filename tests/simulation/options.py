"""Options: everything about a run that may differ, drawn from its seed.

Swarm style (Groce et al., "Swarm Testing", 2012): a run has not a little of every fault but a choice of them, and not the
usual timeouts but any, so that what only happens far from the ordinary happens in some run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import msgspec

from hasched.manager.settings import LeaderSettings
from hasched.model.spec import Backoff, Condition, Dependency, JobSpec, Preemption, Resources, Retries
from hasched.model.states import BackoffKind, ConditionKind, OnBrokenDependency, OnDisconnect, PlacementPolicy
from hasched.raft.tuning import Tuning
from tests.simulation.network import Weather
from tests.simulation.settings import Settings

FAULTS = {  # by name, how often next to others; see faults.py
    "kill": 6,
    "power_cut": 6,
    "power_cut_all": 2,
    "pause": 4,
    "isolate": 4,
    "isolate_follower": 1,
    "isolate_leader": 2,
    "halves": 3,
    "one_way": 4,
    "chain": 1,
    "star": 1,
    "mesh": 3,
    "flapping": 2,
    "slow_link": 3,
    "reset": 3,
    "sync_error": 2,
    "full_disk": 2,
    "slow_disk": 2,
    "bit_rot": 1,
    "wiped_disk": 1,
    "worst_wipe": 1,
    "figure_8": 1,
    "clock_jump": 2,
    "clock_drift": 1,
    "agent_kill": 3,
    "agent_cut": 3,
    "node_reboot": 2,
    "membership": 2,
    "split_removal": 1,
    "transfer": 2,
    "rolling_restart": 1,
    "memory_flip": 1,
}
CALLS = {"submit": 6, "submit_batch": 2, "submit_again": 2, "change": 3, "read": 5, "read_stale": 1}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Times in seconds. `faults` and `calls` are weights by name."""

    seed: int
    settings: Settings
    clients: int
    duration_s: float
    faults: dict[str, int]
    calm_s: float  # between two faults, on average
    fault_s: float  # a fault lasts about so long
    calls: dict[str, int]
    think_s: float  # between two calls of a client, on average
    batch: int
    crowd: int  # so many of the latest jobs are what clients meet at
    echo: float = 0.0  # how often a message of consensus arrives once more, later, on the same connection
    ask_leader: bool = False  # clients ask whoever leads; else anybody
    steady: bool = False  # nothing that is done to it can depose a leader
    padding: int  # bytes that a spec may carry beyond what it needs
    stop_jobs: float  # how many of the jobs must never run twice at once
    task_s: float
    schedules: bool = False  # are put by somebody, see schedules.py
    workflows: bool = False  # are executed for somebody, see workflows.py
    depend: float = 0.0  # how many of the jobs wait for others
    notices: bool = False  # somebody is told of the ends of jobs, see notices.py
    preempt: float = 0.0  # how often a client has a task make room, besides its calls

    @property
    def election_s(self) -> float:
        return self.settings.tuning.election_max_s

    def draw_spec(self, random: Random, name: str) -> JobSpec:
        spec = self._draw_plain_spec(random, name)
        spec = msgspec.structs.replace(spec, **self._draw_together(Random(f"{self.seed} {name}"), spec.count))
        return msgspec.structs.replace(spec, **self._draw_times(Random(f"{self.seed} {name} times")))

    def draw_dependency(self, random: Random, spec: JobSpec, known: dict[int, JobSpec]) -> JobSpec:
        """The job waits for some of the latest that are known, now and then."""
        if random.random() >= self.depend:
            return spec
        conditions: dict[Condition, None] = {}
        for kind in random.choices(list(ConditionKind), k=random.choice((1, 1, 2))):
            if kind is ConditionKind.SINGLETON:
                spec = msgspec.structs.replace(spec, name="one-by-one")
                conditions[Condition(kind)] = None
            elif known:
                job_id = random.choice(list(known)[-5:])
                delay_ms = random.choice((0, 700)) if kind is ConditionKind.AFTER else 0
                if kind is ConditionKind.AFTERCORR:
                    if known[job_id].gang or conditions:
                        continue
                    spec = msgspec.structs.replace(spec, count=known[job_id].count, gang=False, min_count=0)
                conditions[Condition(kind, job_id, delay_ms)] = None
        any_of = random.random() < 0.3 and not any(each.kind is ConditionKind.AFTERCORR for each in conditions)
        return msgspec.structs.replace(
            spec,
            dependency=Dependency(tuple(conditions), any_of) if conditions else None,
            on_broken_dependency=random.choice(list(OnBrokenDependency)),
        )

    def _draw_times(self, random: Random) -> dict[str, int]:
        """Some may not start at once, some have to end in time, which a few can't."""
        return {
            "not_before_after_ms": random.choice((0, 0, 0, 0, 800)),
            "deadline_after_ms": random.choice((0, 0, 0, 0, 0, 1000 + int(random.randrange(6000) * self.task_s))),
        }

    def _draw_together(self, random: Random, count: int) -> dict[str, Any]:
        """Some start together, some are warned before they make room. Of chances of its own: old seeds draw what they drew."""
        fields: dict[str, Any] = {"preemption": Preemption(warning_ms=random.choice((0, 0, 700)))}
        match random.randrange(6):
            case 0:
                fields |= {"gang": True, "max_running": 0, "count": min(count, 4)}
            case 1:
                fields |= {
                    "gang": True,
                    "max_running": 0,
                    "count": min(count, 5),
                    "min_count": (min(count, 5) + 1) // 2,
                }
            case 2:
                fields |= {"max_running": 0, "min_count": min(count, 2)}
        return fields

    def _draw_plain_spec(self, random: Random, name: str) -> JobSpec:
        return JobSpec(
            name=name,
            command=("task",),
            env=self._draw_task(random)
            | ({"PADDING": "x" * random.randrange(self.padding)} if random.random() < 0.3 else {}),
            count=random.choice((1, 1, 1, 1, 2, 5, 12)),
            max_running=random.choice((0, 0, 0, 2)),
            resources=Resources(cpu_milli=random.choice((250, 1000, 2000))),
            timeout_ms=random.choice((0, 0, 0, max(100, int(1000 * self.task_s)))),
            kill_grace_ms=random.choice((200, 1000)),
            retries=Retries(
                max=random.choice((0, 0, 2)),
                backoff=Backoff(
                    kind=random.choice(list(BackoffKind)), initial_ms=random.choice((100, 1500)), max_ms=4000
                ),
            ),
            on_disconnect=OnDisconnect.STOP if random.random() < self.stop_jobs else OnDisconnect.RUN_ON,
            priority=random.choice((0, 0, 5)),
        )

    def _draw_task(self, random: Random) -> dict[str, str]:
        """What the simulated kernel makes of it, see tasks.py."""
        task = {"RUN_MS": str(random.randrange(int(2000 * self.task_s))), "EXIT": random.choice("000001"), "SAVES": "1"}
        return task | ({"STUBBORN": "1"} if random.random() < 0.1 else {})


def draw(seed: int, profile: str = "any") -> Options:
    random = Random(f"options {seed}")
    election_s = random.choice((0.8, 1.6, 3.2))
    options = Options(
        seed=seed,
        settings=Settings(
            managers=random.choice((3, 3, 3, 5)),
            agents=random.choice((0, 1, 2, 3)),
            tuning=_draw_tuning(random, election_s),
            leading=_draw_leading(random),
            weather=_draw_weather(random, election_s),
            disk_s=((0.9, 0.002), (0.09, random.choice((0.005, 0.05))), (0.01, random.choice((0.01, 0.5)))),
            drift=random.choice((0.0, 0.02)),
            skew_ms=random.choice((0, 2000, 60_000)),
        ),
        clients=random.choice((1, 2, 3)),
        duration_s=random.uniform(20, 60) * election_s,
        faults=_some_of(random, FAULTS),
        calm_s=election_s * random.choice((1.0, 3.0, 8.0)),
        fault_s=election_s * random.choice((0.5, 2.0, 5.0)),
        calls=_some_of(random, CALLS) | {"submit": 6, "read": 3},
        think_s=election_s * random.choice((0.5, 3.0, 8.0)),
        batch=random.choice((3, 8)),
        crowd=random.choice((1, 3, 20)),
        padding=random.choice((1, 50, 900)),
        stop_jobs=random.choice((0.0, 0.5, 1.0)),
        task_s=random.choice((0.05, 0.5, 3.0)),
        preempt=Random(f"preempt {seed}").choice((0.0, 0.2, 1.0)),
    )
    return PROFILES[profile](options, random)


def _draw_tuning(random: Random, election_s: float) -> Tuning:
    return Tuning(
        heartbeat_s=election_s / 4,
        election_min_s=election_s,
        election_max_s=2 * election_s,
        orphaned_s=random.choice((0.05, 0.2)),
        max_entry_bytes=random.choice((2000, 20_000)),
        max_entry_commands=random.choice((3, 4096)),
        append_bytes=random.choice((400, 3000, 2**20)),
        inflight_bytes=random.choice((1500, 8000, 8 * 2**20)),
        leader_wait_s=random.choice((1.0, 4.0)),
        proposal_timeout_s=random.choice((4.0, 10.0)),
        segment_bytes=random.choice((1500, 6000, 50_000)),
        snapshot_entries=random.choice((8, 30, 100, 1000)),
        snapshot_bytes=random.choice((3000, 16 * 2**20)),
        snapshot_retry_s=1.0,
        retained_bytes=random.choice((0, 500, 4000)),
        chunk_bytes=random.choice((200, 1000, 256 * 2**10)),
        chunk_window=random.choice((1, 4)),
        apply_slice_s=random.choice((1e-5, 0.01)),
        disk_full_retry_s=0.25,
        check_entries=random.choice((15, 40)),
        check_timeout_s=4 * election_s,
    )


def _draw_weather(random: Random, election_s: float) -> Weather:
    return Weather(
        delay_s=(0.0002, election_s * random.choice((0.005, 0.03, 0.1))),
        spikes=random.choice((0.0, 0.0, 0.01, 0.05)),
        spike_s=election_s * random.choice((0.3, 1.0, 3.0)),
        give_up_s=(election_s, election_s * random.choice((2, 5))),
    )


def _draw_leading(random: Random) -> LeaderSettings:
    grace_ms = random.choice((12_000, 24_000))
    return LeaderSettings(
        heartbeat_ms=grace_ms // 12,
        unhealthy_after_ms=grace_ms // 3,
        node_grace_ms=grace_ms,
        placement=random.choice(list(PlacementPolicy)),
    )


def _some_of(random: Random, weights: dict[str, int]) -> dict[str, int]:
    """A few of them, or all: what is never together with others is seen alone."""
    share = random.choice((0.15, 0.4, 0.7, 1.0))
    chosen = {name: weight for name, weight in weights.items() if random.random() < share}
    if not chosen:
        name = random.choice(list(weights))
        chosen[name] = weights[name]
    return chosen


Bias = Callable[[Options, Random], Options]


def _bias(*faults: str, **changes: object) -> Bias:
    """A choice of faults, and of whatever else: a value, or a function that draws one."""

    def bias(options: Options, random: Random) -> Options:
        drawn = {name: value(options, random) if callable(value) else value for name, value in changes.items()}
        tuning, weather = drawn.pop("tuning", {}), drawn.pop("weather", {})
        settings = replace(
            options.settings,
            tuning=msgspec.structs.replace(options.settings.tuning, **tuning),
            weather=replace(options.settings.weather, **weather),
            **drawn.pop("settings", {}),
        )
        return replace(options, settings=settings, faults={name: FAULTS[name] for name in faults}, **drawn)

    return bias


def _often(options: Options, random: Random) -> float:
    return options.election_s * random.choice((0.5, 1.0, 2.0))


def _busy(options: Options, random: Random) -> float:
    return options.election_s * random.choice((0.1, 0.3))


def _late(options: Options, random: Random) -> dict[str, object]:
    """Messages that take longer than a heartbeat, though not as long as an election timeout."""
    election_s = options.settings.tuning.election_min_s
    return {"spikes": random.choice((0.0, 0.05)), "spike_s": election_s, "delay_s": (0.0002, 0.25 * election_s)}


_STOCK_FAULTS = (
    *("kill", "isolate", "halves", "one_way", "mesh"),
    *("flapping", "slow_link", "reset", "pause"),
)
_SLOW_DISK = ((0.5, 0.01), (0.4, 0.2), (0.1, 1.0))
_FEW_ENTRIES = {"snapshot_entries": 8, "snapshot_bytes": 3000, "retained_bytes": 0, "segment_bytes": 1500}
_CLEAR = {"spikes": 0.0, "delay_s": (0.0002, 0.01)}


def _with_workflows(options: Options, _random: Random) -> Options:
    """Some have them, by a chance of its own: old seeds draw what they drew."""
    return replace(options, workflows=Random(f"some workflows {options.seed}").random() < 0.06)


PROFILES: dict[str, Bias] = {  # what runs are biased to, for those who look for one kind of bug
    "any": _with_workflows,
    "calm": _bias(),
    "power": _bias(
        "power_cut",
        "power_cut_all",
        "kill",
        calm_s=_often,
        think_s=_busy,
        weather=_CLEAR,
        settings={"disk_s": _SLOW_DISK},
    ),
    "sync-errors": _bias("sync_error", "power_cut", calm_s=_often, think_s=_busy),
    "snapshots": _bias("power_cut", "kill", "isolate", calm_s=_often, think_s=_busy, tuning=_FEW_ENTRIES),
    "wipes": _bias("wiped_disk", "worst_wipe", calm_s=lambda options, _: 4 * options.election_s, think_s=_busy),
    "elections": _bias("isolate", "halves", "one_way", "mesh", "kill", calm_s=_often, think_s=_busy),
    "figure-8": _bias(
        "figure_8",
        clients=3,
        ask_leader=True,
        calm_s=_often,
        think_s=lambda options, _: 0.1 * options.election_s,
        calls={"submit": 1},
        weather={"spikes": 0.0, "delay_s": (0.01, 0.05)},
        settings={"managers": 5, "agents": 0},
        tuning={"append_bytes": 1, "inflight_bytes": 1, "max_entry_commands": 3},
    ),
    "echo": _bias("isolate", "one_way", "slow_link", "transfer", "pause", calm_s=_often, think_s=_busy, echo=0.2),
    "echo-snapshots": _bias(
        "isolate",
        "mesh",
        "kill",
        calm_s=_often,
        think_s=_busy,
        echo=0.5,
        tuning={**_FEW_ENTRIES, "chunk_bytes": 2**18},
    ),
    "membership": _bias("membership", "kill", "isolate", "transfer", calm_s=_often, think_s=_busy),
    "members-split": _bias(
        "membership",
        "split_removal",
        calm_s=_often,
        think_s=_busy,
        weather=_CLEAR,
        settings={"managers": 5, "agents": 0},
    ),
    "members-steady": _bias("membership", calm_s=_often, steady=True, weather=_CLEAR),
    # What the library can be given too: no agents, the members that it began with.
    "stock": _bias(*_STOCK_FAULTS, calm_s=_often, think_s=_busy, weather=_late, settings={"agents": 0}),
    "stock-power": _bias(
        *_STOCK_FAULTS, "power_cut", "power_cut_all", calm_s=_often, think_s=_busy, settings={"agents": 0}
    ),
    "flips": _bias("memory_flip", "kill", "isolate", think_s=_busy),
    "agents": _bias(
        "agent_kill",
        "agent_cut",
        "node_reboot",
        "kill",
        "isolate",
        settings={"agents": 3},
        stop_jobs=0.5,
        think_s=_busy,
    ),
    "schedules": _bias(
        *("kill", "power_cut_all", "isolate_leader", "pause", "transfer", "one_way", "clock_jump"),
        calm_s=_often,
        weather=_late,
        settings={"agents": 2},
        schedules=True,
    ),
    "dependencies": _bias(
        *("kill", "power_cut_all", "isolate_leader", "pause", "transfer", "agent_kill", "node_reboot", "clock_jump"),
        calm_s=_often,
        think_s=lambda options, _: options.election_s,
        weather=_CLEAR,
        settings={"agents": 2},
        tuning=_FEW_ENTRIES,
        depend=0.7,
        task_s=0.05,
    ),
    "workflows": _bias(
        *("kill", "power_cut_all", "isolate_leader", "pause", "transfer", "agent_kill", "agent_cut", "node_reboot"),
        calm_s=_often,
        weather=_late,
        settings={"agents": 2},
        tuning={**_FEW_ENTRIES, "max_entry_bytes": 50_000},
        workflows=True,
    ),
    "notices": _bias(
        *("kill", "power_cut_all", "isolate_leader", "pause", "transfer", "one_way"),
        calm_s=_often,
        think_s=_busy,
        settings={"agents": 2},
        tuning=_FEW_ENTRIES,
        notices=True,
    ),
    # A leader that nothing is wrong with goes on to lead, whatever becomes of others.
    "followers-cut": _bias("isolate_follower", calm_s=_often, steady=True, weather=_CLEAR),
    "leaders-cut": _bias(
        "isolate_leader",
        calm_s=_often,
        think_s=_busy,
        crowd=3,
        calls={"submit": 2, "read": 4, "change": 2},
        weather=_CLEAR,
    ),
    "narrow-links": _bias(
        steady=True,
        think_s=lambda options, _: 4 * options.election_s,
        batch=100,
        padding=900,
        ask_leader=True,
        calls={"submit_batch": 1},
        weather=lambda options, _: {**_CLEAR, "bytes_per_s": 20_000 / options.election_s},
        tuning={"max_entry_bytes": 2000, "append_bytes": 1000, "inflight_bytes": 4000},
    ),
}
