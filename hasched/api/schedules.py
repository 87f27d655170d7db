"""Schedules: put and deleted whole, paused and resumed; their slots, those to come, and those of the past that are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated

import msgspec
from aiohttp import web

from hasched.api.call import Call, Consistency
from hasched.api.jobs import MAX_JOB_BYTES, ReadOne
from hasched.api.routing import Routes
from hasched.api.workflows import library_of
from hasched.model.errors import BadRequest, NotFound, OutcomeUnknown
from hasched.model.kinds import suggest_name
from hasched.model.schedule import ScheduleSpec, Verdict, gather
from hasched.model.schedule_views import (
    BackfillView,
    Preview,
    SchedulePage,
    ScheduleView,
    SlotPage,
    SlotView,
)
from hasched.model.times import format_time
from hasched.statemachine.commands import (
    BackfillSchedule,
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    ResumeSchedule,
)
from hasched.statemachine.queries.schedules import show_schedule, slot_rows, slots_to_come
from hasched.statemachine.rules.schedules import MAX_BACKFILL
from hasched.statemachine.schedules import MAX_ROWS, Schedule
from hasched.statemachine.state import State
from hasched.timetable.ical import calendar_of
from hasched.timetable.lint import lint
from hasched.timetable.preview import MAX_PREVIEW, describe_when, next_slot, preview, slots_in
from hasched.timetable.slots import local_time
from hasched.timetable.text import parse_schedule
from hasched.timetable.zones import data_version

MAX_PAGE = 500
MAX_IN_FEED = 200  # schedules in one calendar

routes = Routes("schedules")


class ListSchedules(msgspec.Struct, frozen=True, kw_only=True):
    namespace: Annotated[str | None, msgspec.Meta(description="Only of this namespace.")] = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 100
    cursor: Annotated[str, msgspec.Meta(description="`next_cursor` of the page before.")] = ""
    consistency: Consistency = "linearizable"


class ChangeSchedule(msgspec.Struct, frozen=True, kw_only=True):
    if_index: Annotated[
        Annotated[int, msgspec.Meta(ge=0)] | None,
        msgspec.Meta(description="Only if the schedule's `log_index` is still this; 0: only if it is new."),
    ] = None


class PreviewQuery(msgspec.Struct, frozen=True, kw_only=True):
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_PREVIEW)] = 10
    after_ms: Annotated[int, msgspec.Meta(ge=0, description="Slots later than this; by default than now.")] = 0


class SlotsQuery(msgspec.Struct, frozen=True, kw_only=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS, description="So many of the latest rows.")] = 50
    consistency: Consistency = "linearizable"


class PauseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


class BackfillRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Slots from `from_ms` to before `until_ms`. `again`: also those that were fired already."""

    from_ms: Annotated[int, msgspec.Meta(ge=0)]
    until_ms: Annotated[int, msgspec.Meta(ge=0)]
    again: bool = False
    dry_run: bool = False


@routes.add("GET", "/v1/schedules")
async def list_schedules(call: Call, query: ListSchedules) -> SchedulePage:
    """List schedules by name."""
    state = await call.read_state(query.consistency)
    names = sorted(
        name
        for name, schedule in state.schedules.items()
        if name > query.cursor and query.namespace in (None, schedule.spec.namespace)
    )
    shown = [_show(call, state, state.schedules[name], False) for name in names[: query.limit]]
    return SchedulePage(schedules=shown, next_cursor=names[query.limit - 1] if len(names) > query.limit else "")


@routes.add("GET", "/v1/schedules/{name}")
async def show_one(call: Call, name: str, query: ReadOne) -> ScheduleView:
    """Show a schedule."""
    state = await call.read_state(query.consistency)
    return _show(call, state, _find(state, name), True)


@routes.add("PUT", "/v1/schedules/{name}", body_bytes=MAX_JOB_BYTES, document="ScheduleDocument")
async def put_schedule(call: Call, name: str, query: ChangeSchedule, body: bytes) -> ScheduleView:
    """Put a schedule, a new one or in place of what has that name.

    The body is the schedule's document (docs/schedules.md) as JSON. Slots that are due already stay due; what comes later is as
    the new document says. `warnings` is what the linter has found.
    """
    state = await call.read_state("linearizable")
    given, spec = parse_schedule(body, call.context.defaults, library_of(state))
    spec = _with_version(state, spec, body)
    if given != name:
        raise BadRequest(f"the document is of schedule {given}, not of {name[:128]}", "put it under its own name")
    await call.propose(PutSchedule(name=name, spec=spec, actor=call.actor, if_index=query.if_index))
    view = _show(call, call.context.replica.state, _put(call, name), True)
    return msgspec.structs.replace(view, warnings=lint(spec, call.context.now_ms()))


@routes.add("DELETE", "/v1/schedules/{name}", status=204)
async def delete_schedule(call: Call, name: str) -> None:
    """Delete a schedule and its ledger. Its jobs go on."""
    await call.propose(DeleteSchedule(name=name, actor=call.actor))


@routes.add("POST", "/v1/schedules/{name}/pause")
async def pause_schedule(call: Call, name: str, body: PauseRequest) -> ScheduleView:
    """Skip every slot until the schedule is resumed; each is told in the ledger."""
    await call.propose(PauseSchedule(name=name, actor=call.actor, reason=body.reason))
    return _show(call, call.context.replica.state, _put(call, name), True)


@routes.add("POST", "/v1/schedules/{name}/resume")
async def resume_schedule(call: Call, name: str) -> ScheduleView:
    """Fire the slots to come again."""
    await call.propose(ResumeSchedule(name=name, actor=call.actor))
    return _show(call, call.context.replica.state, _put(call, name), True)


@routes.add("GET", "/v1/schedules/{name}/slots")
async def list_slots(call: Call, name: str, query: SlotsQuery) -> SlotPage:
    """What became of the latest slots, the latest first, and which are to come."""
    state = await call.read_state(query.consistency)
    schedule = _find(state, name)
    zone = schedule.spec.timezone
    return SlotPage(
        planned=_localized(slots_to_come(schedule, query.limit), zone),
        slots=_localized(slot_rows(state, schedule, query.limit), zone),
    )


@routes.add("GET", "/v1/schedules/{name}/preview")
async def preview_schedule(call: Call, name: str, query: PreviewQuery) -> Preview:
    """The next slots of a schedule."""
    schedule = _find(await call.read_state("linearizable"), name)
    return _preview(call, name, schedule.spec, schedule.created_ms, query)


@routes.add("POST", "/v1/schedules/preview", body_bytes=MAX_JOB_BYTES, document="ScheduleDocument")
async def preview_document(call: Call, query: PreviewQuery, body: bytes) -> Preview:
    """The next slots of a document, and what the linter finds in it. Nothing is put."""
    name, spec = parse_schedule(body, call.context.defaults)
    return _preview(call, name, spec, call.context.now_ms(), query)


@routes.add("POST", "/v1/schedules/{name}/backfill")
async def backfill_schedule(call: Call, name: str, body: BackfillRequest) -> BackfillView:
    """Fire the slots of a range of the past that were not fired, one after the other unless runs may overlap.

    What the calendar leaves out is left out here, too; what a blackout has skipped is fired.
    """
    state = await call.read_state("linearizable")
    schedule = _find(state, name)
    if body.until_ms <= body.from_ms:
        raise BadRequest("the range is empty", "let `until` be later than `from`")
    if body.from_ms > call.context.now_ms():
        raise BadRequest("the range is not in the past", "slots to come are fired when they are due")
    until_ms = min(body.until_ms, schedule.planned_ms + 1, call.context.now_ms() + 1)
    in_range = slots_in(name, schedule.spec, schedule.created_ms, body.from_ms, until_ms)
    found = (each for each in in_range if each.skipped != Verdict.HOLIDAY.name.lower())
    fired = {row.first_ms: None for row in schedule.ledger() if row.outcome.fired and not body.again}
    taken = {each.slot_ms: None for each in schedule.pending} | {each.slot_ms: None for each in schedule.waiting}
    slots = list(
        islice((each for each in found if each.slot_ms not in fired and each.slot_ms not in taken), MAX_BACKFILL + 1)
    )
    if len(slots) > MAX_BACKFILL:
        last = format_time(slots[MAX_BACKFILL].slot_ms)
        raise BadRequest(f"the range has more than {MAX_BACKFILL} slots", f"end it at {last}, and go on from there")
    if slots and not body.dry_run:
        runs = tuple(gather((each.slot_ms, 0) for each in slots))
        await call.propose(BackfillSchedule(name=name, actor=call.actor, runs=runs, again=body.again))
    return BackfillView(slots=slots, dry_run=body.dry_run)


@routes.add("GET", "/v1/schedules/{name}/calendar")
async def show_calendar(call: Call, name: str) -> web.Response:
    """The next slots of a schedule as an iCalendar feed (RFC 5545)."""
    return _calendar(call, [_find(await call.read_state("linearizable"), name)])


@routes.add("GET", "/v1/schedules-calendar")
async def show_calendars(call: Call) -> web.Response:
    """The next slots of all schedules, the first 200 by name, as an iCalendar feed (RFC 5545)."""
    state = await call.read_state("linearizable")
    return _calendar(call, [state.schedules[name] for name in sorted(state.schedules)[:MAX_IN_FEED]])


def _calendar(call: Call, schedules: Iterable[Schedule]) -> web.Response:
    active = [(each.name, each.spec, each.created_ms) for each in schedules if each.pause is None]
    return web.Response(text=calendar_of(active, call.context.now_ms()), content_type="text/calendar")


def _preview(call: Call, name: str, spec: ScheduleSpec, made_ms: int, query: PreviewQuery) -> Preview:
    now_ms = call.context.now_ms()
    slots = preview(name, spec, made_ms, query.after_ms or now_ms, query.count)
    return Preview(slots=slots, warnings=lint(spec, now_ms), zone_data=data_version())


def _find(state: State, name: str) -> Schedule:
    """Raises NotFound."""
    schedule = state.schedules.get(name)
    if schedule is None:
        hint = suggest_name(name, state.schedules, "see `hasched schedule list`")
        raise NotFound(f"there is no schedule {name[:128]}", hint, code="no_such_schedule")
    return schedule


def _put(call: Call, name: str) -> Schedule:
    schedule = call.context.replica.state.schedules.get(name)
    if schedule is None:
        raise OutcomeUnknown("it was done, and deleted before it could be shown", "look again")
    return schedule


def _show(call: Call, state: State, schedule: Schedule, with_spec: bool) -> ScheduleView:
    view = show_schedule(state, schedule, with_spec)
    zone = view.timezone
    next_ms = view.next_ms
    if not next_ms and view.state != "over":
        next_ms = next_slot(schedule.spec, schedule.created_ms, max(schedule.planned_ms, call.context.now_ms()))
    return msgspec.structs.replace(
        view,
        when=describe_when(schedule.spec),
        next_ms=next_ms,
        next_local=local_time(zone, next_ms) if next_ms else "",
        last=_localized([view.last], zone)[0] if view.last is not None else None,
    )


def _localized(slots: list[SlotView], zone: str) -> list[SlotView]:
    return [msgspec.structs.replace(each, local=local_time(zone, each.slot_ms)) for each in slots]


def _with_version(state: State, spec: ScheduleSpec, body: bytes) -> ScheduleSpec:
    """The spec with the version of the workflow template that it names, if it does."""
    named = msgspec.json.decode(body).get("workflow")
    template = state.templates.get(("workflow", named)) if isinstance(named, str) else None
    if template is None or spec.workflow is None:
        return spec
    target = msgspec.structs.replace(spec.workflow, version=template.latest.version)
    return msgspec.structs.replace(spec, workflow=target)
