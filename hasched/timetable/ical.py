"""Slots to come as an iCalendar feed (RFC 5545), for whatever shows calendars."""

from __future__ import annotations

from collections.abc import Iterable

from hasched.model.schedule import ScheduleSpec
from hasched.model.times import format_time
from hasched.timetable.preview import describe_when, preview

MAX_EVENTS = 50  # of a schedule
_LINE_BYTES = 75


def calendar_of(schedules: Iterable[tuple[str, ScheduleSpec, int]], now_ms: int) -> str:
    """The next slots of schedules, each given with when it was made, as one calendar."""
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//hasched//schedules//EN", "CALSCALE:GREGORIAN"]
    for name, spec, made_ms in schedules:
        for slot in preview(name, spec, made_ms, now_ms, MAX_EVENTS):
            if slot.skipped:
                continue
            lines += [
                "BEGIN:VEVENT",
                f"UID:{slot.slot_ms}-{name}@hasched",
                f"DTSTAMP:{_stamp(now_ms)}",
                f"DTSTART:{_stamp(slot.slot_ms)}",
                f"SUMMARY:{_escape(name)}",
                f"DESCRIPTION:{_escape(f'{describe_when(spec)} {spec.timezone} {spec.description}'.strip())}",
                "TRANSP:TRANSPARENT",
                "END:VEVENT",
            ]
    lines.append("END:VCALENDAR")
    return "".join(f"{_fold(line)}\r\n" for line in lines)


def _stamp(time_ms: int) -> str:
    return format_time(time_ms - time_ms % 1000).replace("-", "").replace(":", "")


def _escape(text: str) -> str:
    for character in ("\\", ";", ","):
        text = text.replace(character, f"\\{character}")
    return "".join(each if each.isprintable() else "\\n" if each == "\n" else " " for each in text)


def _fold(line: str) -> str:
    """No line is longer than 75 bytes; one that goes on begins with a blank. Never within a character."""
    parts: list[str] = []
    part = ""
    for character in line:
        if len((part + character).encode()) > _LINE_BYTES - bool(parts):
            parts.append(part)
            part = ""
        part += character
    return "\r\n ".join([*parts, part])
