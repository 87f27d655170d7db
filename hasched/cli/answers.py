"""`hasched job plan`, `job why`, `what-if` and `resources`: what would be, why not, when, and what there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from hasched.cli.exits import Exit
from hasched.cli.patience import patience
from hasched.cli.settings import DurationType, JobNumberType, Settings, json_option, namespace_option
from hasched.model.answers import HORIZON_MS
from hasched.model.errors import SpecInvalid
from hasched.model.spec import MAX_PRIORITY

if TYPE_CHECKING:
    from hasched.model.answers import Plan, WhatIf
    from hasched.model.yaml_text import Document

_HORIZON_HELP = "How far to look ahead, at most a week."


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE..."
)
@click.option(
    "--horizon", "horizon_ms", type=DurationType(HORIZON_MS), default="24h", show_default=True, help=_HORIZON_HELP
)
@namespace_option("Of jobs that name none; by default the context's namespace.")
@json_option
@click.pass_obj
def plan(settings: Settings, files: tuple[str, ...], horizon_ms: int, namespace: str | None) -> int:
    """Say what would come of the jobs of YAML files if they were submitted now, in their order. Nothing is submitted.

    Exits with 0 if all of it would start now, with 75 if something would wait, with 76 if a job would be refused. The check
    index that is printed goes with `hasched job submit --check-index`, which then submits only while the plan holds.
    """
    from hasched.cli.answer_text import print_plan
    from hasched.cli.output import print_json
    from hasched.cli.specs import within

    documents = _read(files)
    with settings.client() as client, patience(settings, "planning"):
        try:
            chosen = settings.namespace(namespace)
            planned = client.plan([within(chosen, document.value) for _, document in documents], horizon_ms)
        except SpecInvalid as error:
            raise _place(documents, error) from None
    if settings.as_json:
        print_json(planned)
    else:
        print_plan(planned)
    return _exit_of(planned)


def _exit_of(planned: Plan) -> int:
    if any(job.refused is not None for job in planned.jobs):
        return Exit.REFUSED
    return Exit.OK if all(job.later is None for job in planned.jobs) else Exit.TEMPORARY


def _read(files: Iterable[str]) -> list[tuple[str, Document]]:
    from hasched.cli.specs import read_job_file

    return [(path, document) for path in files for document in read_job_file(path)]


def _place(documents: list[tuple[str, Document]], error: SpecInvalid) -> SpecInvalid:
    """The managers' verdict on the first job that they don't take, with its lines."""
    from hasched.cli.specs import place_errors

    return place_errors(*documents[0], error) if len(documents) == 1 else error


@click.command()
@click.argument("job_id", type=JobNumberType(), metavar="JOB")
@click.option("--no-forecast", is_flag=True, help="Don't work out when it will start.")
@json_option
@click.pass_obj
def why(settings: Settings, job_id: int, no_forecast: bool) -> None:
    """Say why a job waits: everything in its way at once, and the smallest changes that would start it.

    Nodes are told of by class: alike in inventory, pool, taints, GPUs and state. Each reason has a code, which
    docs/reasons.md explains.
    """
    from hasched.cli.answer_text import print_why
    from hasched.cli.output import print_json

    with settings.client() as client, patience(settings, "working out when it will start"):
        answer = client.why(job_id, forecast=not no_forecast)
    if settings.as_json:
        print_json(answer)
    else:
        print_why(answer)


@click.command("what-if")
@click.option(
    "--add-nodes", "add_nodes", type=click.IntRange(min=1), help="So many nodes more, each `--like` that one."
)
@click.option("--like", metavar="NODE", help="What the added nodes are like.")
@click.option(
    "--remove-node", "remove_nodes", multiple=True, metavar="NODE", help="This node gone, with what runs on it."
)
@click.option("--drain-node", "drain_nodes", multiple=True, metavar="NODE", help="This node drained.")
@click.option(
    "--drain-label", "drain_labels", multiple=True, metavar="KEY=VALUE", help="All nodes with this label drained."
)
@click.option(
    "--drain-deadline", "wait_ms", type=DurationType(), help="What still runs on drained nodes then goes elsewhere."
)
@click.option(
    "--quota", "quotas", multiple=True, metavar="NAME.KEY=AMOUNT", help="A quota of this size: team-a.gpus=16."
)
@click.option("--queue", "queues", multiple=True, metavar="NAME.KEY=VALUE", help="A queue so: batch.max_running=10.")
@click.option("--cap", "caps", multiple=True, metavar="NAME.units=NUMBER", help="A cap or semaphore of this size.")
@click.option("--priority", "priorities", multiple=True, metavar="JOB=NUMBER", help="A job with this priority.")
@click.option(
    "--add-job",
    "add_jobs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="The jobs of this file beside the others.",
)
@click.option(
    "--without-job", "without_jobs", multiple=True, type=JobNumberType(), metavar="JOB", help="This job not there."
)
@click.option(
    "--horizon", "horizon_ms", type=DurationType(HORIZON_MS), default="24h", show_default=True, help=_HORIZON_HELP
)
@namespace_option("Of added jobs that name none; by default the context's namespace.")
@json_option
@click.pass_obj
def what_if(settings: Settings, /, *, horizon_ms: int, namespace: str | None, **options: Any) -> None:
    """Compare who starts when, as things are and as they would be. Options can be combined; nothing is changed.

    The cluster is rehearsed twice in virtual time, on copies of its state, with its own planner and rules.
    """
    from hasched.cli.answer_text import print_what_if
    from hasched.cli.output import print_json

    changes = _changes(options, settings.namespace(namespace) if options["add_jobs"] else None)
    if not changes:
        raise click.UsageError("nothing is supposed: give an option that says what")
    with settings.client() as client, patience(settings, "rehearsing both"):
        compared: WhatIf = client.what_if(changes, horizon_ms)
    if settings.as_json:
        print_json(compared)
    else:
        print_what_if(compared)


def _changes(options: dict[str, Any], namespace: str | None) -> dict[str, Any]:
    """What the API takes, without what isn't supposed."""
    from hasched.cli.specs import within

    if bool(options["add_nodes"]) != bool(options["like"]):
        raise click.UsageError("--add-nodes and --like go together")
    wait = {} if options["wait_ms"] is None else {"wait_ms": options["wait_ms"]}
    drain: list[dict[str, Any]] = [{"node": name, **wait} for name in options["drain_nodes"]]
    drain += [{"label": key, "value": value, **wait} for key, value in _pairs(options["drain_labels"], "--drain-label")]
    changes: dict[str, Any] = {
        "add_nodes": [{"count": options["add_nodes"], "like": options["like"]}] if options["add_nodes"] else [],
        "remove_nodes": list(options["remove_nodes"]),
        "drain": drain,
        "quotas": {place: _number(value) for place, value in _pairs(options["quotas"], "--quota")},
        "queues": {place: _number(value) for place, value in _pairs(options["queues"], "--queue")},
        "caps": {place: _number(value) for place, value in _pairs(options["caps"], "--cap")},
        "priorities": _priorities(options["priorities"]),
        "add_jobs": [within(namespace, document.value) for _, document in _read(options["add_jobs"])],
        "without_jobs": list(options["without_jobs"]),
    }
    return {key: value for key, value in changes.items() if value}


def _pairs(texts: Iterable[str], option: str) -> list[tuple[str, str]]:
    from hasched.cli.specs import read_pairs

    return list(read_pairs(texts, option).items())


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _priorities(texts: Iterable[str]) -> dict[str, int]:
    priorities = {}
    for job, number in _pairs(texts, "--priority"):
        whole = job.isascii() and job.isdigit() and number.isascii() and number.isdigit()
        if not whole or int(number[:20]) > MAX_PRIORITY:
            raise click.BadParameter(
                f"'{job}={number}' is not JOB=NUMBER, with a number from 0 to {MAX_PRIORITY}", param_hint="--priority"
            )
        priorities[job] = int(number)
    return priorities


@click.group()
def resources() -> None:
    """See what there is, what is free, and how it is scattered."""


@resources.command()
@click.option("--by", default="all", show_default=True, metavar="WHAT", help="pool, class, gpu_model or label.NAME.")
@json_option
@click.pass_obj
def show(settings: Settings, by: str) -> None:
    """Show of each resource what there is in all, allocated, held, unusable and free.

    `largest` is the most that is free on one node, `scattered` how much of what is free lies elsewhere.
    """
    from hasched.cli.answer_text import print_resources
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = client.resources(by)
    if settings.as_json:
        print_json(view)
    else:
        print_resources(view)
