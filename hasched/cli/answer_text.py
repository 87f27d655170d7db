"""How plans, explanations, comparisons and resources look to people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from hasched.cli.output import moment, print_fields, print_table, printable, wait
from hasched.cli.output import resources as tell_resources
from hasched.cli.usage import say_estimate
from hasched.model.units import format_cpu
from hasched.model.words import counted, short_bytes

if TYPE_CHECKING:
    from hasched.model.answers import (
        BlockerView,
        Comparison,
        JobForecast,
        Plan,
        PlannedJob,
        ResourceLine,
        ResourcesView,
        WhatIf,
        Why,
    )

_BASIS = {
    "history": "by what tasks of its name took before",
    "time_limit": "by its time limit",
    "unknown": "it has no time limit, and none of its name has ended yet",
}
SHOWN_PLACEMENTS = 20
NO_NAME = "(none)"  # the group of the nodes that have nothing of what is asked for
SHOWN_REMEDIES = 2  # of a plan


def print_plan(plan: Plan) -> None:
    for job in plan.jobs:
        _print_planned(job, plan.now_ms)
    click.echo(f"check index {plan.check_index}")


def _print_planned(job: PlannedJob, now_ms: int) -> None:
    name = printable(job.name)
    if job.refused is not None:
        click.echo(f"job {name}: would be refused: {printable(job.refused.text)} ({job.refused.code})")
        return
    click.echo(f"job {name}: {job.starting_now} of {counted(job.tasks, 'task')} would start now")
    for placement in job.placements[:SHOWN_PLACEMENTS]:
        click.echo(f"  {counted(placement.tasks, 'task')} on {placement.node_id}")
    if (more := len(job.placements) - SHOWN_PLACEMENTS) > 0:
        click.echo(f"  and on {counted(more, 'more node')}")
    for preempted in job.preempts[:SHOWN_PLACEMENTS]:
        click.echo(f"  task {preempted.job_id}.{preempted.task_index} on {preempted.node_id} would give way")
    if (more := len(job.preempts) - SHOWN_PLACEMENTS) > 0:
        click.echo(f"  and {counted(more, 'more task')} would")
    if job.cost is not None:
        click.echo(f"  it costs {say_estimate(job.cost)}")
    if job.later is not None:
        click.echo(f"  the other {counted(job.tasks - job.starting_now, 'task')}: {_later(job.later, now_ms)}")
    for remedy in job.remedies[:SHOWN_REMEDIES]:
        click.echo(f"  one more would start now: {printable(remedy.text)} ({counted(remedy.nodes, 'node')})")


def _later(foreseen: JobForecast, now_ms: int) -> str:
    """When the last of what waits would have started."""
    if foreseen.last_start_ms:
        when = (
            f"expected to have started by {moment(foreseen.last_start_ms)} (in {wait(foreseen.last_start_ms - now_ms)})"
        )
        return (
            f"{when}; how long it runs is estimated {_BASIS[foreseen.basis]}" if foreseen.basis != "unknown" else when
        )
    reason = foreseen.reason
    return f"{printable(reason.text)} ({reason.code})" if reason is not None else "not known"


def expected_start(foreseen: JobForecast, now_ms: int) -> str:
    """When the first of what waits would start, and where."""
    if not foreseen.start_ms:
        text = "not within a week, as far as can be foreseen"
        if not foreseen.endless:
            return text
        return f"{text}: {counted(foreseen.endless, 'running task')} without time limit and history may run for ever"
    where = f" on {', '.join(foreseen.nodes[:3])}{' and others' if len(foreseen.nodes) > 3 else ''}"
    if foreseen.start_ms <= now_ms:
        return f"now{where}"
    return f"{moment(foreseen.start_ms)}, in {wait(foreseen.start_ms - now_ms)},{where}"


def _blocker(blocker: BlockerView) -> str:
    return f"{printable(blocker.text)} ({blocker.code}: {blocker.doc})"


def print_why(answer: Why) -> None:
    if not answer.waiting:
        look = f"`hasched job show {answer.job_id}` says how it is"
        click.echo(f"job {answer.job_id} ({printable(answer.name)}): nothing of it waits; {look}")
        return
    ahead = f"{counted(answer.ahead, 'job')} {'is' if answer.ahead == 1 else 'are'}" if answer.ahead else "no job is"
    click.echo(
        f"job {answer.job_id} ({printable(answer.name)}): {counted(answer.waiting, 'task')} waiting, {ahead} ahead of it"
    )
    if answer.forecast is not None:
        click.echo(f"expected to start: {expected_start(answer.forecast, time.time_ns() // 1_000_000)}")
    for blocker in answer.blockers:
        click.echo(f"- {_blocker(blocker)}")
    if answer.classes and not all(view.open == view.nodes for view in answer.classes):
        for view in answer.classes:
            shown = ", ".join(view.examples) + (", …" if view.nodes > len(view.examples) else "")
            free = f", {view.open} of them with room" if view.open else ""
            click.echo()
            click.echo(
                f"{counted(view.nodes, 'node')} ({shown}): {tell_resources(view.total)}; {view.description}{free}"
            )
            for blocker in view.blockers:
                number = "all" if blocker.nodes == view.nodes else str(blocker.nodes)
                click.echo(f"- {number}: {_blocker(blocker)}")
    if answer.remedies:
        click.echo()
        click.echo("each of these would start it:")
        for remedy in answer.remedies:
            note = (
                f"; {counted(answer.ahead, 'job')} before it may take the room"
                if remedy.shared and answer.ahead
                else ""
            )
            click.echo(f"- {printable(remedy.text)} ({counted(remedy.nodes, 'node')}{note})")


def print_what_if(compared: WhatIf) -> None:
    click.echo(f"what if: {'; '.join(map(printable, compared.changes))}")
    if compared.jobs:
        print_table(
            ("job", "name", "starts now", "starts then", "change"),
            [_row(job, compared.now_ms) for job in compared.jobs],
        )
        for job in compared.jobs:
            if job.then is not None and job.then.reason is not None:
                click.echo(f"job {job.job_id} then: {printable(job.then.reason.text)} ({job.then.reason.code})")
    notes = [f"{counted(compared.unchanged, 'waiting job')} would start as now"]
    if compared.lost:
        notes.append(f"{counted(compared.lost, 'running task')} would be stopped by it")
    click.echo(", ".join(notes))


def _row(job: Comparison, now_ms: int) -> tuple[str, ...]:
    before = "runs" if job.runs else brief_start(job.now, now_ms)
    return (str(job.job_id), job.name, before, brief_start(job.then, now_ms), _change(job))


def brief_start(foreseen: JobForecast | None, now_ms: int) -> str:
    """For a table: `at once`, `in 5m`, `in 5m, all in 2h` where its tasks start one after the other, `not known`."""
    if foreseen is None:
        return "-"
    if not foreseen.start_ms:
        return "not known"
    first = _in(foreseen.start_ms, now_ms)
    if foreseen.starting < foreseen.waiting:
        return f"{first}, {foreseen.starting} of {foreseen.waiting}"
    return (
        first if foreseen.last_start_ms == foreseen.start_ms else f"{first}, all {_in(foreseen.last_start_ms, now_ms)}"
    )


def _in(then_ms: int, now_ms: int) -> str:
    return "at once" if then_ms <= now_ms else f"in {wait(then_ms - now_ms)}"


def _change(job: Comparison) -> str:
    if job.change_ms is None:
        if job.now is None:
            return "new" if not job.runs else "starts again" if job.then and job.then.start_ms else "can't start again"
        if job.then is None:
            return "gone"
        return "can start" if job.then.start_ms else "can't start"
    if not job.change_ms and job.now is not None and job.then is not None:
        if job.now.last_start_ms and job.then.last_start_ms and job.now.last_start_ms != job.then.last_start_ms:
            return f"all {_moved(job.then.last_start_ms - job.now.last_start_ms)}"
        return "more of it" if job.then.starting > job.now.starting else "less of it"
    return _moved(job.change_ms)


def _moved(change_ms: int) -> str:
    return f"{wait(abs(change_ms))} {'sooner' if change_ms < 0 else 'later'}"


def print_resources(view: ResourcesView) -> None:
    print_table(
        ("group", "nodes", "resource", "total", "allocated", "held", "unusable", "free", "largest", "scattered"),
        [
            (
                group.name or NO_NAME,
                f"{group.usable}/{group.nodes}" if group.usable != group.nodes else str(group.nodes),
                line.resource,
                *_amounts(line),
                f"{line.fragmented_percent}%",
            )
            for group in view.groups
            for line in group.resources
        ],
        ("held", "unusable", "scattered"),
    )
    print_fields(
        [
            (
                f"largest task{f' in {group.name or NO_NAME}' if len(view.groups) > 1 else ''}",
                tell_resources(group.largest_task),
            )
            for group in view.groups
            if group.largest_task is not None
        ]
    )


def _amounts(line: ResourceLine) -> tuple[str, ...]:
    tell = {"cpu": format_cpu, "memory": short_bytes, "disk": short_bytes}.get(line.resource, str)
    return tuple(map(tell, (line.total, line.allocated, line.held, line.unusable, line.free, line.largest)))
