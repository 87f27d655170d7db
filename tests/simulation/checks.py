"""Checks: what must hold at every moment of a run, and what must hold once everything is healed.

While it runs, each entry that a manager applies is compared with what the others made of it, and what it did is written
down as facts (who was granted what, which task ended how), from which the checkers of `chaos/` draw their conclusions
without the state's own sums. The state itself is looked at as a whole at every so manyth entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from chaos.checkers import durability, linearizability
from chaos.checkers.capacity import Ledger
from chaos.checkers.models import JobModel
from chaos.checkers.monotone import Monotone
from chaos.checkers.outcomes import Outcomes
from hasched.model.ids import AttemptId
from hasched.model.spec import Resources
from hasched.model.states import EndKind, NodeState, TaskState
from hasched.raft.engine import Engine
from hasched.raft.replica import Applied
from hasched.statemachine import events as e
from hasched.statemachine import invariants
from hasched.statemachine.digest import digest
from hasched.statemachine.state import State, Tombstone
from tests.support.waiting import Reference

if TYPE_CHECKING:
    from tests.simulation.clients import Record
    from tests.simulation.manager import SimulatedManager
    from tests.simulation.tasks import Run
    from tests.simulation.world import World

DIGEST_EVERY = 53  # entries; of all managers, so that equal indexes meet
INVARIANTS_EVERY = 101
CLOCK_ERROR = 0.15  # by so much the seconds of two hosts may differ

_encode = msgspec.msgpack.Encoder().encode


class Checks:
    """Listens to a world from its making on."""

    def __init__(self, world: World, record: Record) -> None:
        self.monotone = Monotone()
        self.outcomes = Outcomes()
        self.ledger = Ledger()
        self.entries = 0
        self.led_since: dict[int, float] = {}  # by term
        self.on_leader: Callable[[str], None] | None = None  # told of whoever comes to lead
        self._world = world
        self._record = record
        self._did: dict[int, bytes] = {}  # by index, what the entry did, as whoever applied it first saw it
        self._digests: dict[int, tuple[str, str]] = {}
        self._waiting = Reference()
        self._counts: dict[int, int] = {}  # tasks of each job
        self._resources: dict[int, dict[str, int]] = {}
        self._runs: dict[AttemptId, Run] = {}
        self.undecided = 0
        self._watch_term = 0
        self._grace_s = world.settings.leading.node_grace_ms / 1000
        world.on_applied.append(self._applied)
        world.on_start.append(self._started)

    # --- while it runs ---

    def _complain(self, who: str, what: str) -> None:
        self._world.complain(who, what)

    def _applied(self, manager: SimulatedManager, applied: Applied) -> None:
        index, name = applied.index, manager.name
        if not manager.unsynced:  # what isn't synced, nobody has heard of
            self.monotone.term(name, manager.replica.term)
        self.monotone.index(name, "applied", index)
        if applied.faults:
            self._complain(name, f"decide failed at {index}: {applied.faults[0]}")
        if applied.events or applied.outcomes:
            did = _encode((applied.outcomes, applied.events))
            known = self._did.setdefault(index, did)
            if known is did:
                self.entries += 1
                self._write_down(applied)
            elif known != did:
                self._complain(name, f"entry {index} does something else here than elsewhere")
        self._check_matches(manager)
        if index % DIGEST_EVERY == 0:
            self._compare_digest(name, index, manager.replica.state)
        if index % INVARIANTS_EVERY == 0:
            self._check_state(name, index, manager.replica.state)
        for found in (self.monotone.wrong, self.outcomes.wrong, self.ledger.wrong, self._record.wrong):
            if found:
                self._complain(name, found[0])

    def _started(self, manager: SimulatedManager) -> None:
        self.monotone.restarted(manager.name)
        engine = manager.replica._core.engine
        if engine.is_blank and not engine.voter:
            self.monotone.wiped(manager.name)

    def _compare_digest(self, name: str, index: int, state: State) -> None:
        """Not where the memory of a manager was spoilt: that is for the managers to find, before the end."""
        if self._world.flips:
            return
        mine = digest(state)
        theirs, other = self._digests.setdefault(index, (mine, name))
        if mine != theirs:
            self._complain(name, f"at entry {index} its state differs from that of {other}")

    def _check_matches(self, manager: SimulatedManager) -> None:
        """What a leader counts as acknowledged stands in that follower's log, as long as both are of the same term."""
        leader = manager.replica._core.engine
        if not leader.is_leader:
            return
        for node, match_index in leader._SyncObj__raftMatchIndex.items():
            other = self._world.managers.get(node.id)
            engine = other.replica._core.engine if other is not None and other.running else None
            if engine is None or not engine.voter or engine.term != leader.term:
                continue
            first = max(engine._journal[0].index, leader._journal[0].index)
            known = match_index <= engine.last_index
            if not known or (match_index > first and engine.term_at(match_index) != leader.term_at(match_index)):
                self._complain(manager.name, f"counts entry {match_index} as held by {node.id}, which doesn't hold it")

    def _check_state(self, name: str, index: int, state: State) -> None:
        for sentence in (*invariants.check(state), *invariants.check_capacity(state)):
            self._complain(name, f"at entry {index}: {sentence}")

    def became_leader(self, name: str, term: int) -> None:
        self.monotone.leads(name, term)
        self.led_since[term] = self._world.now
        if self.on_leader is not None:
            self.on_leader(name)
        if self.monotone.wrong:
            self._complain(name, self.monotone.wrong[0])

    def _write_down(self, applied: Applied) -> None:
        for event in applied.events:
            for sentence in self._waiting.see(event, applied.now_ms):
                self._complain("the state", sentence)
            match event:
                case e.JobSubmitted(job_id=job_id, spec=spec):
                    self._counts[job_id] = spec.count
                    self._resources[job_id] = _amounts(spec.resources)
                case e.TasksScheduled(job_id=job_id, node_id=node_id):
                    for task_index, attempt in zip(event.indices, event.attempts, strict=True):
                        self.outcomes.attempt_began((job_id, task_index), attempt)
                        self.ledger.granted(node_id, (job_id, task_index), self._resources[job_id])
                case e.AttemptEnded(job_id=job_id, index=task_index):
                    self._compare_with_truth(event)
                    final = event.task_state.final
                    self.ledger.released((job_id, task_index))
                    self.outcomes.attempt_ended(
                        (job_id, task_index), event.attempt, event.task_state.name if final else None
                    )
                case e.JobCancelRequested():
                    self._ended(event.job_id, event.indices, TaskState.CANCELLED)
                case e.GangBroken(job_id=job_id, cancelled=cancelled):
                    for task_index in cancelled:
                        self.outcomes.task_ended((job_id, task_index), TaskState.CANCELLED.name)
                case e.GangReopened(job_id=job_id, indices=indices):
                    for task_index in indices:
                        self.outcomes.reopened((job_id, task_index))
                case e.GangShrunk(job_id=job_id, count=count):
                    self._counts[job_id] = count
                case e.JobDeadlineExceeded():
                    self._ended(event.job_id, (), TaskState.DEADLINE_EXCEEDED)
                case e.NodeRegistered(node_id=node_id, info=info):
                    self.ledger.offers(node_id, _amounts(info.resources))
                case e.WatchStarted(term=term):
                    self._watch_term = term
                case e.NodeStateChanged(state=NodeState.DISCONNECTED):
                    self._declared_lost(event.node_id)
                case _:
                    pass

    def _compare_with_truth(self, event: e.AttemptEnded) -> None:
        """An end that an agent reported is the end of that very attempt's process, if it ever had one."""
        runs = self._world.runs
        for run in runs[len(self._runs) :]:
            if run.key in self._runs:
                self._complain(run.node, f"attempt {tuple(run.key)} is started a second time")
            self._runs[run.key] = run
        known = self._runs.get(AttemptId(event.job_id, event.index, event.attempt))
        if not event.reported:
            return
        name = f"attempt {event.job_id}.{event.index}.{event.attempt}"
        exited = event.kind is EndKind.EXITED
        if known is None and exited:
            self._complain(event.node_id, f"{name} is recorded as exited, and never ran")
        elif known is not None and known.ended_s is None:
            self._complain(event.node_id, f"{name} is recorded as {event.kind.name}, and still runs")
        elif known is not None and exited and known.status != event.code << 8:
            self._complain(
                event.node_id, f"{name} is recorded with exit code {event.code}, and had {known.status >> 8}"
            )

    def _ended(self, job_id: int, indices: tuple[int, ...], end: TaskState) -> None:
        """The tasks that were waiting have ended with it: those that neither hold resources nor have ended before."""
        for index in indices or range(self._counts[job_id]):
            task = (job_id, index)
            if not self.ledger.holds(task) and self.outcomes.of(task) is None:
                self.outcomes.task_ended(task, end.name)

    def _declared_lost(self, node_id: str) -> None:
        """The leader whose watch counts has listened for a grace: of what was before it led, it knows nothing."""
        listened_s = self._world.now - self.led_since.get(self._watch_term, 0.0)
        if listened_s < self._grace_s * (1 - CLOCK_ERROR):
            self._complain(node_id, f"is declared lost by a leader that has listened for {listened_s:.1f} s")

    # --- at the end ---

    def verdict(self) -> list[str]:
        """Everything is healed, and the managers agree: a sentence for all that is wrong."""
        manager = self._world.leader()
        assert manager is not None
        state, record = manager.replica.state, self._record
        wrong = [*record.wrong]
        digests = {each.name: digest(each.replica.state) for each in self._world.voters()}  # others may still be filled
        if len(dict.fromkeys(digests.values())) > 1:
            wrong.append(f"the managers end in different states: {digests}")
        wrong += invariants.check(state) + invariants.check_capacity(state)
        wrong += self.ledger.wrong + self.ledger.compare(
            (task, node.id) for node in state.nodes.values() for task in node.attempts
        )
        wrong += self.outcomes.wrong + self.outcomes.compare(
            {
                (job.id, index): _outcome(job.task_state(index))
                for job in state.jobs.values()
                for index in range(job.count)
            }
        )
        present = [*state.submissions.items()]
        present += [(name, e_id) for name, e_id in _gone(state)]
        wrong += durability.check(record.jobs | record.acknowledged, record.refused(), present)
        searched = linearizability.check(record.history.operations(), JobModel(), budget=50_000)
        wrong += searched.violations
        self.undecided = len(searched.undecided)
        return wrong


def _outcome(state: TaskState) -> str | None:
    return state.name if state.final else None


def _gone(state: State) -> Iterator[tuple[str, int]]:
    for name, packed in state.tombstones.items():
        yield name, Tombstone.unpack(packed).job_id


def _amounts(resources: Resources) -> dict[str, int]:
    named = {"cpu_milli": resources.cpu_milli, "memory_bytes": resources.memory_bytes, "gpus": resources.gpus}
    return named | dict(resources.countables)


@contextmanager
def watching_elections(checks: Checks) -> Iterator[None]:
    """Tell `checks` of every manager that comes to lead, at that moment."""
    original = Engine._SyncObj__onBecomeLeader

    def become_leader(engine: Engine) -> None:
        original(engine)
        checks.became_leader(engine.selfNode.id, engine.term)

    Engine._SyncObj__onBecomeLeader = become_leader
    try:
        yield
    finally:
        Engine._SyncObj__onBecomeLeader = original
