"""What a job waits for before anything of it starts, and who waits for whom.

Conditions that are open stand with the job that waits (`Waits`). `Dependants` finds those jobs from the other side: by the job
whose start or end, or by the name whose last bearer's end, may decide a condition. So an event costs what it concerns, not
what waits. It is rebuilt from the jobs when a snapshot is read.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import msgspec

from hasched.model.spec import Condition, Dependency
from hasched.model.states import ConditionKind, TaskState

ACTOR = "hasched"  # who cancels what can never start
NEVER = "dependency_never_satisfied"  # how the reason of such a cancel begins
MAX_DEPENDANTS = 10_000  # that wait for one job
MAX_ELEMENTWISE = 100  # of them, element by element: each end of a task is told to each
ITS_NAME = 0  # in the place of a job's id: what a singleton waits for

NameKey: TypeAlias = tuple[str, str, str]  # namespace, user, name
_K = TypeVar("_K")


class Awaited(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A condition that is open."""

    condition: Condition
    due_ms: int = 0  # of `after`: it holds from then on; 0: the other has not started
    end: TaskState | None = (
        None  # what its job came to, if old entries have made that forgotten (`ENDS_KEPT_ONCE_SINCE`)
    )
    phases: bytes = b""  # likewise, of `aftercorr`


class KeptEnd(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a job came to that is forgotten, for as long as anybody waits for it."""

    job_id: int
    end: TaskState
    began_ms: int  # from when an `after` counts
    phases: bytes = b""  # of its tasks, where somebody waits for these one by one


class Waits(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a job waits for, of its dependency."""

    open: tuple[Awaited, ...]
    any_of: bool = False
    broken: tuple[Condition, ...] = ()  # what can't hold any more

    @classmethod
    def of(cls, dependency: Dependency) -> Waits:
        return cls(tuple(map(Awaited, dependency.conditions)), dependency.any_of)

    @property
    def whole(self) -> tuple[Awaited, ...]:
        """Those that hold back all of the job."""
        return tuple(each for each in self.open if each.condition.kind is not ConditionKind.AFTERCORR)

    @property
    def elements(self) -> tuple[Awaited, ...]:
        """Those that hold back each task by itself."""
        return tuple(each for each in self.open if each.condition.kind is ConditionKind.AFTERCORR)

    @property
    def hopeless(self) -> bool:
        """Whether the job can never start."""
        return bool(self.broken) and not (self.any_of and self.open)

    @property
    def is_whole_left(self) -> bool:
        """Whether anything is open that holds back all of the job."""
        return any(each.condition.kind is not ConditionKind.AFTERCORR for each in self.open)

    def without(self, conditions: Sequence[Condition], *, broken: bool) -> Waits | None:
        """After these were decided; None if nothing is left to wait for."""
        if not broken and self.any_of:
            return None
        left = self._others_than(conditions)
        more = (*self.broken, *conditions) if broken else self.broken
        return Waits(left, self.any_of, more) if left or more else None

    def timed(self, condition: Condition, due_ms: int) -> Waits:
        """After it was found when a condition will hold."""
        place = self._place_of(condition)
        changed = (*self.open[:place], Awaited(condition, due_ms), *self.open[place + 1 :])
        return Waits(changed, self.any_of, self.broken)

    def _others_than(self, conditions: Sequence[Condition]) -> tuple[Awaited, ...]:
        if len(conditions) == 1:
            place = self._place_of(conditions[0])
            return self.open[:place] + self.open[place + 1 :]
        decided = dict.fromkeys(conditions)
        jobs = dict.fromkeys(condition.job_id for condition in conditions)  # numbers are found faster than conditions
        return tuple([each for each in self.open if each.condition.job_id not in jobs or each.condition not in decided])

    def _place_of(self, condition: Condition) -> int:
        job_id = condition.job_id
        for place, each in enumerate(self.open):
            if each.condition.job_id == job_id and each.condition == condition:
                return place
        raise AssertionError("what is decided was open")


class Stir:
    """What about a job that waits may have to be looked at."""

    __slots__ = ("others", "tasks")

    def __init__(self) -> None:
        self.others: dict[
            int, None
        ] = {}  # conditions on these jobs, but for what is still to come of tasks that wait each for one
        self.tasks: dict[int, dict[int, None]] = {}  # by these jobs, the tasks of it that have ended


class Names:
    """Jobs that have not ended, by their names. Most names are of one job, which costs some twenty bytes."""

    def __init__(self) -> None:
        self._jobs: dict[str, dict[str, dict[str, int | dict[int, None]]]] = {}  # by namespace, user and name

    def add(self, key: NameKey, job_id: int) -> None:
        """The latest of all jobs."""
        namespace, user, name = key
        users = self._jobs.get(namespace)
        if users is None:
            users = self._jobs[namespace] = {}
        names = users.get(user)
        if names is None:
            names = users[user] = {}
        known = names.get(name)
        if known is None:
            names[name] = job_id
        elif isinstance(known, int):
            names[name] = {known: None, job_id: None}
        else:
            known[job_id] = None

    def drop(self, key: NameKey, job_id: int) -> None:
        namespace, user, name = key
        users = self._jobs[namespace]
        names = users[user]
        known = names[name]
        if isinstance(known, dict) and len(known) > 1:
            del known[job_id]
            return
        del names[name]
        if not names:
            del users[user]
            if not users:
                del self._jobs[namespace]

    def first(self, key: NameKey) -> int:
        """The earliest job of the name; 0: none."""
        namespace, user, name = key
        known = self._jobs.get(namespace, {}).get(user, {}).get(name, 0)
        return known if isinstance(known, int) else next(iter(known))

    def of_all(self) -> dict[NameKey, list[int]]:
        return {
            (namespace, user, name): [known] if isinstance(known, int) else list(known)
            for namespace, users in self._jobs.items()
            for user, names in users.items()
            for name, known in names.items()
        }


class Dependants:
    """Jobs that wait, by what they wait for; and those of them that have to be looked at now."""

    def __init__(self) -> None:
        self.starts: dict[int, dict[int, None]] = {}  # by the other job, who waits for its start
        self.ends: dict[int, dict[int, None]] = {}
        self.tasks: dict[int, dict[int, None]] = {}
        self.singletons: dict[NameKey, dict[int, None]] = {}  # that wait
        self.names = Names()
        self.timers: list[
            tuple[int, int]
        ] = []  # heap of (when, who waits), each once; may hold what means nothing more
        self._timed: dict[tuple[int, int], None] = {}  # what is in it
        self.stirred: dict[int, Stir | None] = {}  # None: with everything that it waits for

    def number(self, job_id: int) -> int:
        """How many jobs wait for this one."""
        found = 0
        for table in (self.starts, self.ends, self.tasks):
            if job_id in table:
                found += len(table[job_id])
        return found

    def is_awaited(self, job_id: int) -> bool:
        """Whether anybody waits for this job."""
        return job_id in self.ends or job_id in self.starts or job_id in self.tasks

    def waits_for(self, job_id: int, key: NameKey, other: int) -> bool:
        """Whether the job waits for anything of another as a whole, or for its name."""
        if other == ITS_NAME:
            return job_id in self.singletons.get(key, ())
        return job_id in self.ends.get(other, ()) or job_id in self.starts.get(other, ())

    def add(self, job_id: int, key: NameKey, awaited: Awaited) -> None:
        if awaited.due_ms:
            timer = (awaited.due_ms, job_id)
            if timer not in self._timed:
                self._timed[timer] = None
                heapq.heappush(self.timers, timer)
        elif awaited.condition.kind is ConditionKind.SINGLETON:
            self.singletons.setdefault(key, {})[job_id] = None
        elif awaited.end is None:
            self._table(awaited.condition).setdefault(awaited.condition.job_id, {})[job_id] = None

    def remove(self, job_id: int, key: NameKey, condition: Condition) -> None:
        if condition.kind is ConditionKind.SINGLETON:
            _discard(self.singletons, key, job_id)
        else:
            _discard(self._table(condition), condition.job_id, job_id)

    def _table(self, condition: Condition) -> dict[int, dict[int, None]]:
        match condition.kind:
            case ConditionKind.AFTER:
                return self.starts
            case ConditionKind.AFTERCORR:
                return self.tasks
            case _:
                return self.ends

    # ── What happens to others ──────────────────────────────────────────────────────────────────────────────────────

    def note_start(self, job_id: int) -> None:
        for waiting in self.starts.get(job_id, ()):
            self.stir_for(waiting, job_id)

    def note_tasks(self, job_id: int, indices: Iterable[int]) -> None:
        """Tasks of the job have ended for good, or some of these have."""
        for waiting in self.tasks.get(job_id, ()):
            stir = self._stir(waiting)
            if stir is not None:
                stir.tasks.setdefault(job_id, {}).update(dict.fromkeys(indices))

    def note_sweep(self, job_id: int) -> None:
        """All tasks of the job that waited have ended."""
        for waiting in self.tasks.get(job_id, ()):
            self.stir(waiting)

    def note_end(self, job_id: int, key: NameKey) -> None:
        for table in (self.starts, self.ends, self.tasks):
            for waiting in table.get(job_id, ()):
                self.stir_for(waiting, job_id)
        self.names.drop(key, job_id)
        if key in self.singletons and (first := self.names.first(key)) in self.singletons[key]:
            self.stir_for(first, ITS_NAME)

    def stir(self, job_id: int) -> None:
        """Have a job that waits looked at, with everything that it waits for."""
        self.stirred[job_id] = None

    def stir_for(self, job_id: int, other: int) -> None:
        """Have it looked at what a job waits for of another, but for its tasks one by one."""
        stir = self._stir(job_id)
        if stir is not None:
            stir.others[other] = None

    def _stir(self, job_id: int) -> Stir | None:
        if job_id not in self.stirred:
            self.stirred[job_id] = Stir()
        return self.stirred[job_id]

    def drop_timer(self) -> None:
        del self._timed[heapq.heappop(self.timers)]

    def waiting_for(self, job_id: int) -> Iterator[int]:
        """Who waits for anything of this job."""
        yield from dict.fromkeys(
            waiting for table in (self.starts, self.ends, self.tasks) for waiting in table.get(job_id, ())
        )


def _discard(table: dict[_K, dict[int, None]], key: _K, job_id: int) -> None:
    of_key = table.get(key)
    if of_key is not None and job_id in of_key:
        del of_key[job_id]
        if not of_key:
            del table[key]
