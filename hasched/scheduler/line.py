"""The line: who is tried next.

Jobs stand in classes (one rank group, one shape), classes with their shape, and shapes in line, each by the rank of the first
within. A shape that fits nowhere stands aside with all its classes: ten thousand classes of it cost nothing then. Those aside
stand in order, too, but for the hopeless, which no node could hold: whoever asks for the first few pays for a few.

A rank that has become larger since it was noted is found out when its class is first: nobody is passed by that, and what many
classes have in common may change at no cost. One that has become smaller has to be told (`rerank`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from hasched.model.ids import JobId
from hasched.scheduler.order import Account, Rank, RankGroup
from hasched.scheduler.shapes import Shape

MOST_MOVES = 100  # classes that are put where they belong in one look, for a slice must not be long
MOVE_LOOKS = 16  # as many looks at nodes one of them costs
MOST_STALE = 64  # entries of the order of those aside, beyond twice as many as are true, before it is made anew

Ranker: TypeAlias = Callable[[RankGroup, JobId], Rank]


class ClassKey(NamedTuple):
    group: RankGroup
    shape: Shape


class WaitingClass:
    """The jobs of one class, by id. `rank` is None while it stands nowhere; `tried`: it was taken out of the line."""

    __slots__ = ("_heap", "_members", "group", "number", "rank", "shape", "tried")

    def __init__(self, key: ClassKey, number: int) -> None:
        self.number = number  # decides nothing, but makes entries of a heap comparable
        self.group = key.group
        self.shape = key.shape
        self.rank: Rank | None = None
        self.tried = False
        self._heap: list[JobId] = []
        self._members: dict[JobId, None] = {}

    def add(self, job_id: JobId) -> bool:
        """Whether it is the first of them now."""
        if job_id in self._members:
            return False
        self._members[job_id] = None
        heapq.heappush(self._heap, job_id)
        return self._heap[0] == job_id

    def __lt__(self, other: WaitingClass) -> bool:
        """Of two with one rank only one has it still, so it doesn't matter which a heap has first."""
        return False

    @property
    def first(self) -> JobId | None:
        return self._heap[0] if self._heap else None

    def drop_first(self) -> None:
        del self._members[heapq.heappop(self._heap)]

    def drop(self, job_id: JobId) -> None:
        """One that is mostly the first, but others may have come before it."""
        if self.first == job_id:
            self.drop_first()
        elif job_id in self._members:
            del self._members[job_id]
            self._heap = list(self._members)
            heapq.heapify(self._heap)

    def firsts(self, most: int) -> list[JobId]:
        """The first few, in order."""
        heap, found = self._heap, list[JobId]()
        fringe = [(heap[0], 0)] if heap else []
        while fringe and len(found) < most:
            job_id, at = heapq.heappop(fringe)
            found.append(job_id)
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heapq.heappush(fringe, (heap[child], child))
        return found


class ShapeQueue:
    """The classes of one shape. `aside`: nothing of it fits anywhere. `hopeless`: nor will it, as nodes and relations are."""

    __slots__ = ("aside", "classes", "heap", "hopeless", "number", "rank", "shape")

    def __init__(self, shape: Shape, number: int) -> None:
        self.number = number
        self.shape = shape
        self.classes = 0
        self.heap: list[tuple[Rank, int, WaitingClass]] = []  # may hold ranks that are not true any more
        self.rank: Rank | None = None  # its place in line, or among those aside
        self.aside = False
        self.hopeless = False

    def __lt__(self, other: ShapeQueue) -> bool:
        """Of two with one rank only one has it still, so it doesn't matter which a heap has first."""
        return False

    def best(self) -> tuple[Rank, WaitingClass] | None:
        heap = self.heap
        while heap:
            rank, _, waiting = heap[0]
            if waiting.rank == rank:
                return rank, waiting
            heapq.heappop(heap)
        return None


class Line:
    """`forget_shape` is called when nothing of a shape waits any more."""

    def __init__(self, ranker: Ranker, forget_shape: Callable[[Shape], None]) -> None:
        self._ranker = ranker
        self._forget_shape = forget_shape
        self._classes: dict[ClassKey, WaitingClass] = {}
        self._of_account: dict[Account, dict[WaitingClass, None]] = {}
        self._queues: dict[Shape, ShapeQueue] = {}
        self._line: list[tuple[Rank, int, ShapeQueue]] = []
        self._made = 0
        self._stale: dict[WaitingClass, None] = {}  # whose rank is to be looked at again
        self.looks = 0  # that its order has cost, since somebody last set it to 0
        self.version = 0  # rises whenever who stands aside, or in what order, may be another
        self.aside: dict[Shape, None] = {}
        self._in_order: list[tuple[Rank, int, ShapeQueue]] = []  # those aside, but for the hopeless
        self._hopeless: dict[Shape, None] = {}

    def add(self, group: RankGroup, shape: Shape, job_id: JobId) -> bool:
        """Whether it wasn't there and now stands first of a shape that stands aside."""
        key = ClassKey(group, shape)
        waiting = self._classes.get(key)
        if waiting is None:
            self._made += 1
            waiting = self._classes[key] = WaitingClass(key, self._made)
            self._of_account.setdefault(group.account, {})[waiting] = None
            queue = self._queues.get(shape)
            if queue is None:
                queue = self._queues[shape] = ShapeQueue(shape, self._made)
            queue.classes += 1
        if not waiting.add(job_id) or waiting.tried:
            return False
        self.enter(waiting)
        return self._leads_aside(shape, job_id)

    def enter(self, waiting: WaitingClass) -> None:
        """Put a class where its first job belongs; an empty one is forgotten."""
        first = waiting.first
        waiting.tried = False
        queue = self._queues[waiting.shape]
        if first is None:
            self._drop(waiting, queue)
            return
        rank = self._ranker(waiting.group, first)
        if waiting.rank != rank:
            waiting.rank = rank
            heapq.heappush(queue.heap, (rank, waiting.number, waiting))
        self._line_up(queue)

    def rerank(self, accounts: Iterable[Account] | None) -> None:
        """The ranks of these accounts' classes have changed; None: of all. They are looked at by `settle`."""
        for account in self._of_account if accounts is None else accounts:
            self._stale.update(self._of_account.get(account, {}))

    def settle(self) -> None:
        """Put some of those where they belong of which the rank has changed."""
        for _ in range(min(MOST_MOVES, len(self._stale))):
            waiting, _ = self._stale.popitem()
            self.looks += MOVE_LOOKS
            if waiting.rank is not None:
                self.enter(waiting)

    @property
    def settled(self) -> bool:
        return not self._stale

    def _drop(self, waiting: WaitingClass, queue: ShapeQueue) -> None:
        waiting.rank = None
        self._stale.pop(waiting, None)
        del self._classes[ClassKey(waiting.group, waiting.shape)]
        of_account = self._of_account[waiting.group.account]
        del of_account[waiting]
        if not of_account:
            del self._of_account[waiting.group.account]
        queue.classes -= 1
        self.version += queue.aside
        if queue.classes:
            self._line_up(queue)
            return
        queue.rank = None
        del self._queues[queue.shape]
        self.aside.pop(queue.shape, None)
        self._hopeless.pop(queue.shape, None)
        self._forget_shape(queue.shape)

    def _line_up(self, queue: ShapeQueue) -> None:
        """Give a shape its place in line, or among those aside."""
        best = queue.best()
        rank = best[0] if best is not None and not queue.hopeless else None
        if queue.rank == rank:
            return
        queue.rank = rank
        self.version += queue.aside
        if rank is None:
            return
        if not queue.aside:
            heapq.heappush(self._line, (rank, queue.number, queue))
            return
        heapq.heappush(self._in_order, (rank, queue.number, queue))
        if len(self._in_order) > 2 * len(self.aside) + MOST_STALE:
            queues = map(self._queues.__getitem__, self.aside)
            self._in_order = [(each.rank, each.number, each) for each in queues if each.rank is not None]
            heapq.heapify(self._in_order)

    def _first(self) -> ShapeQueue | None:
        """Whoever is first: in truth, but for one whose rank has grown while that of too many others had to be put right."""
        line, moves = self._line, 0
        while line:
            rank, _, queue = line[0]
            if queue.rank == rank and not queue.aside:
                if (best := queue.best()) is not None and best[0] == rank:
                    waiting = queue.heap[0][2]
                    assert waiting.first is not None, "an empty class stands nowhere"
                    now = self._ranker(waiting.group, waiting.first)
                    if now == rank or moves == MOST_MOVES:
                        return queue
                    moves += 1
                    self.looks += MOVE_LOOKS
                    waiting.rank = now
                    heapq.heapreplace(queue.heap, (now, waiting.number, waiting))
                heapq.heappop(line)
                queue.rank = None
                self._line_up(queue)
            else:
                heapq.heappop(line)
        return None

    def next(self) -> WaitingClass | None:
        """Take the first class out of the line; `enter` puts it back."""
        queue = self._first()
        if queue is None:
            return None
        heapq.heappop(self._line)
        queue.rank = None
        _, _, waiting = heapq.heappop(queue.heap)
        waiting.rank = None
        waiting.tried = True
        self._line_up(queue)
        return waiting

    def is_next(self, waiting: WaitingClass) -> bool:
        """Whether a class that is out of line would come first if it entered now."""
        first = waiting.first
        if first is None:
            return False
        ahead = self._first()
        return ahead is None or ahead.rank is None or self._ranker(waiting.group, first) < ahead.rank

    def set_aside(self, waiting: WaitingClass) -> None:
        """It fits nowhere, and so does nothing else of its shape: don't try them again before they are called back."""
        self.stand_aside(waiting)
        self.enter(waiting)

    def stand_aside(self, waiting: WaitingClass) -> None:
        """The same, before the class is entered again."""
        queue = self._queues[waiting.shape]
        queue.aside = True
        queue.rank = None
        self.aside[waiting.shape] = None
        self._line_up(queue)

    def call_back(self, shape: Shape) -> None:
        """It may fit somewhere again."""
        del self.aside[shape]
        self.version += 1
        self._hopeless.pop(shape, None)
        queue = self._queues[shape]
        queue.aside = queue.hopeless = False
        queue.rank = None
        self._line_up(queue)

    def give_up_hope(self, shape: Shape) -> None:
        """No node could hold what stands aside: it isn't `blocked` before there is hope again."""
        self._hopeless[shape] = None
        queue = self._queues[shape]
        queue.hopeless = True
        self._line_up(queue)

    def give_hope(self, shapes: Iterable[Shape] | None = None) -> None:
        """To these, or to all."""
        for shape in list(self._hopeless) if shapes is None else shapes:
            if shape in self._hopeless:
                del self._hopeless[shape]
                queue = self._queues[shape]
                queue.hopeless = False
                self._line_up(queue)

    def rank_of_class(self, waiting: WaitingClass) -> Rank:
        """The place of a class that was taken out of the line, and isn't empty."""
        first = waiting.first
        assert first is not None, "an empty class has no place"
        return self._ranker(waiting.group, first)

    @property
    def first_rank(self) -> Rank | None:
        """That of whoever is next."""
        queue = self._first()
        return queue.rank if queue is not None else None

    def rank_of(self, shape: Shape) -> Rank | None:
        """That of the first of its classes that isn't being tried."""
        best = self._queues[shape].best()
        return best[0] if best is not None else None

    def first_class(self, shape: Shape) -> WaitingClass | None:
        """The class of the first job of a shape."""
        best = self._queues[shape].best()
        return best[1] if best is not None else None

    def firsts(self, shape: Shape, most: int) -> list[JobId]:
        """The first few jobs of the first class of a shape."""
        queue = self._queues.get(shape)
        best = queue.best() if queue is not None else None
        return best[1].firsts(most) if best is not None else []

    def _leads_aside(self, shape: Shape, job_id: JobId) -> bool:
        if shape not in self.aside:
            return False
        best = self._queues[shape].best()
        return best is not None and best[1].first == job_id

    def blocked(self, most: int) -> list[tuple[Rank, Shape, JobId]]:
        """The first few shapes that stand aside and aren't hopeless, each with its first job, in order."""
        heap, found = self._in_order, list[tuple[Rank, Shape, JobId]]()
        entries: list[tuple[Rank, int, ShapeQueue]] = []
        while heap and len(found) < most:
            entry = heapq.heappop(heap)
            rank, _, queue = entry
            if queue.rank != rank or not queue.aside or (entries and entries[-1][2] is queue):
                continue
            best = queue.best()
            assert best is not None and best[1].first is not None, "an empty class stands nowhere"
            entries.append(entry)
            found.append((rank, queue.shape, best[1].first))
        for entry in entries:
            heapq.heappush(heap, entry)
        return found

    def __len__(self) -> int:
        """How many classes there are, wherever they stand."""
        return len(self._classes)

    def __bool__(self) -> bool:
        return self._first() is not None
