"""Executions and templates, one or a page of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TypeAlias

import msgspec

from hasched.model.workflow_views import (
    ExecutionPage,
    ExecutionTaskView,
    ExecutionView,
    InstancePage,
    InstanceView,
    MemoPage,
    MemoView,
    TaskBefore,
    TemplatePage,
    TemplateView,
)
from hasched.statemachine.execution import Execution, ExecutionState, Phase, RowState, read_parent
from hasched.statemachine.memos import Recalled
from hasched.statemachine.queries.pages import MAX_PAGE, parse_cursor
from hasched.statemachine.state import State
from hasched.statemachine.templates import Template, TemplateVersion

MAX_SCANNED = 5000


Recalls: TypeAlias = Mapping[tuple[int, int], Recalled]


def show_execution(execution: Execution, *, with_tasks: bool, recalled: Recalls | None = None) -> ExecutionView:
    rows = execution.rows
    states = [row.state for row in rows]
    return ExecutionView(
        id=execution.id,
        workflow=execution.workflow,
        version=execution.version,
        namespace=execution.plan.spec.namespace,
        state=execution.state.name.lower(),
        stage=execution.stage.name.lower(),
        actor=execution.actor,
        submission_id=execution.submission_id,
        tasks_by_state={state.name.lower(): number for state in RowState if (number := states.count(state))},
        parameters=dict(execution.params),
        parent=execution.parent,
        reason=execution.reason,
        output=execution.output,
        round=execution.round,
        stopping=execution.stop is not None and not execution.ended,
        started_ms=execution.started_ms,
        ended_ms=execution.ended_ms,
        deadline_ms=execution.deadline_ms,
        log_index=execution.log_index,
        tasks=[show_task_of(execution, row, recalled) for row in range(len(rows))] if with_tasks else None,
    )


def show_task_of(execution: Execution, number: int, recalled: Recalls | None = None) -> ExecutionTaskView:
    memos = [each for (row, _), each in (recalled or {}).items() if row == number]
    task, row = execution.plan.spec.tasks[number], execution.rows[number]
    names = [each.name for each in execution.plan.spec.tasks] if task.after else []
    output = (row.outputs or {}).get(0) if not task.fans_out else None
    asking = bool(task.approval and row.reason and row.count(Phase.MADE)) and not row.state.final
    return ExecutionTaskView(
        name=task.name,
        state=row.state.name.lower(),
        role=task.role.name.lower(),
        kind=task.kind,
        after=[TaskBefore(task=names[each.row], when=each.when.value) for each in task.after],
        reason="" if asking else row.reason,
        count=len(row.phases),
        instances={phase.name.lower(): each for phase in Phase if (each := row.count(phase))},
        job=row.jobs[0] if len(row.jobs) == 1 else 0,
        output=None if output is None else output.decode(errors="replace"),
        fans_out=task.fans_out,
        memoised=len(memos),
        memo_of=memos[0].by_execution if memos and not task.fans_out else 0,
        approval=row.reason if asking else task.approval,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
    )


def show_instances(
    execution: Execution, number: int, *, limit: int, cursor: str, recalled: Recalls | None = None
) -> InstancePage:
    """Raises BadCursor."""
    task, row = execution.plan.spec.tasks[number], execution.rows[number]
    start = parse_cursor(cursor) or 0
    end = min(start + max(1, min(limit, MAX_PAGE)), len(row.phases))
    items = msgspec.msgpack.decode(row.items) if task.fans_out and row.items else []
    return InstancePage(
        task=show_task_of(execution, number, recalled),
        instances=[
            InstanceView(
                index=index,
                state=Phase(row.phases[index]).name.lower(),
                item=items[index] if index < len(items) else None,
                job=row.jobs[index],
                memo_of=of.by_execution if (of := (recalled or {}).get((number, index))) is not None else 0,
                exit_code=(row.codes or {}).get(index, 0),
            )
            for index in range(start, end)
        ],
        next_cursor=str(end) if end < len(row.phases) else "",
    )


def list_executions(
    state: State, *, workflow: str | None, execution_state: ExecutionState | None, limit: int, cursor: str
) -> ExecutionPage:
    """The newest first, without those within others. A page may hold fewer than `limit` and still have a next one.

    Raises BadCursor.
    """
    before = parse_cursor(cursor)
    limit = max(1, min(limit, MAX_PAGE))
    shown: list[ExecutionView] = []
    seen_id = 0
    older = (each for each in reversed(state.executions.values()) if before is None or each.id < before)
    for execution in islice(older, MAX_SCANNED):
        seen_id = execution.id
        if (
            read_parent(execution.parent) is None
            and (workflow is None or execution.workflow == workflow)
            and (execution_state is None or execution.state is execution_state)
        ):
            shown.append(show_execution(execution, with_tasks=False))
            if len(shown) == limit:
                break
    oldest_id = next(iter(state.executions), 0)
    return ExecutionPage(executions=shown, next_cursor=str(seen_id) if seen_id > oldest_id else "")


def list_memos(state: State, *, namespace: str, workflow: str | None, task: str, limit: int) -> MemoPage:
    found = [
        memo
        for memo in state.memos.kept.values()
        if memo.name[0] == namespace and workflow in (None, memo.name[1]) and task in ("", memo.name[2])
    ]
    return MemoPage(
        memos=[
            MemoView(
                namespace=memo.name[0],
                workflow=memo.name[1],
                task=memo.name[2],
                key=memo.name[3],
                execution=memo.execution_id,
                job=memo.job_id,
                output_bytes=len(memo.output or b""),
                made_ms=memo.made_ms,
            )
            for memo in reversed(found[-limit:])
        ],
        total=len(found),
    )


def show_template(template: Template, version: TemplateVersion, *, with_document: bool) -> TemplateView:
    return TemplateView(
        kind=template.kind,
        name=template.name,
        version=version.version,
        versions=[each.version for each in template.versions],
        actor=version.actor,
        put_ms=version.put_ms,
        log_index=version.log_index,
        document=msgspec.json.decode(version.document) if with_document else None,
    )


def list_templates(state: State, kind: str | None) -> TemplatePage:
    return TemplatePage(
        templates=[
            show_template(template, template.latest, with_document=False)
            for key, template in sorted(state.templates.items())
            if kind is None or key[0] == kind
        ]
    )
