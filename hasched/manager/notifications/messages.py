"""What receivers get to read: the JSON of a webhook, and the text of an e-mail or a chat."""

from __future__ import annotations

from typing import Any

import msgspec

from hasched.model.notices import DROPPED_TOPIC, TEST_TOPIC, Notice, Topic
from hasched.model.times import format_time
from hasched.model.units import format_duration
from hasched.model.words import counted

_TIMES = ("started_ms", "ended_ms", "slot_ms")
_ENVELOPE = ("topic", "time_ms")


def message_id(origin: str, notice: Notice) -> str:
    """Of the event, in all clusters: the same whoever delivers it, and however often. Without a full stop, which signatures
    keep for themselves."""
    return f"evt_{origin[:16]}_{notice.event.replace('.', '_')}"


def payload_of(cluster: str, notice: Notice) -> bytes:
    """The body of a webhook: the same for every attempt."""
    data: dict[str, Any] = {"cluster": cluster}
    for name in notice.__struct_fields__:
        value = getattr(notice, name)
        if name in _ENVELOPE or value in ("", 0, None):
            continue
        if name in _TIMES:
            data[name.removesuffix("_ms")] = format_time(value)
        else:
            data[name] = value
    if notice.exit_code == 0:
        data["exit_code"] = 0
    return msgspec.json.encode({"type": notice.topic, "timestamp": format_time(notice.time_ms), "data": data})


def subject_of(cluster: str, notice: Notice) -> str:
    """One line without control characters, whatever a job is called."""
    return _one_line(f"[{cluster}] {_headline(notice)}")[:200]


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _headline(notice: Notice) -> str:
    """The reason ends it where there is one."""
    because = f": {notice.reason}" if notice.reason else ""
    noun, _, what = notice.topic.partition(".")
    match notice.topic:
        case x if x == TEST_TOPIC:
            return f"{notice.actor} tries this notification"
        case x if x == DROPPED_TOPIC:
            return f"{counted(notice.count, 'notification')} could not be kept for you"
        case Topic.WORKFLOW_APPROVAL:
            return f"workflow {notice.name} asks for approval of {notice.task}{because}"
        case Topic.WORKFLOW_HOOK:
            state = notice.state.lower().replace("_", " ")
            return f"workflow {notice.execution_id} {notice.name}, {state}, has come to its hook {notice.task}{because}"
        case Topic.SCHEDULE_LATE:
            return f"schedule {notice.name} fired {format_duration(notice.delay_ms)} late"
        case Topic.SCHEDULE_MISSING:
            return f"schedule {notice.name} has had no success for {format_duration(notice.delay_ms)}"
        case Topic.SCHEDULE_REFUSED:
            return f"schedule {notice.name} could not fire{because}"
        case _:
            number = notice.job_id or notice.execution_id
            state = notice.state.lower().replace("_", " ")
            said = f"{state}" if what == "failed" and state else what
            return f"{noun} {f'{number} ' if number else ''}{notice.name} {said}{because}"


def text_of(cluster: str, notice: Notice) -> str:
    """The facts, one a line, and how to see more. No fact is more than a line, or it could pass for others."""
    facts = [
        ("cluster", cluster),
        ("event", f"{notice.topic} {notice.event}"),
        ("at", format_time(notice.time_ms)),
        ("name", notice.name),
        ("namespace", notice.namespace),
        ("owner", notice.actor),
        ("state", notice.state),
        ("reason", notice.reason),
        ("exit code", str(notice.exit_code) if notice.exit_code is not None else ""),
        ("node", notice.node),
        ("task", notice.task),
        ("tasks", f"{notice.tasks}, {notice.tasks_failed} failed" if notice.tasks > 1 else ""),
        ("slot", _time(notice.slot_ms)),
        ("started", _time(notice.started_ms)),
        ("ended", _time(notice.ended_ms)),
    ]
    lines = [
        _one_line(_headline(notice)),
        "",
        *(f"{name + ':':<11}{_one_line(value)}" for name, value in facts if value),
    ]
    if more := _see(notice):
        lines += ["", *more]
    return "\n".join(lines) + "\n"


def _time(time_ms: int) -> str:
    return format_time(time_ms) if time_ms else ""


def _see(notice: Notice) -> list[str]:
    if notice.job_id:
        task = f" --task {notice.task}" if notice.task else ""
        return [f"hasched job show {notice.job_id}", f"hasched job logs {notice.job_id}{task}"]
    if notice.topic == Topic.WORKFLOW_APPROVAL:
        return [f"hasched workflow approve {notice.execution_id} {notice.task}"]
    if notice.execution_id:
        return [f"hasched workflow show {notice.execution_id}", f"hasched workflow logs {notice.execution_id}"]
    if notice.topic.startswith("schedule."):
        return [f"hasched schedule slots {notice.name}"]
    return [f"hasched node show {notice.node}"] if notice.node else []
