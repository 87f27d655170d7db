"""The gate of quotas and caps: no more tasks of a job than its account's quotas, the caps and its semaphores leave room for.

What is on its way isn't in the state yet. So the gate keeps a mirror of the state's limits in which it counts as used; the
mirror is brought up to date when the state's has changed, which costs a look at each quota, not at any job. A job that is
held back waits on the one limit that leaves the least, and is looked at again when something gives that limit back. A job
with alternatives may start by any that is within the limits; one that is on its way counts as the most that it may be.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

from hasched.model.ids import JobId
from hasched.model.policy import PolicyKind
from hasched.model.reasons import ReasonCode
from hasched.model.spec import Resources
from hasched.scheduler.blockers import Blocker, Change, Target
from hasched.scheduler.keys import Key
from hasched.statemachine.events import AttemptEnded, Event, PolicyChanged, PolicyDeleted, TasksScheduled, WeekBegan
from hasched.statemachine.job import Job
from hasched.statemachine.limits import Limits
from hasched.statemachine.quotas import RUNNING_JOBS
from hasched.statemachine.rules.gangs import requests_of
from hasched.statemachine.running import Running
from hasched.statemachine.shortages import Shortage, find_shortages
from hasched.statemachine.state import LIMITING, State
from hasched.statemachine.usage import group_of, limited_request

ANY_LIMIT = ("limits", "any")  # a channel that is open when any limit has changed


class LimitGate:
    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._mirror = Limits(Running())
        self._seen = (-1, -1)  # epoch and version of the state's limits that the mirror has
        self._on_their_way: dict[JobId, tuple[Job, int]] = {}
        self._channels: dict[Hashable, None] = {}  # that jobs may be waiting on
        self._returned: dict[Hashable, None] = {}  # of what was on its way and isn't any more

    def rebuild(self, state: State) -> None:
        self._forget()

    # What may start

    def allowed(self, state: State, job: Job, asked: int) -> int:
        if not _is_limited(state, job):
            return asked
        self._follow(state)
        starts_job = not job.active and job.id not in self._on_their_way
        if job.gang is not None and job.gang.groups:
            wanted = list(requests_of(job, tuple(range(asked))))
            return asked if self._mirror.fit(group_of(job), wanted, starts_job, state.now_ms) else 0
        group = group_of(job)
        return max(self._mirror.room(group, each, asked, starts_job, state.now_ms) for each in requests_by_choice(job))

    def room_by_choice(self, state: State, job: Job, asked: int) -> tuple[int, ...] | None:
        """The same for each of its alternatives; None: they don't matter."""
        if job.placement is None or len(job.placement.any_of) < 2 or not _is_limited(state, job):
            return None
        self._follow(state)
        group, starts_job = group_of(job), not job.active and job.id not in self._on_their_way
        return tuple(
            self._mirror.room(group, each, asked, starts_job, state.now_ms) for each in requests_by_choice(job)
        )

    def _follow(self, state: State) -> None:
        limits = state.usage.limits
        if self._seen == (limits.epoch, limits.version):
            return
        if self._seen[0] != limits.epoch:
            self._mirror = limits.blank()
        self._seen = (limits.epoch, limits.version)
        self._mirror.copy_use(limits)
        for job, tasks in self._on_their_way.values():
            self._use(job, tasks, not job.active)

    def _use(self, job: Job, tasks: int, starts_job: bool) -> None:
        self._mirror.hold(group_of(job), limited_request(job), tasks)
        if starts_job:
            self._mirror.count(job.counted_as, RUNNING_JOBS, 1)

    def take(self, state: State, job: Job, tasks: int) -> None:
        if not self._on_their_way and not _is_limited(state, job):
            return
        _, before = self._on_their_way.get(job.id, (job, 0))
        if tasks > 0 and _is_limited(state, job):
            self._follow(state)
            self._on_their_way[job.id] = (job, before + tasks)
            self._use(job, tasks, not before and not job.active)
        elif tasks < 0 and before:
            if before + tasks > 0:
                self._on_their_way[job.id] = (job, before + tasks)
            else:
                del self._on_their_way[job.id]
            self._seen = (self._seen[0], -1)
            self._returned.update(dict.fromkeys((ANY_LIMIT, *_channels_of(state, job))))

    # Who waits for what

    def key(self, state: State, job: Job) -> Key:
        self._follow(state)
        group = group_of(job)
        starts_job = not job.active and job.id not in self._on_their_way
        requests = requests_by_choice(job)
        channel: Hashable = ANY_LIMIT  # of several alternatives each may lack something else
        if len(requests) == 1:
            channel = self._mirror.tightest(group, requests[0], starts_job, state.now_ms)
        self._channels[channel] = None
        quotas = tuple(node.key for node in self._mirror.quotas_of(job.counted_as))
        caps = tuple((cap.key, units) for cap, units in self._mirror.caps_of(group))
        return Key(channel, (quotas, caps, requests, job.gang, starts_job))

    def opened(self, state: State, event: Event) -> Iterable[Hashable]:
        if not self._channels and not self._returned:
            return ()
        match event:
            case AttemptEnded():
                job = state.jobs.get(event.job_id)
                return [ANY_LIMIT, *_channels_of(state, job)] if job is not None else list(self._channels)
            case PolicyChanged() | PolicyDeleted() if event.kind in LIMITING:
                return self._all_channels()
            case WeekBegan():
                return self._all_channels()
            case TasksScheduled():
                self._returned.clear()  # it has become use, and of alternatives maybe less than was counted
                return (ANY_LIMIT,)
        return ()

    def _all_channels(self) -> list[Hashable]:
        channels = list(self._channels)
        self._channels.clear()
        return channels

    def given_back(self) -> list[Hashable]:
        """The channels that may be open since something that was on its way was refused."""
        channels = list(self._returned)
        self._returned.clear()
        return channels

    # Why it waits

    def blockers(self, state: State, job: Job) -> list[Blocker]:
        if not _is_limited(state, job):
            return []
        return [blocker_of(short) for short in shortages_of(state, job)]


def shortages_of(state: State, job: Job) -> Iterator[Shortage]:
    """Every limit that keeps the next task of the job, or all that start together, from starting now, whatever is on its way.

    Of alternatives that are all kept back, those of the one that lacks the least.
    """
    least = max(job.floor, 1) if job.starts_together else 1
    wanted = [[(request, least)] for request in requests_by_choice(job)]
    if job.gang is not None and job.gang.groups:
        wanted = [list(requests_of(job, tuple(range(least))))]
    limits, group = state.usage.limits, group_of(job)
    found: list[list[Shortage]] = []
    for each in wanted:
        found.append(list(find_shortages(limits, group, each, not job.active, state.now_ms)))
    least_lacking = min(found, key=len)
    return iter(least_lacking)


def open_choices(state: State, job: Job) -> list[int]:
    """By which of its alternatives the limits let a task of the job start; all of them where they let it by none."""
    requests, limits = requests_by_choice(job), state.usage.limits
    every = list(range(len(requests)))
    if len(every) < 2 or not _is_limited(state, job):
        return every
    group, starts_job = group_of(job), not job.active
    return [n for n in every if limits.room(group, requests[n], 1, starts_job, state.now_ms) > 0] or every


def requests_by_choice(job: Job) -> tuple[Resources, ...]:
    """What a task may be placed by."""
    return (job.placement.any_of if job.placement is not None else ()) or (job.resources,)


def blocker_of(short: Shortage) -> Blocker:
    """A limit that is used up, with the smallest change of it that would let one more task start."""
    code = ReasonCode.QUOTA
    if short.kind is PolicyKind.CAP:
        code = ReasonCode.SEMAPHORE if short.semaphore else ReasonCode.CAP
    key = f"{short.kind}/{short.name}.{short.key}"
    value = short.raised
    return Blocker(code, short.text, change=Change(f"raise {key} to {value}", Target.POLICY, key, value))


def _is_limited(state: State, job: Job) -> bool:
    limits = state.usage.limits
    return limits.any_quotas or limits.any_caps or job.semaphores is not None


def _channels_of(state: State, job: Job) -> Iterator[Hashable]:
    """What a task of the job gives back to when it ends."""
    limits = state.usage.limits
    if limits.any_quotas:
        for node in limits.quotas_of(job.counted_as):
            yield from (("quota", *each.key) for each in node.chain)
    if limits.any_caps:
        yield from (("cap", *cap.key) for cap, _ in limits.caps_of(group_of(job)))
