"""Ahead: how many jobs with waiting tasks come before one, told without a look at each of them.

Their ids are kept by rank group, sorted: within a group the smaller id always comes first. So a group costs one or two looks,
and the one or few in which the place lies a binary search.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator

from hasched.model.ids import JobId
from hasched.scheduler.order import Account, Rank, RankGroup, group_of
from hasched.statemachine.job import Job
from hasched.statemachine.state import State

BLOCK = 512  # ids in a block at most, before it is cut in two
GROUPS_A_STEP = 500  # that are counted before others have their turn


class Ids:
    """A sorted list, cut into blocks."""

    __slots__ = ("_blocks", "_firsts", "_size")

    def __init__(self) -> None:
        self._blocks: list[list[JobId]] = []
        self._firsts: list[JobId] = []
        self._size = 0

    def add(self, job_id: JobId) -> None:
        """If it isn't there."""
        if not self._blocks:
            self._blocks.append([])
            self._firsts.append(job_id)
        at = max(bisect_right(self._firsts, job_id) - 1, 0)
        block = self._blocks[at]
        place = bisect_left(block, job_id)
        if place < len(block) and block[place] == job_id:
            return
        insort(block, job_id)
        self._size += 1
        self._firsts[at] = block[0]
        if len(block) > BLOCK:
            half = len(block) // 2
            self._blocks[at : at + 1] = [block[:half], block[half:]]
            self._firsts.insert(at + 1, block[half])

    def drop(self, job_id: JobId) -> None:
        """If it is there."""
        at = bisect_right(self._firsts, job_id) - 1
        if at < 0:
            return
        block = self._blocks[at]
        place = bisect_left(block, job_id)
        if place == len(block) or block[place] != job_id:
            return
        del block[place]
        self._size -= 1
        if block:
            self._firsts[at] = block[0]
        else:
            del self._blocks[at], self._firsts[at]

    @property
    def first(self) -> JobId:
        return self._firsts[0]

    @property
    def last(self) -> JobId:
        return self._blocks[-1][-1]

    def count_until(self, is_before: Callable[[JobId], bool]) -> int:
        """How many there are until the first of which it isn't true."""
        at = bisect_left(self._firsts, True, key=lambda job_id: not is_before(job_id))
        if not at:
            return 0
        block = self._blocks[at - 1]
        return sum(map(len, self._blocks[: at - 1])) + bisect_left(block, True, key=lambda each: not is_before(each))

    def __len__(self) -> int:
        return self._size


class Ahead:
    def __init__(self, rank: Callable[[RankGroup, JobId], Rank]) -> None:
        self._rank = rank
        self._groups: dict[RankGroup, Ids] = {}
        self._of_account: dict[Account, dict[RankGroup, None]] = {}

    def see(self, state: State, job_id: JobId, *, started: bool = False) -> None:
        """Something has happened to the job. `started`: tasks of it have started, and nothing else."""
        job = state.jobs.get(job_id)
        if job is None or (started and job.eligible):  # then some waited before, too
            return
        group = group_of(job)
        if job.eligible and not job.ended:
            ids = self._groups.get(group)
            if ids is None:
                ids = self._groups[group] = Ids()
                self._of_account.setdefault(group.account, {})[group] = None
            ids.add(job_id)
        elif group in self._groups:
            self._drop(group, job_id)

    def move(self, state: State, job_id: JobId) -> None:
        """The job may be of another group now."""
        job = state.jobs.get(job_id)
        if job is not None:
            for group in list(self._of_account.get(group_of(job).account, ())):
                self._drop(group, job_id)
            self.see(state, job_id)

    def _drop(self, group: RankGroup, job_id: JobId) -> None:
        ids = self._groups[group]
        ids.drop(job_id)
        if not ids:
            del self._groups[group]
            groups = self._of_account[group.account]
            del groups[group]
            if not groups:
                del self._of_account[group.account]

    def count(self, job: Job) -> Iterator[int]:
        """How many come before it, so far; the last number is the whole. What happens between two steps may be missed."""
        mine = self._rank(group_of(job), job.id)
        ahead = 0
        for number, group in enumerate(list(self._groups), 1):
            ids = self._groups.get(group)
            if ids is not None and self._rank(group, ids.first) < mine:
                ahead += self._before(group, ids, mine)
            if not number % GROUPS_A_STEP:
                yield ahead
        yield ahead

    def _before(self, group: RankGroup, ids: Ids, mine: Rank) -> int:
        if self._rank(group, ids.last) < mine:
            return len(ids)
        return ids.count_until(lambda job_id: self._rank(group, job_id) < mine)
