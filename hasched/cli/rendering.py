"""How jobs and tasks look to people: a row of a list, or all there is to say about one."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from hasched.cli.output import (
    age,
    clock,
    counts,
    moment,
    origin,
    pairs,
    print_fields,
    print_table,
    printable,
    resources,
    took,
)
from hasched.cli.placement_words import placement_fields
from hasched.cli.tasks import ending, summary
from hasched.cli.usage import money, say_estimate, times
from hasched.model.dependency import format_dependency
from hasched.model.spec import JobSpec
from hasched.model.states import BackoffKind, TaskState
from hasched.model.units import format_duration
from hasched.model.words import counted, short_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hasched.model.notices import NotifyRule
    from hasched.model.spec import Backoff, Preemption, TaskGroup
    from hasched.model.views import JobView, TaskView

SCRIPT_LINES = 10
JOB_COLUMNS = ("job", "name", "state", "tasks", "namespace", "queue", "by", "age")
JOB_SPARE = ("namespace", "queue", "by", "tasks")
_ATTEMPT_COLUMNS = ("attempt", "state", "node", "ended with", "started", "took", "CPU", "peak memory", "late report")
_ATTEMPT_SPARE = ("CPU", "peak memory", "started")


def job_row(job: JobView) -> tuple[str, ...]:
    """A job as a row under `JOB_COLUMNS`."""
    return (
        str(job.id),
        job.name,
        state_of(job),
        counts(job.tasks),
        job.namespace,
        job.queue,
        job.actor,
        age(job.submitted_ms),
    )


def state_of(job: JobView) -> str:
    """A job's state and, until it is final, what is being done about it."""
    if TaskState[job.state].final:
        return job.state
    return f"{job.state} (cancelling)" if job.cancelling else f"{job.state} (suspended)" if job.suspended else job.state


def print_job(job: JobView, failed: TaskView | None, starts: str = "") -> None:
    """A job, and of what it asks for all that isn't as everywhere.

    `failed` is the first of its tasks that didn't succeed, `starts` when what waits of it is expected to start.
    """
    print_fields(
        [
            ("job", str(job.id)),
            ("name", job.name),
            ("state", state_of(job)),
            ("reason", f"{job.reason.text} ({job.reason.code})" if job.reason else ""),
            ("expected start", starts),
            ("tasks", counts(job.tasks)),
            ("first failed", summary(failed) if failed is not None else ""),
            ("exit code", "" if job.exit_code is None else str(job.exit_code)),
            ("namespace", job.namespace),
            (
                "queue",
                f"{job.queue}, priority {job.priority}" + (f" ({job.priority_class})" if job.priority_class else ""),
            ),
            ("by", job.actor),
            ("made by", origin(job.parent)),
            ("submitted", moment(job.submitted_ms)),
            ("not before", moment(job.not_before_ms)),
            ("deadline", moment(job.deadline_ms)),
            ("started", moment(job.started_ms)),
            ("ended", moment(job.ended_ms)),
            ("used", _used(job)),
            ("cost", _cost(job)),
            ("submission id", job.submission_id),
            *(_spec_fields(job.spec) if job.spec is not None else ()),
        ]
    )


def _used(job: JobView) -> str:
    """`2.5m CPU, 30.0s GPU`: what its attempts that have ended held."""
    used = job.used
    if used is None:
        return ""
    held = (("CPU", used.cpu_core_ms), ("GPU", used.gpu_ms), ("GiB memory", used.memory_gib_ms))
    return ", ".join(f"{times(amount_ms)} {name}" for name, amount_ms in held if amount_ms)


def _cost(job: JobView) -> str:
    """`0.30 EUR so far; at most 5.00 EUR`."""
    spent = money(job.used.cost_micro) if job.used is not None else ""
    final = TaskState[job.state].final
    currency = job.estimate.currency if job.estimate is not None else ""
    so_far = f"{spent} {currency}".rstrip() + ("" if final else " so far") if spent else ""
    foreseen = say_estimate(job.estimate) if job.estimate is not None and not final else ""
    return "; ".join(filter(None, (so_far, foreseen)))


def _spec_fields(spec: JobSpec) -> list[tuple[str, str]]:
    usual = JobSpec(name=spec.name)
    retries = f"{spec.retries.max}, {spec.retries.node_lost} more for lost nodes"
    return [
        ("command", shlex.join(spec.command)),
        ("script", _first_lines(spec.script)),
        ("args", shlex.join(spec.args)),
        ("working dir", spec.working_dir),
        ("env", "\n".join(f"{key}={shlex.quote(value)}" for key, value in sorted(spec.env.items()))),
        ("input", short_bytes(len(spec.input)) if spec.input else ""),
        ("each task asks", "" if spec.groups else resources(spec.resources)),
        ("groups", "\n".join(map(_group, spec.groups))),
        ("start", _start(spec)),
        *placement_fields(spec.placement),
        ("semaphores", ", ".join(f"{units} of {name}" for name, units in spec.semaphores)),
        ("tags", ", ".join(spec.tags)),
        ("dependency", format_dependency(spec.dependency) if spec.dependency is not None else ""),
        (
            "if it breaks",
            f"{spec.on_broken_dependency.name.lower()}s"
            if spec.on_broken_dependency is not usual.on_broken_dependency
            else "",
        ),
        ("max running", str(spec.max_running) if spec.max_running else ""),
        ("timeout", format_duration(spec.timeout_ms) if spec.timeout_ms else ""),
        ("kill grace", format_duration(spec.kill_grace_ms) if spec.kill_grace_ms != usual.kill_grace_ms else ""),
        ("retries", retries),
        ("backoff", _backoff(spec.retries.backoff) if spec.retries.max else ""),
        ("restart", spec.restart.name.lower() if spec.restart is not usual.restart else ""),
        ("on disconnect", spec.on_disconnect.name.lower() if spec.on_disconnect is not usual.on_disconnect else ""),
        (
            "success codes",
            ", ".join(map(str, spec.success_exit_codes)) if spec.success_exit_codes != usual.success_exit_codes else "",
        ),
        ("preemption", _preemption(spec.preemption) if spec.preemption != usual.preemption else ""),
        ("notifies", _notify(spec.notify) if spec.notify is not None else ""),
        ("labels", pairs(spec.labels)),
    ]


def _group(group: TaskGroup) -> str:
    """`worker: 8 tasks with 4 CPU`."""
    return f"{group.name}: {counted(group.count, 'task')} with {resources(group.resources)}"


def _start(spec: JobSpec) -> str:
    """Which tasks start together, where they don't start one by one."""
    least = spec.min_count or spec.count
    if spec.gang:
        return "all its tasks together" if least == spec.count else f"together, {least} to {spec.count} tasks"
    return f"from {counted(least, 'task')} on, up to {spec.count}" if spec.min_count else ""


def _preemption(told: Preemption) -> str:
    return f"{told.signal}, {format_duration(told.warning_ms)} before TERM"


def _notify(rule: NotifyRule) -> str:
    return f"{', '.join(rule.targets)} of {', '.join(rule.events)}"


def _first_lines(script: str) -> str:
    lines = script.splitlines()
    more = len(lines) - SCRIPT_LINES
    return "\n".join([*lines[:SCRIPT_LINES], *([f"... and {more} more"] if more > 0 else [])])


def _backoff(backoff: Backoff) -> str:
    """`10s, then 2 times as long each time, 5m at most`."""
    first, longest = format_duration(backoff.initial_ms), format_duration(backoff.max_ms)
    if backoff.kind is BackoffKind.LINEAR:
        return f"{first}, then {first} more each time, {longest} at most"
    return f"{first}, then {backoff.multiplier_milli / 1000:g} times as long each time, {longest} at most"


def print_task(task: TaskView) -> None:
    """A task, its attempts, and why each of those ended where the task doesn't say so itself."""
    print_fields(
        [
            ("task", f"{task.job_id}.{task.task_index}"),
            ("state", task.state),
            ("reason", f"{task.reason.text} ({task.reason.code})" if task.reason else ""),
            ("node", task.node_id),
            ("holds", resources(task.holds) if task.holds is not None else ""),
            ("output", (task.output or "").rstrip("\n")),
        ]
    )
    if not task.attempts:
        return
    click.echo()
    print_table(_ATTEMPT_COLUMNS, _attempt_rows(task), _ATTEMPT_SPARE)
    for attempt in task.attempts:
        if attempt.reason is not None and attempt.reason != task.reason:
            click.echo(f"attempt {attempt.attempt}: {printable(attempt.reason.text)} ({attempt.reason.code})")


def _attempt_rows(task: TaskView) -> Iterator[tuple[str, ...]]:
    expected = 1
    for attempt in task.attempts:
        if attempt.attempt != expected:
            yield "…", counted(task.attempts_dropped, "more attempt"), *[""] * (len(_ATTEMPT_COLUMNS) - 2)
        expected = attempt.attempt + 1
        yield (
            str(attempt.attempt),
            attempt.state,
            attempt.node_id,
            ending(attempt.exit_code, attempt.signal),
            clock(attempt.started_ms),
            took(attempt.started_ms, attempt.ended_ms),
            f"{attempt.usage.cpu_ms / 1000:.2f}s",
            short_bytes(attempt.usage.peak_memory_bytes),
            f"refused: {attempt.late_report.state}" if attempt.late_report else "",
        )
