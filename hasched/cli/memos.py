"""`hasched workflow memos` and `forget`: what memoised tasks have left."""

from __future__ import annotations

import click

from hasched.cli.settings import Settings, json_option, namespace_option

_NAMESPACE = "Whose workflow it is; by default the context's namespace."


@click.command()
@click.argument("workflow", required=False)
@click.option("--task", default="", help="Only of this task.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@namespace_option(_NAMESPACE)
@json_option
@click.pass_obj
def memos(settings: Settings, /, *, workflow: str | None, task: str, limit: int, namespace: str | None) -> None:
    """List what memoised tasks have left, the latest first."""
    from hasched.cli.output import age, print_json, print_table

    with settings.client() as client:
        page = client.memos(workflow, task, settings.namespace(namespace), limit)
    if settings.as_json:
        print_json(page)
        return
    rows = [
        (each.workflow, each.task, each.key, str(each.execution), str(each.job), age(each.made_ms))
        for each in page.memos
    ]
    print_table(("workflow", "task", "key", "execution", "job", "age"), rows, (), "nothing is remembered")
    if page.total > len(page.memos):
        click.echo(f"hasched: these are the latest {len(page.memos)} of {page.total}", err=True)


@click.command()
@click.argument("workflow")
@click.option("--task", default="", help="Only of this task.")
@click.option("--key", default="", help="Only under this key.")
@namespace_option(_NAMESPACE)
@json_option
@click.pass_obj
def forget(settings: Settings, /, *, workflow: str, task: str, key: str, namespace: str | None) -> None:
    """Forget what memoised tasks of a workflow have left: they run again."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        client.forget_memos(workflow, task, key, settings.namespace(namespace))
    if settings.as_json:
        print_json({"forgotten": {"workflow": workflow, "task": task, "key": key}})
    else:
        click.echo(f"workflow {workflow}: forgotten")
