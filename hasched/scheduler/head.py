"""The head of the line: who stands first and fits nowhere. They hold nodes (`holds.py`), and may drive others out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from hasched.model.ids import JobId, NodeId
from hasched.scheduler.candidates import Candidates, View
from hasched.scheduler.holds import ONCE, Blocked, Hold, Holds, best_offer
from hasched.scheduler.line import Line
from hasched.scheduler.order import Rank
from hasched.scheduler.preemption import choose_victims, victims_on
from hasched.scheduler.shapes import NEVER_MS, Shape
from hasched.scheduler.slots import Slot
from hasched.scheduler.windows import Windows
from hasched.statemachine.commands import PreemptAttempts
from hasched.statemachine.state import State

VICTIM_SLICE = 64  # nodes looked at in a slice for tasks to be driven out; so many units as well
KEEP_UNITS = 2  # what it costs to see who needs a hold,
HOLD_UNITS = 32  # and to find one


class Head:
    """`waits` says whether a job has tasks that want to start. `unsettled`: who holds a node, or gives way, isn't known yet."""

    def __init__(
        self,
        line: Line,
        candidates: Candidates,
        holds: Holds,
        slots: dict[NodeId, Slot],
        waits: Callable[[State, JobId], bool],
    ) -> None:
        self._line = line
        self._candidates = candidates
        self._holds = holds
        self._slots = slots
        self._waits = waits
        self._hopeless: dict[Shape, None] = {}  # shapes that no node could hold, as long as nodes stay as they are
        self.unsettled = False

    def nodes_changed(self) -> None:
        self._hopeless.clear()

    def forget_shape(self, shape: Shape) -> None:
        """Nothing of it waits any more."""
        self._hopeless.pop(shape, None)
        self._holds.forget_shape(shape)

    # Who holds a node

    def needs_look(self, rank: Rank) -> bool:
        """Whether somebody of this rank who has just been set aside may get a hold."""
        return not self._holds.all_before(rank, self._holds.limit(len(self._slots)))

    def keep(self, state: State, windows: Windows) -> int:
        """See to it that those who stand first and fit nowhere hold a node, and nobody else. Returns the units spent."""
        if not self._line.aside and not self._holds:
            return 0
        missing = self._holds.keep(islice(self._blocked(state), self._holds.limit(len(self._slots))))
        if missing is None:
            return KEEP_UNITS
        view = self._candidates.cursors(missing.shape)[0].view
        view.catch_up()
        offer = best_offer(state, view, missing.shape, windows)
        if offer is None:
            self._hopeless[missing.shape] = None
        else:
            self._holds.hold(missing, offer)
        return HOLD_UNITS

    def _blocked(self, state: State) -> Iterator[Blocked]:
        """The shapes that fit nowhere though some node could hold them, in order. One whose first job is out of it is tried."""
        for rank, shape, job_id in self._line.blocked():
            if not self._waits(state, job_id):
                self._line.call_back(shape)
            elif shape not in self._hopeless and not shape.relations:
                yield Blocked(rank, shape, job_id)

    # Who is driven out

    def stir(self) -> None:
        """Something has grown: who found nobody to drive out looks at some nodes more."""
        for hold in self._holds:
            if not hold.served and hold.searched >= len(self._slots):
                hold.until = hold.searched + VICTIM_SLICE
                self.unsettled = True

    def drive_out(self, state: State, windows: Windows) -> tuple[PreemptAttempts | None, int]:
        """Whom a job that holds a node, and may drive others out, drives out, of some nodes; and the units spent."""
        hold = next((hold for hold in self._holds if self._searches(state, hold)), None)
        if hold is None:
            return None, 0
        job, request = state.jobs[hold.job_id], hold.shape.requests[hold.choice]
        slots = list(self._slots.values())
        first = hold.searched % len(slots)
        some = slots[first : first + VICTIM_SLICE]
        view = self._candidates.cursors(hold.shape)[0].view
        free = [slot for slot in some if _may_serve(slot, view, windows)]
        if not hold.searched:
            free.insert(0, hold.slot)
        hold.searched += len(some)
        victims = choose_victims(state, job, request, free)
        if victims is None:
            return None, VICTIM_SLICE
        hold.served = True
        if victims.node_id != hold.slot.node_id:
            self._holds.move(hold, self._slots[victims.node_id])
        if not victims.attempts:
            return None, VICTIM_SLICE
        reason = f"job {job.id} has a higher priority and needs the room"
        return PreemptAttempts(attempts=victims.attempts, for_job=job.id, reason=reason), VICTIM_SLICE

    def see(self, state: State) -> None:
        """Whether anybody goes on looking."""
        self.unsettled = any(self._searches(state, hold) for hold in self._holds)

    def settle(self, state: State, command: PreemptAttempts) -> None:
        """It has been decided, or nobody will know. Who isn't served by it looks again when something has changed."""
        for hold in self._holds:
            if hold.job_id == command.for_job and not _is_served(state, hold):
                hold.served, hold.searched, hold.until = False, len(self._slots), ONCE

    def _searches(self, state: State, hold: Hold) -> bool:
        """Whether it is still to be found out whom a holder could drive out."""
        if hold.served or hold.searched >= (len(self._slots) if hold.until == ONCE else hold.until):
            return False
        job = state.jobs.get(hold.job_id)
        return job is not None and job.preempts and hold.shape in self._line.aside and self._waits(state, job.id)


def _may_serve(slot: Slot, view: View, windows: Windows) -> bool:
    """Whether a node may be held for another in place of the one it holds."""
    return slot.usable and not slot.held and windows.closes_ms(slot.node_id, ()) == NEVER_MS and view.admits(slot)


def _is_served(state: State, hold: Hold) -> bool:
    """Whether what was told to stop makes room for the holder."""
    job = state.jobs.get(hold.job_id)
    if job is None:
        return True
    found = victims_on(state, job, hold.shape.requests[hold.choice], hold.slot)
    return found is not None and not found.attempts
