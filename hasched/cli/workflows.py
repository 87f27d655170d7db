"""`hasched workflow`: a DAG of tasks in one file, executed and seen through."""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from hasched.cli.execution_logs import logs
from hasched.cli.exits import Exit
from hasched.cli.memos import forget, memos
from hasched.cli.schemas import schema_command
from hasched.cli.settings import DurationType, Settings, json_option, namespace_option
from hasched.model.errors import EventsCompacted, OutcomeUnknown

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.workflow_text import Parsed
    from hasched.model.workflow_views import ExecutionTaskView, ExecutionView
    from hasched.model.yaml_text import Document

STATES = ("running", "succeeded", "failed", "cancelled", "timed_out")
COLUMNS = ("id", "workflow", "state", "tasks", "by", "age", "took", "reason")
TASK_COLUMNS = ("task", "state", "instances", "job", "took", "reason")
_file = click.Path(exists=True, dir_okay=False, allow_dash=True)
_parameters = click.option(
    "-p", "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="The value of a parameter."
)
_WAIT = "Stay until it ends, say what happens, and exit with what came of it."


@click.group()
def workflow() -> None:
    """Execute workflows: DAGs of tasks, from one file."""


@workflow.command()
@click.argument("files", nargs=-1, required=True, type=_file, metavar="FILE...")
@json_option
@click.pass_obj
def validate(settings: Settings, /, files: tuple[str, ...]) -> None:
    """Say whether workflow files can be executed, and if not, what is wrong in which line. Asks no cluster.

    The templates that a workflow names are looked at when it is submitted.
    """
    from hasched.cli.output import print_json
    from hasched.model.words import counted

    found = [(path, read_workflow(path)[1]) for path in files]
    if settings.as_json:
        print_json([{"file": path, "workflow": parsed.spec.name, "names": parsed.open_names} for path, parsed in found])
        return
    for path, parsed in found:
        named = f"; it names {', '.join(parsed.open_names)}" if parsed.open_names else ""
        click.echo(f"{path}: workflow {parsed.spec.name}, {counted(len(parsed.spec.tasks), 'task')}{named}")


@workflow.command()
@click.argument("files", nargs=-1, required=True, type=_file, metavar="FILE...")
@json_option
@click.pass_obj
def submit(settings: Settings, /, files: tuple[str, ...]) -> None:
    """Keep workflows under their names, each as a new version; `hasched workflow run NAME` executes one."""
    from hasched.cli.output import print_json
    from hasched.cli.specs import placed

    documents = [(path, read_workflow(path)[0]) for path in files]
    views = []
    with settings.client() as client:
        for path, document in documents:
            with placed(path, document):
                views.append(client.put_template("workflow", document.value["name"], document.value))
    if settings.as_json:
        print_json(views)
        return
    for view in views:
        click.echo(f"workflow {view.name}, version {view.version}")


@workflow.command()
@click.argument("workflow_or_file", metavar="FILE|NAME")
@_parameters
@click.option("--timeout", "timeout_ms", type=DurationType(), help="Instead of the workflow's own.")
@namespace_option("Whose work it is, if the workflow doesn't say; by default the context's namespace.")
@click.option("--submission-id", metavar="ID", help="Execute at most once under this id, however often it is repeated.")
@click.option("--wait", is_flag=True, help=_WAIT)
@json_option
@click.pass_obj
def run(
    settings: Settings,
    /,
    *,
    workflow_or_file: str,
    parameters: tuple[str, ...],
    timeout_ms: int | None,
    namespace: str | None,
    submission_id: str | None,
    wait: bool,
) -> int:
    """Execute a workflow: that of a file, or the one that was submitted under a name."""
    from hasched.cli.output import print_json
    from hasched.cli.specs import placed, read_pairs

    given = read_pairs(parameters, "--param")
    document = read_workflow(workflow_or_file)[0] if _is_file(workflow_or_file) else None
    what: Any = workflow_or_file if document is None else document.value
    submission_id = submission_id or uuid.uuid4().hex
    with settings.client() as client:
        try:
            with nullcontext() if document is None else placed(workflow_or_file, document):
                view = client.execute(
                    what,
                    given,
                    timeout_ms=timeout_ms or 0,
                    namespace=settings.namespace(namespace),
                    submission_id=submission_id,
                )
        except OutcomeUnknown as error:
            hint = f"repeat it with --submission-id {submission_id}"
            raise OutcomeUnknown(error.cause, hint, submission_id=submission_id) from None
        if wait:
            return _see_through(settings, client, view)
    if settings.as_json:
        print_json(view)
    else:
        click.echo(f"execution {view.id}")
    return Exit.OK


def _is_file(text: str) -> bool:
    """A name has no dot at its end of a file, and no slash; a file is there."""
    from pathlib import Path

    return text == "-" or text.endswith((".yaml", ".yml", ".json")) or Path(text).is_file()


@workflow.command("list")
@click.option("--workflow", "name", metavar="NAME", help="Only of this workflow.")
@click.option("--state", type=click.Choice(STATES), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_executions(settings: Settings, /, *, name: str | None, state: str | None, limit: int) -> None:
    """List executions, newest first."""
    from itertools import islice

    from hasched.cli.output import age, print_json, print_table, took

    with settings.client() as client:
        views = list(islice(client.executions(name, state), limit))
    if settings.as_json:
        print_json(views)
        return
    rows = [
        (
            str(view.id),
            view.workflow + (f" v{view.version}" if view.version else ""),
            view.state,
            _told_states(view.tasks_by_state),
            view.actor,
            age(view.started_ms),
            took(view.started_ms, view.ended_ms),
            view.reason,
        )
        for view in views
    ]
    print_table(COLUMNS, rows, ("by", "age", "took"))


def _told_states(states: dict[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in states.items())


@workflow.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@json_option
@click.pass_obj
def show(settings: Settings, /, execution_id: int) -> None:
    """Show an execution and how far its tasks are."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = client.execution(execution_id)
    if settings.as_json:
        print_json(view)
        return
    print_execution(view)


def print_execution(view: ExecutionView) -> None:
    """What there is to tell, and a line for each task."""
    from hasched.cli.output import moment, origin, print_fields, print_table, took
    from hasched.model.words import counted

    given = ", ".join(f"{key}={value}" for key, value in view.parameters.items())
    print_fields(
        [
            ("execution", f"{view.id}, {view.workflow}" + (f" version {view.version}" if view.version else "")),
            ("state", view.state + (", being stopped" if view.stopping else "")),
            ("reason", view.reason),
            ("stage", view.stage if view.stage in ("undo", "final") else ""),
            ("parameters", given),
            ("by", view.actor),
            ("part of", origin(view.parent)),
            ("started", moment(view.started_ms)),
            ("ended", moment(view.ended_ms)),
            ("deadline", moment(view.deadline_ms) if not view.ended_ms else ""),
            ("retried", counted(view.round, "time") if view.round else ""),
            ("output", view.output),
        ]
    )
    click.echo()
    print_table(TASK_COLUMNS, [_task_row(task, took(task.started_ms, task.ended_ms)) for task in view.tasks or []])


def _task_row(task: ExecutionTaskView, took: str) -> tuple[str, ...]:
    reason = task.reason
    if task.kind == "approval" and task.state == "running":
        reason = f"asks: {task.approval}"
    elif task.memoised and not reason:
        reason = f"memoised: execution {task.memo_of} has left it" if task.memo_of else f"{task.memoised} memoised"
    counts = f"{task.instances.get('succeeded', 0)}/{task.count}" if task.fans_out and task.count else ""
    made = ("execution " if task.kind == "workflow" else "") + str(task.job) if task.job else ""
    return (task.name, task.state, counts, made, took, reason)


@workflow.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@json_option
@click.pass_obj
def wait(settings: Settings, /, execution_id: int) -> int:
    """Stay until an execution ends, say what happens, and exit with what came of it."""
    with settings.client() as client:
        return _see_through(settings, client, client.execution(execution_id))


def _see_through(settings: Settings, client: Client, view: ExecutionView) -> int:
    """Tell of each task as it ends, on stderr; the exit code stands for the whole."""
    from hasched.cli.output import print_json

    if not settings.as_json:
        click.echo(f"execution {view.id}", err=True)
        if not view.ended_ms:
            _narrate(client, view)
    view = client.wait_for_execution(view.id)
    if settings.as_json:
        print_json(view)
    elif view.output:
        click.echo(view.output)
    if not settings.as_json:
        said = f": {view.reason}" if view.reason else ""
        click.echo(f"execution {view.id} {view.state}{said}", err=True)
    return exit_for_execution(client, view)


def _narrate(client: Client, view: ExecutionView) -> None:
    from hasched.client import calls

    for task in view.tasks or []:
        if task.kind == "approval" and task.state == "running":
            _tell_question(view.id, task.name)
    try:
        for event in client.execution_events(view.id, calls.after_index(view.log_index), NARRATED):
            name = str(event.data.get("task", ""))
            if event.type == "ExecutionEnded":
                return
            if event.type == "ExecutionApprovalAsked":
                _tell_question(view.id, name)
            elif event.type == "ExecutionTaskEnded":
                reason = event.data.get("reason")
                click.echo(f"  {name} {event.data.get('state')}" + (f": {reason}" if reason else ""), err=True)
    except EventsCompacted:
        return  # how it ends is seen nevertheless


NARRATED = (
    "ExecutionTaskEnded",
    "ExecutionApprovalAsked",
    "ExecutionEnded",
    "ExecutionDeleted",
    "ExecutionExpired",
)


def _tell_question(execution_id: int, task: str) -> None:
    click.echo(f"  {task} waits for somebody: `hasched workflow approve {execution_id} {task}`", err=True)


def exit_for_execution(client: Client, view: ExecutionView) -> int:
    """The exit code of an execution that has ended: of one that failed, that of the command that failed first."""
    match view.state:
        case "succeeded":
            return Exit.OK
        case "timed_out":
            return Exit.TIMED_OUT
        case "cancelled":
            return Exit.CANCELLED
    for task in sorted(view.tasks or [], key=lambda task: task.ended_ms):
        if task.state == "failed" and task.kind == "job" and task.count:
            codes = (each.exit_code for each in client.instances(view.id, task.name) if each.state == "failed")
            return next((code for code in codes if code), 1)
    return 1


@workflow.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@click.option("--reason", default="", help="Why, for those who look later.")
@json_option
@click.pass_obj
def cancel(settings: Settings, /, execution_id: int, reason: str) -> None:
    """Begin nothing more of an execution and stop what runs. Compensation and `finally` run still; again, not they either."""
    with settings.client() as client:
        _say(settings, client.cancel_execution(execution_id, reason), "is being stopped")


@workflow.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@click.option("--wait", is_flag=True, help=_WAIT)
@json_option
@click.pass_obj
def retry(settings: Settings, /, execution_id: int, wait: bool) -> int:
    """Run again what failed of an execution that has ended, and everything after it; what succeeded stays as it is."""
    with settings.client() as client:
        view = client.retry_execution(execution_id)
        if wait:
            return _see_through(settings, client, view)
    _say(settings, view, "goes on")
    return Exit.OK


@workflow.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@click.argument("task")
@click.option("--comment", default="", help="For those who look later.")
@json_option
@click.pass_obj
def approve(settings: Settings, /, execution_id: int, task: str, comment: str) -> None:
    """Say yes to a task that asks: the tasks after it go on."""
    with settings.client() as client:
        _say(settings, client.decide_approval(execution_id, task, True, comment), f"goes on after {task}")


@workflow.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@click.argument("task")
@click.option("--comment", default="", help="For those who look later.")
@json_option
@click.pass_obj
def refuse(settings: Settings, /, execution_id: int, task: str, comment: str) -> None:
    """Say no to a task that asks: it has failed."""
    with settings.client() as client:
        _say(settings, client.decide_approval(execution_id, task, False, comment), f"was refused at {task}")


@workflow.command()
@click.argument("execution_id", type=click.IntRange(min=1), metavar="ID")
@json_option
@click.pass_obj
def delete(settings: Settings, /, execution_id: int) -> None:
    """Forget an execution that has ended."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        client.delete_execution(execution_id)
    if settings.as_json:
        print_json({"deleted": [execution_id]})
    else:
        click.echo(f"execution {execution_id} deleted")


def _say(settings: Settings, view: ExecutionView, what: str) -> None:
    from hasched.cli.output import print_json

    if settings.as_json:
        print_json(view)
    else:
        click.echo(f"execution {view.id} {what}")


@workflow.command()
@click.argument("file_or_id", metavar="FILE|ID")
@click.option("--format", "form", type=click.Choice(["text", "dot", "svg"]), default="text", show_default=True)
@json_option
@click.pass_obj
def graph(settings: Settings, /, file_or_id: str, form: str) -> None:
    """Draw a workflow file, or an execution with how far it is: as text, for Graphviz, or as SVG. --json lists the tasks."""
    from hasched.cli.graphs import dot_of, svg_of, text_of
    from hasched.cli.output import print_json

    if file_or_id.isdigit():
        with settings.client() as client:
            view = client.execution(int(file_or_id))
        name, tasks = f"execution {view.id}: {view.workflow}", view.tasks or []
    else:
        name, tasks = _tasks_of(read_workflow(file_or_id)[1])
    if settings.as_json:
        print_json(tasks)
        return
    match form:
        case "dot":
            click.echo(dot_of(name, tasks))
        case "svg":
            click.echo(svg_of(name, tasks))
        case _:
            click.echo("\n".join(text_of(tasks)))


def _tasks_of(parsed: Parsed) -> tuple[str, list[ExecutionTaskView]]:
    """The tasks of a file, as those of an execution that has not begun."""
    from hasched.model.workflow_views import ExecutionTaskView, TaskBefore

    specs = parsed.spec.tasks
    return parsed.spec.name, [
        ExecutionTaskView(
            name=task.name,
            state="waiting",
            role=task.role.name.lower(),
            kind=task.kind,
            after=[TaskBefore(task=specs[each.row].name, when=each.when.value) for each in task.after],
            fans_out=task.fans_out,
        )
        for task in specs
    ]


for command in (schema_command("workflow"), logs, memos, forget):
    workflow.add_command(command)


def read_workflow(path: str) -> tuple[Document, Parsed]:
    """The document of a workflow file, looked at as the managers would. Raises FileInvalid with all that is wrong."""
    from hasched.cli.specs import FileInvalid, place_errors, read_document_file
    from hasched.model.errors import FieldError, SpecInvalid, WorkflowInvalid
    from hasched.model.workflow_text import parse_workflow

    documents = read_document_file(path, fillable=True)
    if len(documents) != 1:
        cause = f"a workflow is one document, and there are {len(documents)}"
        raise FileInvalid(path, [FieldError("", cause, line=1)], WorkflowInvalid.code)
    try:
        return documents[0], parse_workflow(documents[0].value)
    except SpecInvalid as error:
        raise place_errors(path, documents[0], error) from None
