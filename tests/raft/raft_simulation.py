"""Several cores in one thread, on a virtual clock: the real engine, journal and snapshot store; a fake network.

Everything that is random comes from one seed. A node that crashes loses what its journal had not flushed, which is what
a power cut loses. Links keep their order and break as TCP does: what is under way is lost, and both ends hear of it.
"""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest
from pysyncobj import syncobj
from raft_bench import members
from raft_cluster import submit

from hasched.model.errors import HaschedError, NoLeader, OutcomeUnknown, Overloaded, TransferFailed
from hasched.raft.admission import Admission
from hasched.raft.core import Core
from hasched.raft.divergence import Check, StateDiverged
from hasched.raft.identity import DataDirectory
from hasched.raft.journal import Journal
from hasched.raft.proposals import Proposal
from hasched.raft.replica import Applied
from hasched.raft.snapshots import SnapshotStore
from hasched.raft.tuning import Tuning
from hasched.statemachine.commands import AddManager, Command, RemoveManager, encode_command
from hasched.statemachine.digest import digest
from hasched.statemachine.snapshot import capture, restore
from hasched.statemachine.state import State

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
    check_entries=25,
    check_timeout_s=1.0,
    apply_slice_s=10.0,
)


class SimulatedNode:
    """One manager: its core while it is up, and its disk."""

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.simulation = simulation
        self.name = name
        self.life = 0
        self.up = False
        self.busy = False
        self.paused_until = 0.0
        self.dies_at_sync = False
        self.wiped = True
        self.promised = 0
        self.flipped = False  # a bit of its state is not what it should be
        self.fenced = 0
        self.wall_ahead_ms = 0
        self.inbox: list[Callable[[], None]] = []
        self.turn_wanted = False

    def start(self) -> None:
        sim = self.simulation
        path = sim.root / self.name
        self.directory = DataDirectory(path, "sim", self.name, alone=sim.founders == [self.name])
        self.journal = Journal(path / "journal", sim.tuning.segment_bytes)
        self.store = SnapshotStore(path / "snapshots", "sim")
        state = restore(self.store.chunks(self.store.latest.path)) if self.store.latest else State()
        self.core = Core(
            self.name,
            members(*sim.founders, learners=() if self.name in sim.founders else (self.name,)),
            journal=self.journal,
            snapshots=self.store,
            state=state,
            tuning=sim.tuning,
            random=sim.random,
            wall_ms=lambda: int(sim.now * 1000) + self.wall_ahead_ms,
            voter=self.directory.identity.voter,
            may_found=self.name in sim.founders and not self.directory.identity.rebuilding,
            on_join=self.join,
            on_fence=self.fence,
            on_applied=self.note_applied,
            on_role=lambda leading: None,
        )
        self.admission = Admission(
            self.core.engine,
            me=members(self.name).members[0],
            cluster_id="sim",
            named={},
            rebuilding=self.directory.identity.rebuilding,
            incarnation=self.directory.identity.incarnation,
            adopt=self.directory.adopt_incarnation,
        )
        assert self.core.engine.last_index >= self.promised, f"{self.name} got its vote before its journal was synced"
        self.committed_before = max(sim.history, default=0)
        self.life += 1
        self.up, self.wiped, self.busy, self.inbox = True, False, False, []
        self.linked: list[str] = []
        self.update_links()
        self.want_turn(0)
        sim.expect(self.name)

    def join(self) -> None:
        """What its earlier lives helped to commit must be in its log before it votes again."""
        assert self.core.engine.last_index >= self.committed_before, (
            f"{self.name} gets a vote, and lacks what is committed"
        )
        self.directory.become_voter()
        self.promised = self.committed_before
        self.dies_at_sync = self.promised > 0 and self.simulation.random.random() < 0.3

    def update_links(self) -> None:
        links = self.admission.links()
        if links is None:
            return
        gone, self.linked = [name for name in self.linked if name not in links], list(links)
        for name in gone:
            self.simulation.break_link(self.name, name)
            self.simulation.break_link(name, self.name)
        for name in self.linked:
            self.simulation.dial(self.name, name)

    def crash(self) -> None:
        self.up = False
        self.life += 1
        self.journal.close()
        self.directory.release()
        if self.core.engine.incoming is not None:
            self.core.engine.incoming.abandon()
        for progress in self.core.engine.progress.values():
            progress.stop_snapshot()
        self.core.proposals.abandon("crash")
        self.core.reads.abandon("crash")
        self.core.divergence.abandon("crash")
        self.core.transfers.abandon("crash")
        self.simulation.break_links(self.name)

    def wipe(self) -> None:
        """Its disk dies with it; when it starts again, it has an empty one."""
        if self.up:
            self.crash()
        shutil.rmtree(self.directory.path)
        self.wiped, self.promised = True, 0

    @property
    def has_vote(self) -> bool:
        return not self.wiped and self.directory.identity.voter

    def start_again(self) -> None:
        if not self.up:
            self.start()

    def note_applied(self, applied: Applied) -> None:
        if applied.outcomes:
            seen = self.simulation.history.setdefault(applied.index, repr(applied.outcomes))
            assert seen == repr(applied.outcomes), f"{self.name} applies another entry at {applied.index}"

    def deliver(self, action: Callable[[], None]) -> None:
        self.inbox.append(action)
        self.want_turn(0.0002)

    def want_turn(self, delay: float) -> None:
        self.simulation.after(delay, partial(self.turn, self.life))

    def turn(self, life: int) -> None:
        sim = self.simulation
        if life != self.life or not self.up:
            return
        if sim.now < self.paused_until:
            self.want_turn(self.paused_until - sim.now)
            return
        if self.busy:
            self.turn_wanted = True
            return
        self.turn_wanted = False
        inbox, self.inbox = self.inbox, []
        try:
            for action in inbox:
                action()
            voter, term = self.core.engine.voter, self.core.engine.term
            self.core.turn()
        except StateDiverged:
            self.crash()
            sim.after(sim.random.uniform(0.01, 1), self.start_again)
            return
        sim.note_leader(self)
        assert voter or self.core.engine.term == term, f"{self.name} has no vote and begins a term"
        self.busy = True
        delay = sim.random.choice((0.0002, 0.0002, 0.001, 0.02)) if self.journal.dirty else 0.0
        sim.after(delay, partial(self.finish_turn, life))

    def finish_turn(self, life: int) -> None:
        if life != self.life:
            return
        sim = self.simulation
        if self.dies_at_sync and self.journal.dirty:
            self.dies_at_sync = False
            self.crash()
            sim.after(sim.random.uniform(0.01, 0.3), self.start_again)
            return
        self.journal.flush()
        for peer, message in self.core.take_outbox():
            sim.send(self.name, peer, message)
        self.update_links()
        self.busy = False
        self.handle_snapshots()
        self.handle_check()
        if self.turn_wanted or self.core.wants_turn or self.inbox:
            self.want_turn(0.0001)
        self.want_turn(max(0.001, self.core.engine.wake_at - sim.now))

    def handle_snapshots(self) -> None:
        incoming = self.core.engine.incoming
        if incoming is not None and incoming.complete:
            incoming.finish()
            state = restore(self.store.chunks(incoming.path))
            published = self.store.publish(incoming.path)
            if published is None:
                self.deliver(self.core.engine.drop_incoming)
            else:
                self.adopt(published)
                self.simulation.installed += 1
                self.deliver(partial(self.core.install, incoming.index, state))
        elif self.core.snapshot_due:
            index = self.core.engine.applied_index
            membership = self.core.engine.membership_at(index)
            writer = self.store.write(index, self.core.engine.applied_term, membership)
            captured = capture(self.core.state)
            while (chunk := captured.next_chunk()) is not None:
                writer.add(chunk)
            captured.close()
            writer.finish()
            published = self.store.publish(writer.path)
            if published is not None:
                self.adopt(published)
                self.deliver(partial(self.core.compact, index))

    def handle_check(self) -> None:
        """The digest takes a while, and whatever is applied meanwhile must not matter."""
        check = self.core.take_check()
        if check is not None:
            delay = self.simulation.random.choice((0.001, 0.02, 0.5, 2.0))
            self.simulation.after(delay, partial(self.digest, self.life, check))

    def digest(self, life: int, check: Check) -> None:
        while (chunk := check.captured.next_chunk()) is not None:
            check.digester.add(chunk)
        if life == self.life:
            self.simulation.checked += 1
            self.deliver(partial(self.core.digested, check.index, check.digester.finish()))

    def fence(self, index: int) -> None:
        assert self.flipped, f"{self.name} fences itself at entry {index} for no reason"
        self.flipped, self.fenced = False, self.fenced + 1
        self.promised = 0
        self.directory.fence(index)

    def adopt(self, published) -> None:
        older = self.store.adopt(published)
        if older is not None:
            self.store.remove(older)


class Simulation:
    """`size` managers found the cluster; `spare` ones wait to be added."""

    def __init__(
        self,
        root: Path,
        seed: int,
        size: int = 3,
        spare: int = 0,
        max_delay: float = 0.005,
        tuning: Tuning = TUNING,
    ) -> None:
        self.root = root
        self.random = Random(seed)
        self.max_delay = max_delay
        self.tuning = tuning
        self.now = 1.0
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.founders = self.names[:]
        self.names += [f"n{number}" for number in range(size + 1, size + spare + 1)]
        self.wanted: tuple[str, ...] = ()
        self._wish = 0
        self.memberships: dict[int, None] = {}
        self.leaders: dict[int, str] = {}
        self.history: dict[int, str] = {}
        self.installed = 0
        self.checked = 0
        self.cut: dict[tuple[str, str], None] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._links: dict[tuple[str, str], list] = {}  # open connections: [number, time of the last arrival]
        self.acknowledged: dict[str, int] = {}
        self.refused: dict[str, None] = {}
        self.unknown: dict[str, None] = {}
        self.reads_done = 0
        self.transferred = 0
        self.submitted = 0
        self.nodes = {name: SimulatedNode(self, name) for name in self.names}

    # --- time ---

    def after(self, delay: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + delay, self._number, action))

    def read_clock(self) -> float:
        """No two readings are the same."""
        self.now += 1e-6
        return self.now

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            due, _, action = heapq.heappop(self._events)
            self.now = max(self.now, due)
            action()
            if until():
                return
        self.now = max(self.now, end)

    # --- the network ---

    def expect(self, name: str) -> None:
        """`name` is up: whoever has a link to it is dialling."""
        for other in self.names:
            if other != name and self.nodes[other].up:
                self.dial(other, name)

    def dial(self, source: str, target: str) -> None:
        a, b = self.nodes[source], self.nodes[target]
        if (source, target) in self._links or not a.up or target not in a.linked:
            return
        if not b.up or (source, target) in self.cut or (target, source) in self.cut:
            self.after(self.random.uniform(0.05, 0.2), partial(self._redial, source, target, a.life))
            return
        cause = b.admission.judge(a.admission.hello())
        if cause:
            a.admission.refused(target, b.admission.refusal(cause))
        if cause or a.admission.judge(b.admission.hello()):
            self.after(self.random.uniform(0.5, 1.0), partial(self._redial, source, target, a.life))
            return
        b.want_turn(0.0001)
        self._number += 1
        self._links[source, target] = [self._number, self.now]
        a.deliver(partial(a.core.connected, target, b.admission.hello().blank))

    def _redial(self, source: str, target: str, life: int) -> None:
        if self.nodes[source].life == life:
            self.dial(source, target)

    def send(self, source: str, target: str, message: object) -> None:
        link = self._links.get((source, target))
        if link is None:
            return
        link[1] = max(link[1], self.now + self.random.uniform(0.0001, self.max_delay))
        self.after(link[1] - self.now, partial(self._arrive, source, target, link[0], message))

    def _arrive(self, source: str, target: str, number: int, message: object) -> None:
        link, node = self._links.get((source, target)), self.nodes[target]
        if link is not None and link[0] == number and node.up and (source, target) not in self.cut:
            node.deliver(partial(node.core.deliver, source, message))

    def break_link(self, source: str, target: str) -> None:
        if self._links.pop((source, target), None) is None:
            return
        a, b = self.nodes[source], self.nodes[target]
        if a.up:
            a.deliver(partial(a.core.disconnected, target))
            self.after(self.random.uniform(0.02, 0.2), partial(self._redial, source, target, a.life))
        if b.up:
            b.deliver(partial(b.core.lost, source))

    def break_links(self, name: str) -> None:
        for source, target in list(self._links):
            if name in (source, target):
                self.break_link(source, target)

    def partition(self, *cuts: tuple[str, str]) -> None:
        """One-way cuts. What is sent vanishes at first; the connection breaks when the kernel gives up."""
        for source, target in cuts:
            self.cut[source, target] = None
            self.after(self.random.uniform(0.1, 0.6), partial(self._give_up, source, target))

    def _give_up(self, source: str, target: str) -> None:
        if (source, target) in self.cut:
            self.break_link(source, target)
            self.break_link(target, source)

    def heal(self) -> None:
        """A cut that ends before its connection broke must break it: TCP would have delivered what vanished."""
        for source, target in list(self.cut):
            self.break_link(source, target)
        self.cut.clear()

    # --- clients ---

    def submit(self, name: str, size: int = 0, count: int = 1) -> None:
        numbers = range(self.submitted, self.submitted + count)
        self.submitted += count
        commands = [submit(number, size) for number in numbers]
        ids = [command.submission_id for command in commands]
        self.propose(name, commands, partial(self._settle, ids))

    def propose(self, name: str, commands: Sequence[Command], done: Callable[[object], None]) -> None:
        node = self.nodes[name]
        if node.up:
            encoded = [encode_command(command) for command in commands]
            node.core.proposals.propose(Proposal(encoded, self.now, done))
            node.want_turn(0.0001)

    def _settle(self, ids: list[str], result: object) -> None:
        if isinstance(result, list):
            assert len(result) == len(ids)
            for submission, outcome in zip(ids, result, strict=True):
                assert not outcome.duplicate, "each id is submitted once"
                self.acknowledged[submission] = outcome.job_id
        elif isinstance(result, OutcomeUnknown):
            self.unknown.update(dict.fromkeys(ids))
        else:
            assert isinstance(result, (NoLeader, Overloaded)), result
            self.refused.update(dict.fromkeys(ids))

    def read(self, name: str) -> None:
        """Whatever was acknowledged before the read began must be there when it is answered."""
        node = self.nodes[name]
        if not node.up:
            return
        before = dict(self.acknowledged)

        def done(error: HaschedError | None) -> None:
            if error is None:
                self.reads_done += 1
                missing = [job_id for job_id in before.values() if job_id not in node.core.state.jobs]
                assert not missing, f"a read on {name} misses jobs {missing[:3]}"

        node.core.reads.read(self.now, done)
        node.want_turn(0.0001)

    # --- membership and leadership ---

    def transfer(self, name: str, target: str | None) -> None:
        node = self.nodes[name]
        if not node.up:
            return

        def done(result: str | HaschedError) -> None:
            if isinstance(result, HaschedError):
                assert isinstance(result, TransferFailed)
            else:
                assert target in (None, result)
                self.transferred += 1

        node.core.transfers.request(target, self.now, done)
        node.want_turn(0.0001)

    def want(self, *names: str) -> None:
        """Whoever wants it asks again until it is so, one manager after another."""
        self.wanted = names
        self._wish += 1
        self._pursue(self._wish)

    def _pursue(self, wish: int) -> None:
        leader = self.leader()
        if wish != self._wish:
            return
        if leader is not None:
            there = leader.core.state.managers
            commands: list[Command] = [
                AddManager(name, "test", f"https://{name}:1", f"{name}:1") for name in self.wanted if name not in there
            ]
            commands += [RemoveManager(name, "test") for name in there if name not in self.wanted]
            for command in commands[:1] if there else []:
                self.propose(self.random.choice(self.names), [command], lambda result: None)
        self.after(0.2, partial(self._pursue, wish))

    def voters(self) -> list[str]:
        leader = self.leader()
        return [] if leader is None else leader.core.engine.committed_membership.voters

    def note_leader(self, node: SimulatedNode) -> None:
        engine = node.core.engine
        if engine.is_leader:
            if engine.membership.index not in self.memberships:
                self.memberships[engine.membership.index] = None
            first = self.leaders.setdefault(engine.term, node.name)
            assert first == node.name, f"{first} and {node.name} both lead in term {engine.term}"
            assert engine.eligible, f"{node.name} leads and has no vote"

    # --- verdict ---

    def leader(self) -> SimulatedNode | None:
        leading = [node for node in self.nodes.values() if node.up and node.core.leading]
        return max(leading, key=lambda node: node.core.engine.term, default=None)

    def settle(self) -> None:
        """Heal everything; all managers must come to agree, and everything acknowledged must be there, once."""
        self.heal()
        for node in self.nodes.values():
            node.paused_until = 0
            if not node.up:
                node.start()
        self.run(30, self.agree)
        assert self.agree(), "the managers don't come to agree: " + repr(
            {
                n.name: (
                    n.core.engine.role,
                    n.core.engine.term,
                    n.core.engine.last_index,
                    n.core.engine.commit_index,
                    n.core.engine.membership,
                )
                for n in self.nodes.values()
            }
        )
        jobs = {job.submission_id: job.id for job in self.involved()[0].core.state.jobs.values()}
        lost = [submission for submission, job_id in self.acknowledged.items() if jobs.get(submission) != job_id]
        assert not lost, f"acknowledged, but lost: {lost[:5]}"
        undead = [submission for submission in self.refused if submission in jobs]
        assert not undead, f"refused, but done: {undead[:5]}"
        assert len({digest(node.core.state) for node in self.involved()}) == 1

    def involved(self) -> list[SimulatedNode]:
        """Those who are members."""
        leader = self.leader()
        return [self.nodes[name] for name in (self.names if leader is None else leader.core.engine.membership.voters)]

    def agree(self) -> bool:
        engines = [node.core.engine for node in self.involved()]
        return (
            self.leader() is not None
            and (not self.wanted or self.voters() == sorted(self.wanted))
            and len({(e.term, e.last_index, e.commit_index, e.applied_index) for e in engines}) == 1
        )


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    """A simulation whose clock the engine reads."""

    def build(seed: int = 1, **options) -> Simulation:
        simulation = Simulation(tmp_path / f"seed-{seed}", seed, **options)
        monkeypatch.setattr(syncobj, "monotonicTime", simulation.read_clock)
        for node in simulation.nodes.values():
            node.start()
        return simulation

    return build
