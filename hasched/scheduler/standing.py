"""Who may start: how many tasks of a job the gates allow, beyond those that are on their way."""

from __future__ import annotations

from hasched.model.ids import JobId
from hasched.scheduler.evictions import MOST_ROOMS
from hasched.scheduler.flights import Flights
from hasched.scheduler.gates import Gate
from hasched.scheduler.keys import Key
from hasched.scheduler.limits import ANY_LIMIT, LimitGate
from hasched.scheduler.line import Line, WaitingClass
from hasched.scheduler.order import Order
from hasched.scheduler.parking import Parking
from hasched.scheduler.shapes import Shape
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

MOST_PREEMPTING = 32  # jobs of a shape for which others are driven out at a time


class Standing:
    """The part of the planner that asks the gates. A job that one holds back is parked until it opens."""

    _gates: tuple[Gate, ...]
    _order: Order
    _parking: Parking
    _flights: Flights
    _line: Line
    _limits: LimitGate | None
    _standing: dict[JobId, WaitingClass]  # jobs seen to stand first of a class, of which nothing has happened since

    def _waits(self, state: State, job_id: JobId) -> bool:
        """Whether the job has tasks that want to start, or would if no gate held them back."""
        job = state.jobs.get(job_id)
        return job is not None and not job.suspended and not job.ending and self._waiting(job) > 0

    def _stands(self, state: State, waiting: WaitingClass) -> bool:
        """Whether the first job of a class waits, and is still one of this class."""
        first = waiting.first
        if first is None:
            return False
        if self._standing.get(first) is waiting:
            return True
        stands = self._waits(state, first) and waiting.group.holds(state.jobs[first])
        if stands:
            self._standing[first] = waiting
        return stands

    def _wants(self, state: State, shape: Shape) -> list[tuple[JobId, int]]:
        """How many tasks of each of the first jobs of a shape may start once there is room, `MOST_ROOMS` in all at most.

        What one of them may start the next may not: they are taken to share all limits.
        """
        found: list[tuple[JobId, int]] = []
        sum_before, priority = 0, None
        for job_id in self._line.firsts(shape, MOST_PREEMPTING):
            job = state.jobs.get(job_id)
            if job is None or not job.preempts or not self._waits(state, job_id):
                continue
            priority = job.priority if priority is None else priority
            allowed = min(sum_before + self._waiting(job), MOST_ROOMS)
            for gate in self._gates:
                allowed = gate.allowed(state, job, allowed)
            if 0 in self._rooms_by_choice(state, job, 1):
                continue  # nobody has to go for what a limit may keep back
            if allowed > sum_before and job.priority == priority:
                found.append((job_id, allowed - sum_before))
                sum_before = allowed
        return found

    def _rooms_by_choice(self, state: State, job: Job, wanted: int) -> list[int]:
        """How many tasks the limits let start by each of the job's alternatives; empty where all are alike."""
        rooms = self._limits.room_by_choice(state, job, wanted) if self._limits is not None else None
        return list(rooms or ())

    def _park_barred(self, state: State, job: Job, shape: Shape) -> None:
        """Until a limit or room for it has changed."""
        assert self._limits is not None, "nothing else bars alternatives"
        self._parking.park(job, Key(ANY_LIMIT, (self._limits.key(state, job).kind, shape.number)))

    def allowed(self, state: State, job: Job, least: int, most: int) -> int:
        """How many of a job's tasks may start together now; 0 if not `least`, and then it is parked."""
        for gate in self._gates:
            most = gate.allowed(state, job, most)
            if most < least:
                self._parking.park(job, gate.key(state, job))
                return 0
        return most

    def take(self, state: State, job: Job, tasks: int) -> None:
        """Tell the gates and the order of tasks that are on their way now; negative: not any more."""
        if self._waiting(job) <= 0:
            self._standing.pop(job.id, None)
        for gate in self._gates:
            gate.take(state, job, tasks)
        self._order.take(state, job, tasks)

    def _waiting(self, job: Job) -> int:
        """How many tasks of the job are neither held nor on their way."""
        in_flight = self._flights.jobs.get(job.id)
        return job.eligible - (in_flight.tasks if in_flight is not None else 0)

    def _wanted(self, state: State, job: Job) -> int:
        """How many tasks of the job may start beyond those that are on their way. A job that a gate holds back is parked."""
        wanted = self._waiting(job)
        for gate in self._gates:
            if wanted <= 0:
                break
            wanted = gate.allowed(state, job, wanted)
            if wanted <= 0:
                self._parking.park(job, gate.key(state, job))
        return max(wanted, 0)
