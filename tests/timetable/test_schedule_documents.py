"""Schedules as documents, what the linter says of them, crontabs, and calendars."""

from __future__ import annotations

from typing import Any

import pytest

from hasched.model.errors import ScheduleInvalid
from hasched.model.schedule import Verdict, gather
from hasched.model.times import parse_time_ms
from hasched.timetable.crontab import read_crontab
from hasched.timetable.ical import calendar_of
from hasched.timetable.lint import lint
from hasched.timetable.preview import preview
from hasched.timetable.slots import slots_of
from hasched.timetable.text import parse_schedule, schedule_schema

NOW = parse_time_ms("2026-11-29T12:00:00Z")
PLAIN: dict[str, Any] = {"name": "report", "cron": "30 2 * * *", "job": {"command": ["true"]}}


def read(**keys: Any) -> Any:
    """A schedule with these keys; None leaves one out."""
    document = {key: value for key, value in {**PLAIN, **keys}.items() if value is not None}
    return parse_schedule(document)[1]


def days(spec: Any, count: int, after: str) -> list[str]:
    return [
        f"{slot.local} {slot.skipped}".strip() for slot in preview("report", spec, NOW, parse_time_ms(after), count)
    ]


def test_times_are_the_zones() -> None:
    spec = read(timezone="Europe/Berlin", start="2027-03-28T02:30", end="2027-10-31T02:30")
    assert (spec.start_ms, spec.end_ms) == tuple(
        map(parse_time_ms, ("2027-03-28T01:00:00Z", "2027-10-31T00:30:00Z"))
    ), "one that the clock leaves out, and one that comes twice"
    assert read(start="2027-01-01T00:00:00+05:00").start_ms == parse_time_ms("2026-12-31T19:00:00Z")
    assert read().job.name == "report"


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"cron": "61 * * * *"}, "cron"),
        ({"every": "5m"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"jitter": "2h"}, "jitter"),
        ({"job": {"command": ["true"], "deadline": "2026-12-24T00:00:00Z"}}, "job.deadline"),
        ({"job": {"comand": 1}}, "job.comand"),
        ({"job": "true"}, "job"),
        ({"blackouts": [{"from": 1320, "until": "06:00"}]}, "blackouts[0].from"),
        ({"blackouts": [{"from": "22:00", "until": "2026-12-24"}]}, "blackouts[0]"),
        ({"blackouts": [{"from": "25:00", "until": "06:00"}]}, "blackouts[0].from"),
        ({"blackouts": [{"from": "2026-12-24", "until": "2026-12-24"}]}, "blackouts[0].until"),
        ({"blackouts": [{"from": "2026-12-24"}]}, "blackouts[0]"),
        ({"calendar": {"closed": ["2026-02-30"]}}, "calendar.closed[0]"),
        ({"calendar": {"days": ["monday"]}}, "calendar.days[0]"),
        ({"start": "2026-02-30"}, "start"),
        ({"start": "2027-01-01", "end": "2026-01-01"}, "end"),
        ({"overlap": "skip"}, "overlap"),
        ({"catch_up_limit": 100_000}, "catch_up_limit"),
        ({"name": "no name"}, "name"),
        ({"crn": 1}, "crn"),
        ({"at": []}, "at"),
        ({"at": "tomorrow"}, "at"),
    ],
)
def test_a_mistake_has_its_place(keys: dict[str, Any], place: str) -> None:
    with pytest.raises(ScheduleInvalid) as caught:
        parse_schedule({**PLAIN, **keys})
    assert place in [error.path for error in caught.value.errors]


def test_nothing_but_a_mapping_is_a_schedule() -> None:
    for document in (None, [], "x", 5, b"[", b"[]"):
        with pytest.raises(Exception, match=r"mapping|JSON"):
            parse_schedule(document)


def test_calendars_and_blackouts() -> None:
    calendar = {"closed": ["2026-12-25"], "open": ["2026-12-26"]}
    spec = read(timezone="Europe/Berlin", calendar=calendar)
    assert days(spec, 4, "2026-12-24T12:00:00Z") == [
        "2026-12-25T02:30:00+01:00 holiday",
        "2026-12-26T02:30:00+01:00",
        "2026-12-27T02:30:00+01:00 holiday",
        "2026-12-28T02:30:00+01:00",
    ]
    over_night = read(cron="0 */6 * * *", blackouts=[{"from": "22:00", "until": "06:00", "days": ["sat"]}])
    assert [day for day in days(over_night, 12, "2026-12-04T23:00:00Z") if "blackout" in day] == [
        "2026-12-06T00:00:00+00:00 blackout"
    ]
    dated = read(blackouts=[{"from": "2026-12-24T02:30", "until": "2026-12-26T02:30"}])
    assert [day[8:10] for day in days(dated, 5, "2026-12-23T00:00:00Z") if "blackout" in day] == ["24", "25"]


def test_intervals_count_from_their_start_and_dates_are_once() -> None:
    with pytest.raises(ScheduleInvalid):
        parse_schedule({**PLAIN, "every": "90m"})
    spec = parse_schedule({"name": "x", "every": "90m", "start": "2026-11-29T11:00", "job": {"command": ["true"]}})[1]
    assert [day[11:16] for day in days(spec, 3, "2026-11-29T12:00:00Z")] == ["12:30", "14:00", "15:30"]
    unset = parse_schedule({"name": "x", "every": "90m", "job": {"command": ["true"]}})[1]
    assert next(slots_of(unset, NOW, NOW, NOW * 2))[0] == NOW + 90 * 60_000
    dates = parse_schedule(
        {"name": "x", "at": ["2026-12-02", "2026-12-01T08:00", "2026-12-02"], "job": {"command": ["true"]}}
    )[1]
    assert days(dates, 9, "2026-11-29T12:00:00Z") == ["2026-12-01T08:00:00+00:00", "2026-12-02T00:00:00+00:00"]
    single = parse_schedule({"name": "x", "at": "2026-12-01T08:00", "job": {"command": ["true"]}})[1]
    assert days(single, 9, "2026-11-29T12:00:00Z") == ["2026-12-01T08:00:00+00:00"]


def test_slots_stand_in_runs() -> None:
    slots = [(1000, 0), (2000, 0), (3000, 0), (5000, 0), (6000, 1), (7000, 1)]
    runs = gather(slots)
    assert [tuple(run) for run in runs] == [(1000, 1000, 3, 0), (5000, 0, 1, 0), (6000, 1000, 2, 1)]
    assert [(slot, run.verdict) for run in runs for slot in run.slots()] == slots
    assert Verdict(runs[2].verdict) is Verdict.BLACKOUT


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"timezone": "Europe/Berlin"},
            "02:30 doesn't exist on 2027-03-28 in Europe/Berlin: that slot is fired at 03:00",
        ),
        (
            {"timezone": "Europe/Berlin"},
            "02:30 comes twice on 2027-10-31 in Europe/Berlin: the slot is fired the first time only",
        ),
        ({"timezone": "Europe/Berlin", "cron": "*/15 2 * * *"}, "02:00 comes twice on 2027-10-31"),
        ({"timezone": "Europe/Berlin", "cron": "*/15 2 * * *"}, "02:00 doesn't exist on 2027-03-28"),
        ({"timezone": "Australia/Lord_Howe", "cron": "15 * * * *"}, "02:15 doesn't exist on 2027-10-03"),
        ({"timezone": "Europe/Berlin", "cron": None, "at": "2027-03-28T02:30"}, "goes on to 03:00 on 2027-03-28"),
        ({"timezone": "Europe/Berlin", "cron": None, "at": "2027-10-31T02:30"}, "02:30 comes twice on 2027-10-31"),
        ({"timezone": "Europe/Berlin", "cron": None, "every": "7d"}, "counts real time"),
        ({"cron": "0 0 13 * fri"}, "matches either"),
        ({"cron": "0 0 30 * *"}, "months without a day 30"),
        ({"cron": "*/7 * * * *"}, "uneven"),
        ({"end": "2026-01-01"}, "no slot is to come"),
        ({"cron": "0 0 * * sat", "calendar": {}}, "are on no business day"),
        ({"cron": "* * * * *", "jitter": "5m"}, "another order"),
        ({"cron": "* * * * *", "overlap": "forbid", "job": {"command": ["x"], "timeout": "5m"}}, "skips those"),
        ({"missing": "1h"}, "never end"),
        ({"overlap": "forbid", "catch_up": "all"}, "keeps them"),
    ],
)
def test_the_linter_warns(keys: dict[str, Any], said: str) -> None:
    assert any(said in warning for warning in lint(read(**keys), NOW)), lint(read(**keys), NOW)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"cron": "*/15 * * * *"},
        {"cron": "*/15 * * * *", "timezone": "Europe/Berlin"},
        {"end": "2027-01-01", "timezone": "Europe/Berlin"},
        {"cron": None, "every": "7d"},
        {"cron": None, "every": "1h", "timezone": "Europe/Berlin"},
        {"cron": None, "at": ["2027-03-28T01:59", "2027-10-31T03:00"], "timezone": "Europe/Berlin"},
        {"cron": "0 9 * * mon-fri", "timezone": "Asia/Tokyo"},
    ],
)
def test_the_linter_is_silent_where_nothing_is_odd(keys: dict[str, Any]) -> None:
    assert lint(read(**keys), NOW) == []


def test_a_crontab_is_taken_line_by_line() -> None:
    text = (
        "# comment\nPATH=/opt/bin:/bin\nSHELL=zsh\nTZ='Europe/Berlin'\n\n*/5 * * * * FOO=1 /opt/check --all\n"
        "@daily mail -s 50\\% ops%line one%line two\n@reboot x\n99 * * * * y\n1 2 3\n*/5 * * * * /opt/check again\n"
    )
    found = read_crontab(text, prefix="ops-")
    assert [document["name"] for document in found.documents] == ["ops-check", "ops-mail", "ops-check-2"]
    assert found.documents[0] == {
        "name": "ops-check",
        "cron": "*/5 * * * *",
        "timezone": "Europe/Berlin",
        "catch_up": "skip",
        "job": {"script": "FOO=1 /opt/check --all", "env": {"PATH": "/opt/bin:/bin"}},
    }
    assert found.documents[1]["job"]["input"] == "line one\nline two\n"
    assert found.documents[1]["job"]["script"].endswith("mail -s 50% ops")
    assert [problem.split(":")[0] for problem in found.problems] == ["line 3", "line 8", "line 9", "line 10"]
    for document in found.documents:
        parse_schedule(document)
    of_system = read_crontab("5 4 * * * root  logrotate /etc/x\n", system=True)
    assert of_system.documents[0]["job"]["script"] == "logrotate /etc/x" and "user root" in of_system.problems[0]


def test_a_crontab_says_what_runs_its_lines_and_who_is_told() -> None:
    text = 'SHELL=/bin/bash\nHOME=/srv\n* * * * * [[ a == a ]]\nSHELL=/bin/sh\nMAILTO=""\nMAILFROM=x\n* * * * * b%c\n'
    found = read_crontab(text, notify="ops")
    first, second = (document["job"] for document in found.documents)
    assert first["script"] == "#!/bin/bash\n[[ a == a ]]"
    assert first["notify"] == {"targets": ["ops"], "events": ["job.failed"]}
    assert second == {"script": 'exec < "$HASCHED_INPUT"\nb', "input": "c\n"}
    assert found.problems == [
        "line 2: HOME is not taken: a task runs in an empty directory, or the job's `working_dir`"
    ]
    (problem,) = read_crontab("MAILTO=ops\n* * * * * x\n").problems
    assert problem == "line 1: MAILTO is not taken: who is told is said by a notification: name it with `--notify`"


def test_a_calendar_can_be_read_by_others() -> None:
    name, spec = parse_schedule({**PLAIN, "description": "Figures; of the day, and more: " + "ü" * 60})
    text = calendar_of([(name, spec, NOW)], NOW)
    lines = text.split("\r\n")
    assert lines[0] == "BEGIN:VCALENDAR" and lines[-2:] == ["END:VCALENDAR", ""]
    assert "DTSTART:20261130T023000Z" in lines
    assert all(len(line.encode()) <= 75 for line in lines)
    assert "Figures\\; of the day\\, and more" in text.replace("\r\n ", "")
    assert text.count("BEGIN:VEVENT") == 50


def test_the_schema_knows_every_key() -> None:
    schema = schedule_schema()
    assert {"name", "cron", "every", "at", "job"} <= schema["properties"].keys()
    assert "command" in schema["properties"]["job"]["properties"]
