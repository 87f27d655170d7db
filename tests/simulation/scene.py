"""A scene: a cluster of managers alone, whom a test asks directly, and what they answered.

Times are short here, as the tests' own steps are. What is checked all the while: that all managers apply the same, that a
disk which may have been wiped leads nobody, and has what was committed before it gets a vote, on the disk and not only
in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import permutations
from typing import Any

import pytest

from hasched.model.errors import HaschedError, NoLeader, OutcomeUnknown, Overloaded, TransferFailed
from hasched.model.spec import JobSpec
from hasched.raft.divergence import Verdict
from hasched.raft.engine import Engine
from hasched.raft.replica import Applied
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import AddManager, Command, RemoveManager, SubmitJob
from hasched.statemachine.digest import digest
from hasched.statemachine.outcomes import JobAccepted
from tests.simulation.manager import SimulatedManager, member
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
    check_entries=25,
    check_timeout_s=1.0,
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
        self.transferred = 0
        self.wanted: tuple[str, ...] = ()
        self.memberships: dict[int, None] = {}  # by index, those that were in force on a leader
        self._wish = 0
        self._leaders: dict[int, str] = {}  # by term
        self.verdicts: dict[int, Verdict] = {}  # by index, of the comparisons of the managers' states
        self._did: dict[int, str] = {}
        self._committed_before: dict[str, int] = {}  # by manager, when its life began
        self._promised: dict[str, int] = {}  # by manager, what its disk held when it got its vote
        self.dies_when_it_gets_a_vote = 0.0  # how probably, at its next sync
        world.on_applied.append(self._applied)
        world.on_start.append(self._started)

    @property
    def names(self) -> list[str]:
        return list(self.world.managers)

    @property
    def nodes(self) -> dict[str, SimulatedManager]:
        return self.world.managers

    @property
    def now(self) -> float:
        return self.world.now

    @property
    def installed(self) -> int:
        """Snapshots that managers took from others."""
        return self.world.logged["snapshot_installed"]

    # --- what is asked ---

    def submit(self, name: str, size: int = 0, count: int = 1) -> None:
        if self.nodes[name].running:
            commands = [self._new_submission(size) for _ in range(count)]
            self.nodes[name].run(lambda asked: self._submit(asked, commands))

    def _new_submission(self, size: int) -> SubmitJob:
        number, self.submitted = self.submitted, self.submitted + 1
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

    def read(self, name: str) -> None:
        if self.nodes[name].running:
            self.nodes[name].run(self._read)

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

    def transfer(self, name: str, target: str | None) -> None:
        if self.nodes[name].running:
            self.nodes[name].run(lambda asked: self._transfer(asked, target))

    async def _transfer(self, manager: SimulatedManager, target: str | None) -> None:
        try:
            successor = await manager.replica.transfer(target)
        except (TransferFailed, NoLeader):
            return
        if target not in (None, successor):
            self.world.complain(manager.name, f"{target} was to lead, and {successor} does")
        self.transferred += 1

    def want(self, *names: str) -> None:
        """These are to be the managers. Whoever wants it asks again until it is so, one manager after another."""
        self.wanted = names
        self._wish += 1
        self._pursue(self._wish)

    def _pursue(self, wish: int) -> None:
        leader = self.leader()
        if wish != self._wish:
            return
        there = leader.replica.state.managers if leader is not None else {}
        commands: list[Command] = [
            AddManager(name, "test", member(name).api_url, member(name).raft_address)
            for name in self.wanted
            if name not in there
        ]
        commands += [RemoveManager(name, "test") for name in there if name not in self.wanted]
        asked = self.nodes[self.random.choice(self.names)]
        if there and commands and asked.running:
            asked.run(lambda manager: self._change_managers(manager, commands[0]))
        self.after(0.2, self._pursue, wish)

    async def _change_managers(self, manager: SimulatedManager, command: Command) -> None:
        with suppress(HaschedError):
            await manager.replica.propose(command)

    def voters(self) -> list[str]:
        """By the membership that is committed; nobody while nobody leads."""
        leader = self.leader()
        return [] if leader is None else leader.core.engine.committed_membership.voters

    # --- what happens ---

    def run(self, seconds: float, until: Callable[[], object] | None = None) -> bool:
        return self.world.run(seconds, until)

    def after(self, delay: float, action: Callable[..., object], *args: Any) -> None:
        self.world.after(delay, action, *args)

    def leader(self) -> SimulatedManager | None:
        return self.world.leader()

    def agree(self) -> bool:
        return (not self.wanted or self.voters() == sorted(self.wanted)) and self.world.agree()

    def partition(self, *pairs: tuple[str, str]) -> None:
        """One-way cuts."""
        for source, target in pairs:
            self.world.network.cut(source, target)

    def isolate(self, name: str) -> None:
        self.partition(*[pair for pair in permutations(self.names, 2) if name in pair])

    def heal(self) -> None:
        """The cuts; whoever is down stays down."""
        self.world.network.heal_all()

    def wipe(self, manager: SimulatedManager) -> None:
        manager.wipe()
        self._promised[manager.name] = 0

    # --- what must hold all the while ---

    def _started(self, manager: SimulatedManager) -> None:
        if manager.replica._directory.identity.rebuilding:
            self._promised[manager.name] = 0  # its journal was set aside
        promised, last_index = self._promised.get(manager.name, 0), manager.core.engine.last_index
        if last_index < promised:
            self.world.complain(manager.name, f"got its vote before its journal was synced: {last_index} of {promised}")
        self._committed_before[manager.name] = max(self._did, default=0)

    def leads(self, engine: Engine) -> None:
        name = engine.selfNode.id
        if not engine.eligible:
            self.world.complain(name, "has no vote, and leads")
        if self._leaders.setdefault(engine.term, name) != name:
            self.world.complain(name, f"leads in term {engine.term}, and so does {self._leaders[engine.term]}")

    def joined(self, engine: Engine) -> None:
        name = engine.selfNode.id
        before = self._committed_before.get(name, 0)
        if engine.last_index < before:
            self.world.complain(name, f"gets a vote, and lacks what is committed: {engine.last_index} of {before}")
        self._promised[name] = before
        if before and self.random.random() < self.dies_when_it_gets_a_vote:
            self.nodes[name].cut_power_at(1, self.random.uniform(0.01, 0.3))

    def _applied(self, manager: SimulatedManager, applied: Applied) -> None:
        if manager.core.engine.is_leader:
            self.memberships[manager.core.engine.membership.index] = None
        verdict = manager.replica.status.verdict
        if verdict is not None:
            self.verdicts[verdict.index] = verdict
        if applied.outcomes:
            did = repr(applied.outcomes)
            if self._did.setdefault(applied.index, did) != did:
                self.world.complain(manager.name, f"applies another entry at {applied.index}")

    # --- verdict ---

    def settle(self) -> None:
        """Heal everything; all managers must come to agree, and everything acknowledged must be there, once."""
        self.world.heal()
        self.run(30, self.agree)
        managers = self.world.voters()
        assert self.agree(), f"the managers don't come to agree: {[manager.replica.status for manager in managers]}"
        jobs = {job.submission_id: job.id for job in managers[0].replica.state.jobs.values()}
        lost = [submission for submission, job_id in self.acknowledged.items() if jobs.get(submission) != job_id]
        assert not lost, f"acknowledged, but lost: {lost[:5]}"
        undead = [submission for submission in self.refused if submission in jobs]
        assert not undead, f"refused, but done: {undead[:5]}"
        assert len({digest(manager.replica.state) for manager in managers}) == 1


@contextmanager
def scene(
    seed: int = 1,
    *,
    size: int = 3,
    spare: int = 0,
    max_delay: float = 0.005,
    tuning: Tuning = TUNING,
    give_up_s: tuple[float, float] = (0.1, 0.6),
    disk_s: tuple[tuple[float, float], ...] = ((0.5, 0.0002), (0.25, 0.001), (0.25, 0.02)),
) -> Iterator[Scene]:
    """`size` managers and `spare` that may be added, without agents, on links that take up to `max_delay`.

    For `give_up_s` see `Weather`.
    """
    settings = Settings(
        managers=size,
        spares=spare,
        agents=0,
        tuning=tuning,
        weather=Weather(delay_s=(0.0001, max_delay), spikes=0.0, give_up_s=give_up_s),
        disk_s=disk_s,
        drift=0.0,
        skew_ms=0,
    )
    with World(seed, settings) as world:
        played = Scene(world)
        with _watched(played):
            world.start()
            yield played


@pytest.fixture
def simulate() -> Iterator[Callable[..., Scene]]:
    """Make a scene; it lasts as long as the test."""
    with ExitStack() as stack:
        yield lambda seed=1, **options: stack.enter_context(scene(seed, **options))


@contextmanager
def _watched(played: Scene) -> Iterator[None]:
    """Tell the scene of every vote that is got, and of every leader."""
    join, become_leader = Engine.join, Engine._SyncObj__onBecomeLeader

    def joined(engine: Engine) -> None:
        played.joined(engine)
        join(engine)

    def became_leader(engine: Engine) -> None:
        played.leads(engine)
        become_leader(engine)

    Engine.join, Engine._SyncObj__onBecomeLeader = joined, became_leader  # type: ignore[method-assign]
    try:
        yield
    finally:
        Engine.join, Engine._SyncObj__onBecomeLeader = join, become_leader  # type: ignore[method-assign]
