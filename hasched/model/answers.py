"""What the answers show: forecasts, plans, explanations, comparisons, what there is. As in `views.py`, for API, clients and CLI.

Times are milliseconds since the epoch (0: not known), sizes bytes, CPU thousandths of a core.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hasched.model.spec import Resources
from hasched.model.views import EstimateView, Reason

HORIZON_MS = 7 * 24 * 3600 * 1000  # nobody looks farther ahead


class _View(msgspec.Struct, frozen=True, kw_only=True):
    pass


class JobForecast(_View, frozen=True):
    """When the tasks of a job that wait now start, if all goes as assumed.

    `basis` is what its own duration rests on: `history`, `time_limit` or `unknown`. `reason`: why not all of them start within
    the horizon.
    """

    job_id: int
    name: str
    waiting: int  # tasks that waited when the forecast began, or had to start again
    starting: int  # those of them that start within the horizon
    start_ms: int = 0  # the first
    last_start_ms: int = 0  # the last, once all have started
    end_ms: int = 0  # when the last will have ended
    nodes: list[str] = []  # where the first ones start, at most ten
    basis: str = "unknown"
    reason: Reason | None = None
    endless: int = 0  # running tasks of which nobody knows when they end, where not all of it starts


class Forecast(_View, frozen=True):
    """`endless`: running tasks without a time limit and without history; the forecast never ends them."""

    log_index: int  # of the state that it begins with
    now_ms: int
    until_ms: int
    jobs: list[JobForecast]
    endless: int = 0
    cut_short: bool = False  # it grew too long and was ended before the horizon


class ChangeView(_View, frozen=True):
    """The smallest change that lifts a blocker: `value` at `key` of a `job`, `node` or `policy`, or a `time` to wait for."""

    text: str
    target: str
    key: str = ""
    value: Any = None


class BlockerView(_View, frozen=True):
    """One reason why a task doesn't start. `nodes`: how many nodes it rules out; 0: it isn't about nodes."""

    code: str
    text: str
    doc: str  # the section of docs/reasons.md
    nodes: int = 0
    change: ChangeView | None = None


class RemedyView(_View, frozen=True):
    """Changes that, all together and nothing else, would start a task now; `nodes`: on so many nodes.

    `shared`: they make room for every job and not for this one alone, so jobs that come before it may take the room first.
    """

    text: str
    nodes: int
    changes: list[ChangeView]
    shared: bool = False


class PlannedPlacement(_View, frozen=True):
    node_id: str
    tasks: int


class Preempted(_View, frozen=True):
    job_id: int
    task_index: int
    node_id: str


class PlannedJob(_View, frozen=True):
    """What would come of one job: `refused` at submission, or so many of its tasks at once and the others later."""

    name: str
    tasks: int
    starting_now: int = 0
    placements: list[PlannedPlacement] = []  # of those that start now
    preempts: list[Preempted] = []
    later: JobForecast | None = None  # of the tasks that wait
    refused: Reason | None = None
    remedies: list[RemedyView] = []  # what would start one more task now
    cost: EstimateView | None = None  # by the prices of now; None where there are none


class Plan(_View, frozen=True):
    """`check_index` goes with a submission that is to hold only while this plan does."""

    check_index: int
    now_ms: int
    until_ms: int
    jobs: list[PlannedJob]


class NodeClassView(_View, frozen=True):
    """Nodes alike in inventory, pool, taints, GPUs and state; what keeps the task from them, each with how many of them."""

    nodes: int
    description: str  # `healthy, pool gpu`
    total: Resources  # of one of them
    examples: list[str]  # some of them by name
    open: int  # so many would take a task now
    blockers: list[BlockerView] = []


class Why(_View, frozen=True):
    """Everything that keeps a job's waiting tasks from starting.

    `blockers` are about the job, its owners and the cluster as a whole; what each class of nodes lacks stands in `classes`. Of
    `remedies` each alone is enough, the smallest first. `ahead`: jobs with waiting tasks that come before it in the order.
    """

    job_id: int
    name: str
    log_index: int
    waiting: int  # tasks
    blockers: list[BlockerView] = []
    classes: list[NodeClassView] = []
    remedies: list[RemedyView] = []
    ahead: int = 0
    forecast: JobForecast | None = None  # None: it was not asked for, or isn't ready


class Comparison(_View, frozen=True):
    """One job in two forecasts: as things are, and as they would be. `change_ms` is None where one of the starts isn't known.

    A job of which nothing waits is there once tasks of it would have to make room and start again.
    """

    job_id: int
    name: str
    now: JobForecast | None  # None: it isn't there, or nothing of it waits
    then: JobForecast | None
    change_ms: int | None = None
    runs: bool = False  # now, and as things are it would go on


class WhatIf(_View, frozen=True):
    log_index: int
    now_ms: int
    until_ms: int
    changes: list[str]  # what was assumed, in words
    jobs: list[Comparison]
    unchanged: int  # jobs that start when they would anyhow, and are left out
    lost: int = 0  # running tasks that the changes end or move


class ResourceLine(_View, frozen=True):
    """One resource of a group of nodes: total = allocated + held + unusable + free.

    `held`: free on nodes that a reservation or maintenance keeps now. `unusable`: free on nodes that take no work. `largest`:
    the most that is free on one node; `fragmented_percent`: so much of what is free lies elsewhere.
    """

    resource: str  # cpu, memory, disk, gpus, or a countable's name
    total: int
    allocated: int
    held: int
    unusable: int
    free: int
    largest: int
    fragmented_percent: int


class ResourceGroup(_View, frozen=True):
    """`largest_task`: what one node has free, the one with the most GPUs, then CPU, then memory; it would start now."""

    name: str
    nodes: int
    usable: int  # nodes that take work
    resources: list[ResourceLine]
    largest_task: Resources | None = None


class ResourcesView(_View, frozen=True):
    log_index: int
    by: str
    groups: list[ResourceGroup]
