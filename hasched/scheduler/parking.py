"""Parking: jobs that a gate holds back, by what they wait for."""

from __future__ import annotations

import heapq
from collections.abc import Hashable

from hasched.model.ids import JobId
from hasched.scheduler.keys import Key
from hasched.statemachine.job import Job

LET_THROUGH = 8  # of one key at a time


class Parking:
    """When a channel opens, the jobs of each of its keys are let through, few at a time, until one is held back again."""

    def __init__(self) -> None:
        self._keys: dict[JobId, Key] = {}
        self._waiting: dict[Hashable, dict[Key, list[tuple[int, JobId]]]] = {}  # heaps by priority and age
        self._open: dict[Key, None] = {}

    def park(self, job: Job, key: Key) -> None:
        """It was tried and held back: so is all else that waits for the same."""
        self._open.pop(key, None)
        if self._keys.get(job.id) == key:
            return
        self._keys[job.id] = key
        heapq.heappush(self._waiting.setdefault(key.channel, {}).setdefault(key, []), (-job.priority, job.id))

    def open(self, channel: Hashable) -> None:
        keys = self._waiting.get(channel)
        if keys is not None:
            self._open.update(dict.fromkeys(keys))

    def forget(self, job_id: JobId) -> None:
        """The job has ended."""
        key = self._keys.pop(job_id, None)
        if key is None:
            return
        waiting = self._waiting[key.channel][key]
        if len(waiting) == 1:
            self._drop(key)

    def let_through(self) -> list[JobId]:
        """Some of the jobs whose key is open."""
        found: list[JobId] = []
        for key in list(self._open):
            waiting = self._waiting[key.channel][key]
            most = len(found) + LET_THROUGH
            while waiting and len(found) < most:
                _, job_id = heapq.heappop(waiting)
                if self._keys.get(job_id) == key:
                    del self._keys[job_id]
                    found.append(job_id)
            if not waiting:
                self._drop(key)
        return found

    def _drop(self, key: Key) -> None:
        keys = self._waiting[key.channel]
        del keys[key]
        if not keys:
            del self._waiting[key.channel]
        self._open.pop(key, None)

    def __bool__(self) -> bool:
        """Whether any key is open."""
        return bool(self._open)
