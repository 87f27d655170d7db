"""The planner: turns what waits and what is free into plans.

What it knows is kept current from the applied events (`following`). Nothing of it is made anew for a slice: a pass in which
nothing fits costs one look at each changed node for each shape that waits, however many jobs and tasks it has, and a plan never
uses twice what an earlier plan on its way has taken.

Order: what `order` says; unless told otherwise priority, then job id. A task that doesn't fit is passed by others behind it,
but the first few that fit nowhere each hold a node meanwhile, so that they aren't passed for ever (`holds`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import islice

from hasched.model.ids import JobId, NodeId
from hasched.scheduler.flights import JobInFlight
from hasched.scheduler.following import REBUILD_SLICE, Draft, Following, Plan
from hasched.scheduler.keeping import Kept
from hasched.scheduler.limits import ANY_LIMIT
from hasched.scheduler.line import WaitingClass
from hasched.scheduler.order import Rank
from hasched.scheduler.shapes import Shape, limit_of
from hasched.scheduler.slots import Slot
from hasched.statemachine.commands import Placement, PlacePlan
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

CLASSES_A_TASK = 16  # so many classes waiting, and one task more of a class is placed in a row
TOLD_SLICE = 100  # nodes that are told in a slice what is kept
RELATED_UNITS = 8  # to place a task that is judged by where others run costs as much as so many others
ORDERED_A_UNIT = 24  # shapes aside that are put in order to be looked at again
KEPT_BUDGET = 64  # a slice of so few units always sees who holds a node
FIND_LOOKS = 48  # beside them, to find the node for a task costs as much as so many
CATCH_UP_UNITS = 80  # to work out when many held nodes have room
_LOOKS_A_UNIT = 32  # looking at so many nodes costs about as much as placing a task


class _End(Enum):
    """Why no more tasks of a job were drafted."""

    DONE = 0  # so many were wanted
    FULL = 1  # nothing fits anywhere
    PAUSED = 2  # the budget is spent, or a search isn't finished
    BARRED = 3  # nothing fits but by alternatives that a limit keeps back


class Planner(Following):
    """Feed it every applied entry (`observe`), ask for plans while it is `ready`, and say when each is decided (`settle`)."""

    @property
    def ready(self) -> bool:
        """Whether `plan` has anything to look at."""
        return bool(
            ((self._grown or self._tallies.stirred or self._wholes.changed) and self._line.aside)
            or self._recheck
            or self._parking
            or self._line
            or self._unlisted
            or self._kept_before
            or self._gangs.ready
            or self._head.unsettled
            or self._holds.released
            or self._holds.behind
            or self._unkept
            or not self._line.settled
        )

    def plan(self, state: State, budget: int) -> Plan | None:
        """The next slice of placements, or the next gang, or whom to drive out for a job at the head of the line.

        It takes at most `budget` units of work: a task placed, or a class or job looked at. None when the slice found nothing to
        propose; ask again while `ready`.
        """
        self._tallies.follow(state)
        self._wholes.follow(state)
        if self._unkept and self._gangs.ready:  # to see which nodes are kept for a gang takes long, too
            budget = min(budget, KEPT_BUDGET)
        draft = self._draft = {}
        spent = self._list_again(state) if self._unlisted else self._open_gates(state)
        if self._kept_before:
            spent += self._tell_what_is_kept(state)
        spent += min(self._begin_recheck(state), budget // 2)
        self._line.looks = looks = 0
        self._line.settle()
        while not self._unlisted and spent + (looks + self._line.looks) // _LOOKS_A_UNIT < budget:
            first = self._first_rank
            if self._gangs.stands_before(first):
                if draft:
                    break
                gang, units = self._gangs.plan(state, first, budget - spent)
                spent += units
                if gang is not None:
                    for placement in gang.placements:
                        self._move(state, gang.job_id, placement.node_id, len(placement.indices))
                    self.units_spent += spent
                    self._head.see(state)
                    return gang
            elif self._recheck and self._recheck[-1][0] == first:
                looked, ready = self._look_again(state)
                looks += looked
                if not ready:
                    break
            elif (waiting := self._line.next()) is not None:
                spent += self._plan_class(state, waiting, draft, max(budget - spent - looks // _LOOKS_A_UNIT, 1))
            else:
                break
        looks += self._line.looks
        settled = not self._unlisted and not self._recheck
        full = spent + looks // _LOOKS_A_UNIT >= budget > KEPT_BUDGET
        self._unkept = settled and full and not self._unkept
        if settled and not self._unkept:
            spent += self._gangs.keep_reserve(state)
            self._keep_holds(state)
        self.units_spent += spent + looks // _LOOKS_A_UNIT
        if not draft:
            settled = settled and not self._unkept
            command = self._gangs.drive_out(state) if settled else None
            if command is None and settled:
                command, units = self._head.drive_out(state, self._windows)
                self.units_spent += units
            self._head.see(state)
            return command
        placements = (
            Placement(job_id, node_id, tuple(tasks), choice) for ((job_id, node_id, choice), _), tasks in draft.items()
        )
        plan = PlacePlan(placements=tuple(placements))
        self._flights.depart(plan)
        self._draft = {}
        self._head.see(state)
        return plan

    @property
    def held_nodes(self) -> dict[NodeId, JobId]:
        """The nodes that are kept for jobs at the head of the line, or left to them, and to which."""
        return self._wholes.nodes(self._slots) | self._holds.nodes

    @property
    def kept(self) -> Kept:
        """What each free GPU keeps of its node from tasks without GPUs."""
        return self._told

    def count_ahead(self, job: Job) -> Iterator[int]:
        """How many jobs with waiting tasks come before this one, so far; the last number is the whole."""
        return self._ahead.count(job)

    def estimate(self, state: State, job_id: JobId) -> int | None:
        """When a job that waits at the head of the line starts at the latest, in ms; None if nobody can say."""
        return self._holds.start_of(state, job_id)

    def _list_again(self, state: State) -> int:
        """Put jobs into line anew whose shape may be another one now. Returns the units spent."""
        for listed in range(REBUILD_SLICE):
            if not self._unlisted:
                return listed // 8
            self._enqueue(state, self._unlisted.pop())
        return REBUILD_SLICE // 8

    def _tell_what_is_kept(self, state: State) -> int:
        """Tell some nodes. Returns the units spent."""
        some, self._kept_before = self._kept_before[-TOLD_SLICE:], self._kept_before[:-TOLD_SLICE]
        for node_id in some:
            self._refresh(state, node_id)
        self._see_what_is_kept()
        return len(some)

    def _open_gates(self, state: State) -> int:
        """Put into line some of those whose gate has opened. Returns the units spent."""
        if not self._parking:
            return 0
        jobs = self._parking.let_through()
        for job_id in jobs:
            self._enqueue(state, job_id)
        return len(jobs) // 4

    def _begin_recheck(self, state: State) -> int:
        """After something has grown: who stands aside is looked at again, each when its turn comes. Returns the units spent."""
        stirred = self._tallies.stirred | self._wholes.let_in()
        if self._grown:
            self._parking.open(ANY_LIMIT)
            again = self._line.aside
            self._head.stir()
        elif stirred:
            again = stirred | {shape: None for _, _, shape in self._recheck}
        else:
            return 0
        self._head.relations_changed(stirred)
        self._grown = False
        self._tallies.stirred = {}
        ranks = [(self._line.rank_of(shape), shape) for shape in again if shape in self._line.aside]
        self._recheck = [(rank, shape.number, shape) for rank, shape in ranks if rank is not None]
        self._recheck.sort(reverse=True)
        return len(self._recheck) // ORDERED_A_UNIT

    @property
    def _first_rank(self) -> Rank | None:
        """That of whoever is next, in line or to be looked at again."""
        while self._recheck and self._recheck[-1][2] not in self._line.aside:
            self._recheck.pop()
        first = self._line.first_rank
        again = self._recheck[-1][0] if self._recheck else None
        return min(first, again) if first is not None and again is not None else first if again is None else again

    def _look_again(self, state: State) -> tuple[int, bool]:
        """See whether the next shape that stands aside fits by now. The looks it took, and whether it is known."""
        rank, _, shape = self._recheck[-1]
        if (first := self._line.first_class(shape)) is not None and not self._stands(state, first):
            self._recheck.pop()
            self._line.call_back(shape)  # its first job is out of it
            return 1, True
        found, looks = self._find(state, shape, rank)
        if found is None and not self._candidates.know(shape):
            return looks, False
        self._recheck.pop()
        if found is not None:
            self._line.call_back(shape)
        return 1 + looks, True

    def _find(
        self, state: State, shape: Shape, rank: Rank, barred: Sequence[int] = ()
    ) -> tuple[tuple[Slot, int] | None, int]:
        """The best node and the request for it, which is none of those barred; None if there is none yet; the looks it took."""
        cursors = self._candidates.cursors(shape)
        looks = 0
        for cursor in cursors:
            if not cursor.ready:
                looks += cursor.prepare()
                if not cursor.ready:
                    return None, looks
        for choice, cursor in enumerate(cursors):
            if choice in barred:
                continue
            cursor.looks = 0
            left = self._wholes.leaver(shape, cursor.request, rank)
            looks += self._wholes.looks
            self._wholes.looks = 0
            if left is None:
                slot = cursor.best(self._changes, state.now_ms)
            else:
                slot = cursor.best_leaving(self._changes, state.now_ms, left)
                if slot is None:
                    self._wholes.refused[shape] = None
            looks += cursor.looks
            if slot is None and not cursor.ready:
                break
            if self._holds:
                self._holds.looks = 0
                held = self._holds.find(state, cursor, (shape, choice, rank))
                looks += self._holds.looks
                if held is not None and (
                    slot is None or cursor.score(held) < (cursor.best_score if left is None else cursor.score(slot))
                ):
                    slot = held
            if slot is not None:
                return (slot, choice), looks
        return None, looks

    def _plan_class(self, state: State, waiting: WaitingClass, draft: Draft, budget: int) -> int:
        """Place jobs of a class while it is first in line. Returns the units spent."""
        first = waiting.first
        assert first is not None, "a class that stands in line has a job"
        shape, rank = waiting.shape, self._order.rank(waiting.group, first)
        if not self._stands(state, waiting):
            waiting.drop_first()
            if (job := state.jobs.get(first)) is not None and not waiting.group.holds(job):
                self._enqueue(state, first)
            self._line.enter(waiting)
            return 1
        found, looks = self._find(state, shape, rank)
        spent = 1 + looks // _LOOKS_A_UNIT
        if found is None:
            if self._candidates.know(shape):
                return spent + self._set_aside(state, waiting, rank)
            self._line.enter(waiting)
            return spent
        while (job_id := waiting.first) is not None:
            job = state.jobs.get(job_id)
            if job is not None and (job.starts_together or not waiting.group.holds(job)):
                waiting.drop_first()
                self._enqueue(state, job_id)
                continue
            wanted = 0 if job is None else self._wanted(state, job)
            if job is not None and wanted:
                burst = max(self._order.burst, len(self._line) // CLASSES_A_TASK)
                allowed = min(wanted, max(budget - spent, 1), burst)
                rank = self._order.rank(waiting.group, job_id)
                placed, units, ended = self._place(state, job, (shape, rank), (allowed, budget - spent), draft)
                spent += units
                if ended is _End.FULL:
                    return spent + self._set_aside(state, waiting, rank)
                if ended is _End.BARRED:
                    self._park_barred(state, job, shape)
                elif ended is _End.PAUSED or placed == allowed < wanted:
                    break
            waiting.drop_first()
            spent += 1 - bool(wanted)
            if spent >= budget or not self._is_next(waiting):
                break
        self._line.enter(waiting)
        return spent

    def _set_aside(self, state: State, waiting: WaitingClass, rank: Rank) -> int:
        """Nothing of the shape fits anywhere; before others pass it, it may get a hold. Returns the units spent."""
        self._line.set_aside(waiting)
        return self._keep_holds(state) if self._head.needs_look(rank) else 0

    def _keep_holds(self, state: State) -> int:
        """See who holds a node now. Returns the units spent."""
        spent = 0
        if self._holds.behind:
            self._holds.catch_up(state)
            spent = CATCH_UP_UNITS
        spent += self._head.keep(state, self._windows)
        if self._holds.released:
            self._holds.released = False
            self._grown = True
            self._gangs.stir()
        return spent

    def _place(
        self, state: State, job: Job, standing: tuple[Shape, Rank], limits: tuple[int, int], draft: Draft
    ) -> tuple[int, int, _End]:
        """Draft tasks of a job onto the best nodes within limits of tasks and units. How many, the units, and why no more."""
        shape, rank = standing
        wanted, budget = limits
        changes, fills = self._changes, self._scorer.fills and not shape.relations
        weight = RELATED_UNITS if shape.relations else 1
        in_flight = self._flights.jobs.get(job.id) or JobInFlight(shape, limit_of(job))
        indices = job.pending_indices(in_flight.next_index)
        placed, looks, ended = 0, 0, _End.DONE
        rooms = self._rooms_by_choice(state, job, wanted)
        while placed < wanted:
            if placed * weight + looks // _LOOKS_A_UNIT >= budget and placed + looks:
                ended = _End.PAUSED
                break
            barred = [number for number, room in enumerate(rooms) if room <= 0]
            found, looked = self._find(state, shape, rank, barred)
            looks += looked + FIND_LOOKS
            if found is None:
                ended = _End.PAUSED if not self._candidates.know(shape) else _End.BARRED if barred else _End.FULL
                break
            slot, choice = found
            request = shape.requests[choice]
            most = wanted - placed if fills else 1
            most = min(most, rooms[choice]) if rooms else most
            room = self._holds.room(state, slot, (shape, choice, rank), most) if slot.held else slot.room(request, most)
            tasks = list(islice(indices, room))
            if not tasks:
                break
            self._turn += 1
            slot.turn = self._turn
            slot.take(request, len(tasks))
            slot.reserved_until_ms = max(slot.reserved_until_ms, state.now_ms + in_flight.limit_ms)
            changes.note(slot)
            if slot.held:
                self._holds.count(slot, shape, rank, len(tasks))
            apart = tasks[0] + 1 if shape.is_spread else 0
            draft.setdefault(((job.id, slot.node_id, choice), apart), []).extend(tasks)
            self._move(state, job.id, slot.node_id, len(tasks))
            in_flight.next_index = tasks[-1] + 1
            placed += len(tasks)
            if rooms:
                rooms[choice] -= len(tasks)
        if placed:
            in_flight.tasks += placed
            self._flights.jobs[job.id] = in_flight
            self.take(state, job, placed)
        if self._holds.released:
            self._keep_holds(state)
        return placed, placed * weight + looks // _LOOKS_A_UNIT, ended

    def _is_next(self, waiting: WaitingClass) -> bool:
        """Whether a class that is out of line would come first if it entered now."""
        if not self._line.is_next(waiting):
            return False
        rank = self._line.rank_of_class(waiting)
        return not self._gangs.stands_before(rank) and not (self._recheck and self._recheck[-1][0] < rank)
