"""A scene: a cluster of managers alone, whom a test asks directly, and what they answered.

Times are short here, as the tests' own steps are. What is checked all the while: that all managers apply the same, that a
disk which may have been wiped leads nobody, and has what was committed before it gets a vote, on the disk and not only
in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from typing import Any

from hasched.model.errors import HaschedError, NoLeader, OutcomeUnknown, Overloaded
from hasched.model.spec import JobSpec
from hasched.raft.engine import Engine
from hasched.raft.replica import Applied
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import SubmitJob
from hasched.statemachine.digest import digest
from hasched.statemachine.outcomes import JobAccepted
from tests.simulation.manager import SimulatedManager
from tests.simulation.network import Weather
from tests.simulation.settings import Settings
from tests.simulation.world import World

TUNING = Tuning(
    heartbeat_s=0.05,
    election_min_s=0.2,
    election_max_s=0.4,
    orphaned_s=0.05,
    max_entry_bytes=2000,
    append_bytes=600,
    inflight_bytes=4000,
    segment_bytes=6000,
    snapshot_entries=40,
    retained_bytes=2000,
    chunk_bytes=700,
    chunk_window=2,
    leader_wait_s=1.0,
    proposal_timeout_s=4.0,
    apply_slice_s=10.0,
    snapshot_retry_s=0.5,
)


class Scene:
    """Asks managers in their own processes, and keeps account."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.stream("scene")
        self.acknowledged: dict[str, int] = {}
        self.refused: dict[str, None] = {}
        self.unknown: dict[str, None] = {}
        self.reads_done = 0
        self.submitted = 0
        self._did: dict[int, str] = {}
        self._committed_before: dict[str, int] = {}  # by manager, when its life began
        self._promised: dict[str, int] = {}  # by manager, what its disk held when it got its vote
        self.dies_when_it_gets_a_vote = 0.0  # how probably, at its next sync
        world.on_applied.append(self._applied)
        world.on_start.append(self._started)

    @property
    def managers(self) -> list[SimulatedManager]:
        return list(self.world.managers.values())

    # --- what is asked ---

    def submit(self, manager: SimulatedManager, size: int = 0, count: int = 1) -> None:
        if manager.running:
            commands = [self._new_submission(size) for _ in range(count)]
            manager.run(lambda asked: self._submit(asked, commands))

    def _new_submission(self, size: int) -> SubmitJob:
        self.submitted += 1
        number = self.submitted
        return SubmitJob(
            submission_id=f"submission-{number}",
            actor="test",
            spec=JobSpec(name=f"job-{number}", command=("true",), input=b"x" * size),
        )

    async def _submit(self, manager: SimulatedManager, commands: list[SubmitJob]) -> None:
        loop, ids = manager.loop, [command.submission_id for command in commands]
        try:
            outcomes = await manager.replica.propose_many(commands)
        except OutcomeUnknown:
            self.unknown.update(dict.fromkeys(ids))
        except (NoLeader, Overloaded):
            self.refused.update(dict.fromkeys(ids))
        else:
            for submission, outcome in zip(ids, outcomes, strict=True):
                assert isinstance(outcome, JobAccepted) and not outcome.duplicate, "each id is submitted once"
                if not loop.dead:
                    self.acknowledged[submission] = outcome.job_id

    def read(self, manager: SimulatedManager) -> None:
        if manager.running:
            manager.run(self._read)

    async def _read(self, manager: SimulatedManager) -> None:
        """Whatever was acknowledged before the read began must be there when it is answered."""
        before = list(self.acknowledged.values())
        try:
            await manager.replica.read_barrier()
        except HaschedError:
            return
        self.reads_done += 1
        missing = [job_id for job_id in before if job_id not in manager.replica.state.jobs]
        if missing:
            self.world.complain(manager.name, f"a read misses jobs {missing[:3]}")

    # --- what happens ---

    def run(self, seconds: float, until: Any = None) -> bool:
        return self.world.run(seconds, until)

    def settled(self) -> bool:
        return self.world.leader() is not None and self.world.agree()

    def isolate(self, manager: SimulatedManager) -> None:
        for source, target in permutations(self.world.managers, 2):
            if manager.name in (source, target):
                self.world.network.cut(source, target)

    def later(self, delay: float, action: Any, *args: Any) -> None:
        self.world.after(delay, action, *args)

    # --- what must hold all the while ---

    def _started(self, manager: SimulatedManager) -> None:
        promised, last_index = self._promised.get(manager.name, 0), manager.replica.status.last_index
        if last_index < promised:
            self.world.complain(manager.name, f"got its vote before its journal was synced: {last_index} of {promised}")
        self._committed_before[manager.name] = max(self._did, default=0)

    def wipe(self, manager: SimulatedManager) -> None:
        manager.wipe()
        self._promised[manager.name] = 0

    def joined(self, engine: Engine) -> None:
        name = engine.selfNode.id
        before = self._committed_before.get(name, 0)
        if engine.last_index < before:
            self.world.complain(name, f"gets a vote, and lacks what is committed: {engine.last_index} of {before}")
        self._promised[name] = before
        if before and self.random.random() < self.dies_when_it_gets_a_vote:
            self.world.managers[name].cut_power_at(1)
            self.later(self.random.uniform(0.01, 0.3), self.world.managers[name].start)

    def _applied(self, manager: SimulatedManager, applied: Applied) -> None:
        if applied.outcomes:
            did = repr(applied.outcomes)
            if self._did.setdefault(applied.index, did) != did:
                self.world.complain(manager.name, f"applies another entry at {applied.index}")

    # --- verdict ---

    def settle(self) -> None:
        """Heal everything; all managers must come to agree, and everything acknowledged must be there, once."""
        self.world.heal()
        self.run(30, self.settled)
        assert self.settled(), f"the managers don't come to agree: {[m.replica.status for m in self.managers]}"
        jobs = {job.submission_id: job.id for job in self.managers[0].replica.state.jobs.values()}
        lost = [submission for submission, job_id in self.acknowledged.items() if jobs.get(submission) != job_id]
        assert not lost, f"acknowledged, but lost: {lost[:5]}"
        undead = [submission for submission in self.refused if submission in jobs]
        assert not undead, f"refused, but done: {undead[:5]}"
        assert len({digest(manager.replica.state) for manager in self.managers}) == 1


@contextmanager
def scene(seed: int, *, managers: int = 3, longest_s: float = 0.005) -> Iterator[Scene]:
    """`managers` without agents, on links that take up to `longest_s`."""
    weather = Weather(delay_s=(0.0001, longest_s), spikes=0.0, give_up_s=(0.1, 0.6))
    settings = Settings(
        managers=managers,
        agents=0,
        tuning=TUNING,
        weather=weather,
        disk_s=((0.5, 0.0002), (0.25, 0.001), (0.25, 0.02)),
        drift=0.0,
        skew_ms=0,
    )
    with World(seed, settings) as world:
        played = Scene(world)
        with _watched(played):
            world.start()
            yield played


@contextmanager
def _watched(played: Scene) -> Iterator[None]:
    """Tell the scene of every vote that is got, and of every leader."""
    join, become_leader = Engine.join, Engine._SyncObj__onBecomeLeader

    def joined(engine: Engine) -> None:
        played.joined(engine)
        join(engine)

    def became_leader(engine: Engine) -> None:
        if not engine.voter:
            played.world.complain(engine.selfNode.id, "has no vote, and leads")
        become_leader(engine)

    Engine.join, Engine._SyncObj__onBecomeLeader = joined, became_leader  # type: ignore[method-assign]
    try:
        yield
    finally:
        Engine.join, Engine._SyncObj__onBecomeLeader = join, become_leader  # type: ignore[method-assign]
