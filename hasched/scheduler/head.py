"""The head of the line: who stands first and fits nowhere. They hold nodes (`holds.py`), and may drive others out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from hasched.model.ids import JobId, NodeId
from hasched.scheduler.candidates import Candidates, View
from hasched.scheduler.evictions import LOOKS_A_UNIT, Eviction, Sieve
from hasched.scheduler.holds import MOST_HOLDS, Blocked, Hold, Holds
from hasched.scheduler.line import Line, WaitingClass
from hasched.scheduler.offers import OfferSearch
from hasched.scheduler.order import Rank
from hasched.scheduler.preemption import Ousting
from hasched.scheduler.shapes import NEVER_MS, Shape
from hasched.scheduler.slots import Changes, Slot
from hasched.scheduler.wholes import Wholes
from hasched.scheduler.windows import Windows
from hasched.statemachine.commands import PreemptAttempts
from hasched.statemachine.state import State

KEEP_UNITS = 2  # what it costs to see who needs a hold
PREPARED_A_UNIT = 32  # looks of a cursor that is made ready
MOST_EVICTIONS = 2 * MOST_HOLDS  # that are kept: a shape whose hold has been used may soon have another


class _Asked(NamedTuple):
    """A command that is on its way, and the holds that it makes."""

    command: PreemptAttempts
    holds: tuple[Hold, ...]


class Head:
    """`stands` says whether the first job of a class wants to start, `wants` how many tasks, job by job, of the first of a shape,
    all of one priority, may start once there is room. `unsettled`: who holds a node, or gives way, isn't known yet.
    """

    def __init__(
        self,
        line: Line,
        candidates: Candidates,
        holds: Holds,
        slots: dict[NodeId, Slot],
        changes: Changes,
        *,
        wholes: Wholes,
        stands: Callable[[State, WaitingClass], bool],
        wants: Callable[[State, Shape], list[tuple[JobId, int]]],
    ) -> None:
        self._line = line
        self._candidates = candidates
        self._holds = holds
        self._wholes = wholes
        self._slots = slots
        self._changes = changes
        self._stands = stands
        self._wants = wants
        self._search: OfferSearch | None = None  # for the first who holds none yet
        self._evictions: dict[Shape, Eviction] = {}
        self._asked: _Asked | None = None
        self.unsettled = False
        self._behind = False  # who is to hold a node isn't known before more nodes were looked at

    def nodes_changed(self) -> None:
        self._line.give_hope()
        self._search = None

    def forget_shape(self, shape: Shape) -> None:
        """Nothing of it waits any more."""
        self._evictions.pop(shape, None)
        self._holds.forget_shape(shape)

    # Who holds a node

    def needs_look(self, rank: Rank) -> bool:
        """Whether somebody of this rank who has just been set aside may get a hold."""
        return not self._holds.all_before(rank, self._holds.limit(len(self._slots)))

    def keep(self, state: State, windows: Windows) -> int:
        """See to it that those who stand first and fit nowhere hold a node, and nobody else. Returns the units spent."""
        if not self._line.aside and not self._holds:
            return 0
        self._behind = False
        self._drop_excluded()
        missing = self._holds.keep(self._blocked(state))
        for shape in self._evictions:
            self._let_go(state, shape)
        if missing is None:
            self._search = None
            return KEEP_UNITS
        search = self._search
        if search is None or search.shape is not missing.shape:
            cursors = self._candidates.cursors(missing.shape)
            search = self._search = OfferSearch(state, missing.shape, cursors, self._changes, windows)
            search.spares = partial(self._wholes.wants, missing.rank)
        done, units = search.go_on()
        self._behind = not done
        if not done:
            return KEEP_UNITS + units
        self._search, offer = None, search.found
        if offer is None:
            self._line.give_up_hope(missing.shape)
        else:
            self._holds.hold(missing, offer)
            gives_way = offer.slot.kept.gives_way(missing.shape.requests[offer.choice], offer.slot.total)
            if gives_way and offer.start_ms <= state.now_ms:
                self._line.call_back(missing.shape)  # it fits now that the node is held for it
        return KEEP_UNITS + units

    def _blocked(self, state: State) -> list[Blocked]:
        """The first shapes that fit nowhere though some node could hold them. One whose first job is out of it is tried."""
        while True:
            blocked = [Blocked(*each) for each in self._line.blocked(self._holds.limit(len(self._slots)))]
            firsts = [self._line.first_class(each.shape) for each in blocked]
            gone = [each.shape for each in firsts if each is not None and not self._stands(state, each)]
            if not gone:
                return blocked
            for shape in gone:
                self._line.call_back(shape)

    def _drop_excluded(self) -> None:
        """Let go of nodes at which the rules of those who hold them let them start no more, because of what runs there now."""
        for hold in [hold for hold in self._holds if hold.shape.relations]:
            cursor = self._candidates.cursors(hold.shape)[hold.choice]
            for each in self._holds.of_shape(hold.shape) if cursor.ready else ():
                if not cursor.permits(each.slot):
                    self._holds.release(each)

    def _let_go(self, state: State, shape: Shape) -> None:
        """Hold no more room than is wanted still: tasks may have started elsewhere, or wait no more."""
        holds = self._holds.of_shape(shape)
        surplus = sum(hold.made for hold in holds)
        if not surplus:
            return
        surplus -= sum(tasks for _, tasks in self._wants(state, shape))
        for hold in reversed(holds):
            if surplus <= 0:
                break
            less = min(surplus, hold.made)
            self._holds.set_made(hold, hold.made - less)
            surplus -= less

    def relations_changed(self, shapes: Iterable[Shape]) -> None:
        """Some have come or gone to whom these stand in relations."""
        for shape in shapes:
            self._line.give_hope((shape,))
            if self._search is not None and self._search.shape is shape:
                self._search.shaken = True
            if (eviction := self._evictions.get(shape)) is not None:
                eviction.permit()
                self.unsettled = True

    # Who is driven out

    def stir(self) -> None:
        """Something has grown: who has found too few to drive out looks at what has changed."""
        for eviction in self._evictions.values():
            eviction.stir()
        self.unsettled = self.unsettled or bool(self._evictions)

    def drive_out(self, state: State, windows: Windows) -> tuple[PreemptAttempts | None, int]:
        """One slice of seeing whom the first that holds a node, and may drive others out, drives out; and the units spent."""
        found = self._next_search(state)
        if found is None:
            return None, 0
        hold, job_id, wanted = found
        eviction, job = self._evictions[hold.shape], state.jobs[job_id]
        cursor = self._candidates.cursors(hold.shape)[hold.choice]
        if not cursor.ready:
            return None, 1 + cursor.prepare() // PREPARED_A_UNIT
        view = cursor.view

        def serves(slot: Slot) -> bool:
            if slot.held and (there := self._holds.of(slot)).rank < hold.rank and there.shape is not hold.shape:
                return False
            return self._slots.get(slot.node_id) is slot and _may_serve(slot, view, windows)

        eviction.looks = 0
        chosen = eviction.go_on(Ousting(state, job), hold, self._holds, Sieve(serves, cursor.permits), wanted)
        units = 1 + eviction.looks // LOOKS_A_UNIT
        if chosen is None or not chosen.attempts:
            return None, units
        reason = f"job {job.id} has a higher priority and needs the room"
        command = PreemptAttempts(attempts=chosen.attempts, for_job=job.id, reason=reason)
        self._asked = _Asked(command, chosen.holds)
        return command, units

    def see(self, state: State) -> None:
        """Whether anybody goes on looking."""
        self.unsettled = self._behind or self._next_search(state) is not None

    def settle(self, state: State, command: PreemptAttempts) -> None:
        """It has been decided, or nobody will know. Where it makes no room, another is looked for when something has changed."""
        if self._asked is None or self._asked.command is not command:
            return
        asked, self._asked = self._asked, None
        job = state.jobs.get(command.for_job)
        for hold in asked.holds:
            if job is not None and hold.made and self._holds.is_kept(hold):
                found = Ousting(state, job).on(hold.slot, hold.wanted)
                if found is None or found.losses:
                    self._holds.set_made(hold, 0)
        self.unsettled = True

    def _next_search(self, state: State) -> tuple[Hold, JobId, int] | None:
        """The first holder that may drive out more, the job that it is for, and for how many tasks of it."""
        if self._asked is not None:
            return None
        for hold in sorted(self._holds, key=lambda each: each.rank):
            job, shape = state.jobs.get(hold.job_id), hold.shape
            if job is None or not job.preempts or shape not in self._line.aside:
                self._evictions.pop(shape, None)
                continue
            eviction = self._evictions.get(shape)
            if eviction is None or eviction.priority != job.priority:
                eviction = self._evictions[shape] = Eviction(job.priority, self._slots, self._changes)
                if len(self._evictions) > MOST_EVICTIONS:
                    del self._evictions[next(iter(self._evictions))]
            if not eviction.searching:
                continue
            made = sum(each.made for each in self._holds.of_shape(shape))
            for job_id, tasks in self._wants(state, shape):
                if made and shape.relations:
                    break  # where one starts decides where the next may
                if made < tasks:
                    return hold, job_id, 1 if shape.relations else tasks - made
                made -= tasks
        return None


def _may_serve(slot: Slot, view: View, windows: Windows) -> bool:
    """Whether a node, whoever holds it, may be held for a task."""
    return slot.usable and windows.closes_ms(slot.node_id, ()) == NEVER_MS and view.admits(slot)
