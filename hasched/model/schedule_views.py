"""What the API shows of schedules. Times are ms since the epoch, 0: none."""

from __future__ import annotations

import msgspec

from hasched.model.schedule import ScheduleSpec


class _View(msgspec.Struct, frozen=True, kw_only=True):
    pass


class SlotView(_View, frozen=True):
    """A slot, or `count` in a row that were skipped for one reason, `step_ms` apart.

    `outcome` is fired, caught_up or backfilled, then there is a job; paused, overlap, queue_full, replaced, blackout, holiday,
    missed or refused; or waiting (for the end of an earlier run) or planned.
    """

    slot_ms: int
    local: str  # as the schedule's clock shows it
    outcome: str
    count: int = 1
    step_ms: int = 0
    settled_ms: int = 0
    job_id: int | None = None
    job_state: str = ""  # empty where the job is forgotten
    execution_id: int | None = None  # of a schedule with a workflow, as long as the execution is there
    execution_state: str = ""


class SlotPage(_View, frozen=True):
    """`waiting` and `planned` slots, and then what became of the latest."""

    planned: list[SlotView]
    slots: list[SlotView]


class PreviewSlot(_View, frozen=True):
    """A slot that will be due. It is fired at `fire_ms`, unless `skipped` says blackout or holiday."""

    slot_ms: int
    local: str
    fire_ms: int
    skipped: str = ""


class Preview(_View, frozen=True):
    slots: list[PreviewSlot]
    warnings: list[str] = []
    zone_data: str = ""  # the version of the zone data that this was worked out with


class PauseView(_View, frozen=True):
    actor: str
    reason: str
    since_ms: int


class ScheduleView(_View, frozen=True):
    """A schedule. `state` is active, paused, or over where no slot is to come."""

    name: str
    state: str
    when: str  # `cron 30 2 * * *`, `every 15m` or `at 3 times`
    timezone: str
    namespace: str
    actor: str  # who put it last: its jobs are his
    created_ms: int
    changed_ms: int
    log_index: int  # of the entry that put it last
    next_ms: int = 0
    next_local: str = ""
    running: list[int] = []  # its jobs that have not ended, the latest 100
    executions: list[int] = []  # likewise of a schedule with a workflow
    waiting: int = 0  # slots that wait for an earlier run
    counts: dict[str, int] = {}  # slots by outcome, zeros left out
    last: SlotView | None = None
    succeeded_ms: int = 0  # when a run succeeded last
    alerts: list[str] = []
    pause: PauseView | None = None
    refusal: str = ""  # why a slot was refused last
    description: str = ""
    warnings: list[str] = []  # of the linter, when it was put
    spec: ScheduleSpec | None = None  # only where one schedule is shown


class SchedulePage(_View, frozen=True):
    schedules: list[ScheduleView]
    next_cursor: str = ""


class BackfillView(_View, frozen=True):
    """The slots that were asked for, without those that are settled, waiting or fired already."""

    slots: list[PreviewSlot]
    dry_run: bool = False
