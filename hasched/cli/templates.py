"""`hasched template`: documents of jobs and workflows that are kept in versions; and `hasched job dispatch`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import click

from hasched.cli.schemas import schema_command
from hasched.cli.settings import Settings, json_option, namespace_option

if TYPE_CHECKING:
    from hasched.model.workflow_views import TemplateView

_kind = click.option(
    "--kind", type=click.Choice(["job", "workflow"]), default="job", show_default=True, help="What it is a template of."
)


@click.group()
def template() -> None:
    """Keep jobs and workflows with parameters, in versions."""


template.add_command(schema_command("job-template"))


@template.command()
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@_kind
@click.option("--if-version", type=click.IntRange(min=0), metavar="N", help="Only if the latest version is still N.")
@json_option
@click.pass_obj
def put(settings: Settings, /, *, name: str, file: str, kind: str, if_version: int | None) -> None:
    """Keep the document of a file under a name, as a new version. A job's is a job with `parameters`."""
    document = _read(file, kind)
    with settings.client() as client:
        view = client.put_template(kind, name, document, if_version)
    _say(settings, view)


def _read(path: str, kind: str) -> dict[str, Any]:
    from hasched.cli.specs import FileInvalid, place_errors, read_document_file
    from hasched.cli.workflows import read_workflow
    from hasched.model.errors import FieldError, SpecInvalid
    from hasched.model.parameters import check_template

    if kind == "workflow":
        return dict(read_workflow(path)[0].value)
    documents = read_document_file(path, fillable=True)
    if len(documents) != 1 or not isinstance(documents[0].value, dict):
        raise FileInvalid(path, [FieldError("", "a template is one document, a mapping of a job's keys", line=1)])
    if problems := check_template(documents[0].value):
        raise place_errors(path, documents[0], SpecInvalid(problems))
    return dict(documents[0].value)


@template.command("list")
@click.option("--kind", type=click.Choice(["job", "workflow"]), help="Only of these.")
@json_option
@click.pass_obj
def list_templates(settings: Settings, /, kind: str | None) -> None:
    """List templates."""
    from hasched.cli.output import age, print_json, print_table

    with settings.client() as client:
        page = client.templates(kind)
    if settings.as_json:
        print_json(page.templates)
        return
    rows = [(each.kind, each.name, str(each.version), each.actor, age(each.put_ms)) for each in page.templates]
    print_table(("kind", "name", "version", "by", "age"), rows)


@template.command()
@click.argument("name")
@_kind
@click.option("--version", type=click.IntRange(min=1), metavar="N", help="One before the latest.")
@json_option
@click.pass_obj
def show(settings: Settings, /, *, name: str, kind: str, version: int | None) -> None:
    """Print the document of a template, as YAML."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = client.template(kind, name, version)
    if settings.as_json:
        print_json(view)
    else:
        click.echo("\n".join(_lines_of(view)))


def _lines_of(view: TemplateView) -> list[str]:
    import yaml

    return yaml.safe_dump(view.document, sort_keys=False, allow_unicode=True, width=120).rstrip().split("\n")


@template.command()
@click.argument("name")
@click.argument("before", type=click.IntRange(min=1), metavar="N")
@click.argument("after", type=click.IntRange(min=1), required=False, metavar="[M]")
@_kind
@json_option
@click.pass_obj
def diff(settings: Settings, /, *, name: str, before: int, after: int | None, kind: str) -> None:
    """Show what is other in version M, by default the latest, than in version N. --json gives the lines."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        one, other = client.template(kind, name, before), client.template(kind, name, after)
    titles = (f"{name} version {one.version}", f"{name} version {other.version}")
    lines = list(difflib.unified_diff(_lines_of(one), _lines_of(other), *titles, lineterm=""))
    if settings.as_json:
        print_json({"before": one.version, "after": other.version, "lines": lines})
    elif lines:
        click.echo("\n".join(lines))


@template.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1), metavar="N")
@_kind
@json_option
@click.pass_obj
def revert(settings: Settings, /, *, name: str, version: int, kind: str) -> None:
    """Put version N again, as a new version."""
    with settings.client() as client:
        view = client.revert_template(kind, name, version)
    _say(settings, view)


@template.command()
@click.argument("name")
@_kind
@json_option
@click.pass_obj
def delete(settings: Settings, /, name: str, kind: str) -> None:
    """Delete a template with all its versions; what was made of it goes on."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        client.delete_template(kind, name)
    if settings.as_json:
        print_json({"deleted": {"kind": kind, "name": name}})
    else:
        click.echo(f"{kind} {name} deleted")


def _say(settings: Settings, view: TemplateView) -> None:
    from hasched.cli.output import print_json

    if settings.as_json:
        print_json(view)
    else:
        click.echo(f"{view.kind} {view.name}, version {view.version}")


@click.command()
@click.argument("name")
@click.option("-p", "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="The value of a parameter.")
@namespace_option("Whose work it is, if the template doesn't say; by default the context's namespace.")
@click.option("--submission-id", metavar="ID", help="Submit at most once under this id, however often it is repeated.")
@json_option
@click.pass_obj
def dispatch(
    settings: Settings, /, *, name: str, parameters: tuple[str, ...], namespace: str | None, submission_id: str | None
) -> None:
    """Submit the job of a job template, with these parameters."""
    from hasched.cli.output import print_json
    from hasched.cli.specs import read_pairs

    given = read_pairs(parameters, "--param")
    with settings.client() as client:
        submitted = client.dispatch(name, given, namespace=settings.namespace(namespace), submission_id=submission_id)
    if settings.as_json:
        print_json(submitted)
    else:
        click.echo(str(submitted.id))
