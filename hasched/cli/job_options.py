"""The options that say what a job is: of `hasched job run`, of `hasched job submit SCRIPT`, and of a script's `#HASCHED` lines.

It is one list, and one way from options to a document, so what one of them takes all of them take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from hasched.cli.settings import namespace_option

Function = TypeVar("Function", bound=Callable[..., Any])

# Options whose values are KEY=VALUE: what is given later is added, and wins where it has the same key.
KEYED = ("env", "labels", "semaphores", "countables")

_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option("--name", help="The job's name; by default the command's."),
    click.option(
        "--count", type=click.IntRange(min=1), help="Run an array of so many tasks; each gets HASCHED_TASK_INDEX."
    ),
    click.option("--max-running", type=click.IntRange(min=1), help="At most so many of the tasks at once."),
    click.option("--gang", is_flag=True, help="Start all tasks together or none, and end them together."),
    click.option("--min-count", type=click.IntRange(min=1), help="Elastic: so many of the tasks are enough to start."),
    click.option("--cpu", metavar="CPU", help="CPU cores for each task: 2, 0.5, 500m."),
    click.option("--memory", metavar="SIZE", help="Memory for each task: 512Mi, 4G."),
    click.option("--gpu", "--gpus", "gpu", type=click.IntRange(min=0), help="GPUs for each task."),
    click.option(
        "--gpu-model",
        "gpu_models",
        multiple=True,
        metavar="MODEL",
        help="Which GPUs will do: A100, T4; of several, any.",
    ),
    click.option("--gpu-memory", metavar="SIZE", help="Memory that each of the GPUs has at least: 40G."),
    click.option("--disk", metavar="SIZE", help="Disk for each task, of what nodes offer."),
    click.option(
        "--countable",
        "countables",
        multiple=True,
        metavar="NAME[=AMOUNT]",
        help="Named things that nodes offer, for each task: licence=2, mig-1g.10gb.",
    ),
    click.option(
        "--resource-class", metavar="CLASS", help="standard, large, or one of your own: it gives the amounts."
    ),
    click.option("--pool", "pools", multiple=True, metavar="POOL", help="Run on nodes of this pool; of several, any."),
    click.option(
        "--constraint", "constraints", multiple=True, metavar="TEXT", help="What must hold of a node: 'kernel >= 5.15'."
    ),
    click.option(
        "--tolerate",
        "tolerations",
        multiple=True,
        metavar="KEY[=VALUE]",
        help="A taint of nodes that doesn't keep it away.",
    ),
    click.option(
        "--spread", "spreads", multiple=True, metavar="LABEL", help="Spread the tasks over it: rack; or node."
    ),
    click.option(
        "--gpu-locality",
        type=click.Choice(["same_numa", "nvlink"]),
        help="GPUs of a task as near to each other as can be had.",
    ),
    click.option("--timeout", metavar="DURATION", help="Kill an attempt after so long: 10s, 1h30m."),
    click.option("--kill-grace", metavar="DURATION", help="Between TERM and KILL when an attempt is stopped."),
    click.option(
        "--warn",
        metavar="SIGNAL@DURATION",
        help="Send a signal so long before TERM when the room is taken back: USR1@60s.",
    ),
    click.option("--retries", type=click.IntRange(min=0), help="Try a failed task again, so many times."),
    click.option("--env", "env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable, or pass ours on."),
    click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Mark the job."),
    click.option("--priority", type=int, help="Larger starts first."),
    click.option(
        "--priority-class", metavar="CLASS", help="low, medium, high, or one of your own: it gives the priority."
    ),
    click.option("--queue", help="The queue to wait in."),
    click.option(
        "--not-before", metavar="WHEN", help="Start nothing before a time (2026-12-24T18:00:00Z), or for so long (2h)."
    ),
    click.option("--deadline", metavar="WHEN", help="Stop what has not ended by a time, or after so long."),
    click.option("--dependency", metavar="EXPR", help="Wait for other jobs: afterok:12:13,after:14+10m; singleton."),
    click.option(
        "--on-broken-dependency", type=click.Choice(["cancel", "wait"]), help="What to do when that can't be any more."
    ),
    namespace_option("Whose work it is; by default the context's namespace."),
    click.option("--tag", "tags", multiple=True, metavar="NAME", help="Caps may count by it."),
    click.option(
        "--semaphore", "semaphores", multiple=True, metavar="NAME[=UNITS]", help="Units that each running task holds."
    ),
    click.option("--notify", "targets", multiple=True, metavar="NAME", help="Tell this notification how it ends."),
    click.option(
        "--workdir", metavar="DIR", help="Run there, on the node; by default a directory of the attempt's own."
    ),
    click.option(
        "--input",
        "input_file",
        type=click.File("rb"),
        metavar="FILE",
        help="Hand this file (`-`: our stdin), of at most 256 KiB, to each task, as the file $HASCHED_INPUT.",
    ),
    click.option(
        "--on-disconnect", type=click.Choice(["run_on", "stop"]), help="What a task does if its node is cut off."
    ),
)


def job_options(function: Function) -> Function:
    """All of them, on a command."""
    decorated: Any = function
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def document_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a job's document that these options stand for. What is None, empty or missing says nothing."""
    from hasched.cli.specs import read_input, read_pairs, read_units, read_warning

    def listed(name: str) -> list[str]:
        return list(options.get(name, ()))

    resources = {
        "cpu": options.get("cpu"),
        "memory": options.get("memory"),
        "gpus": options.get("gpu"),
        "gpu_model": listed("gpu_models"),
        "gpu_memory": options.get("gpu_memory"),
        "disk": options.get("disk"),
        "countables": read_units(options.get("countables", ()), "--countable"),
    }
    placement = {
        "pool": listed("pools"),
        "constraints": listed("constraints"),
        "tolerations": listed("tolerations"),
        "resource_class": options.get("resource_class"),
        "spread": listed("spreads"),
        "gpu_locality": options.get("gpu_locality"),
    }
    file = options.get("input_file")
    document = {
        "name": options.get("name"),
        "count": options.get("count"),
        "max_running": options.get("max_running"),
        "gang": options.get("gang") or None,
        "min_count": options.get("min_count"),
        "resources": _given(resources),
        "placement": _given(placement),
        "timeout": options.get("timeout"),
        "kill_grace": options.get("kill_grace"),
        "preemption": read_warning(options.get("warn")),
        "retries": options.get("retries"),
        "env": read_pairs(options.get("env", ()), "--env", from_environment=True),
        "labels": read_pairs(options.get("labels", ()), "--label"),
        "priority": options.get("priority"),
        "priority_class": options.get("priority_class"),
        "queue": options.get("queue"),
        "not_before": options.get("not_before"),
        "deadline": options.get("deadline"),
        "dependency": options.get("dependency"),
        "on_broken_dependency": options.get("on_broken_dependency"),
        "namespace": options.get("namespace"),
        "tags": listed("tags"),
        "semaphores": read_units(options.get("semaphores", ()), "--semaphore"),
        "notify": _given({"targets": listed("targets")}),
        "working_dir": options.get("workdir"),
        "input": read_input(file) if file is not None else None,
        "on_disconnect": options.get("on_disconnect"),
    }
    return _given(document)


def _given(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None and value not in ([], {})}
