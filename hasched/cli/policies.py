"""`hasched policy`: what operators decide about work, as documents that are put, shown and deleted whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hasched.cli.schemas import schema_command
from hasched.cli.settings import Settings, json_option
from hasched.model.errors import FieldError, PolicyInvalid

if TYPE_CHECKING:
    from hasched.client.sync import Client
    from hasched.model.views import PolicyView


@click.group()
def policy() -> None:
    """Set queues, quotas, caps, prices and other policies."""


policy.add_command(schema_command("policy"))


@policy.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE..."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only show what would change, or be refused; the managers check it as if it were put.",
)
@click.option("--allow-unknown-nodes", is_flag=True, help="Take reservations of nodes that are not there yet.")
@json_option
@click.pass_obj
def apply(settings: Settings, files: tuple[str, ...], dry_run: bool, allow_unknown_nodes: bool) -> None:
    """Put the policies of YAML files, one for each document (`---`), in their order; `-` reads stdin.

    A policy is put whole: what its document leaves out is as by default. Mistakes are named with their lines, and then
    nothing is put, nor where the managers would refuse one. A policy that somebody else changes at the same time is not
    overwritten.
    """
    from hasched.cli.output import print_json

    wanted = [each for path in files for each in _read_policy_file(path)]
    changes = []
    with settings.client() as client:
        if dry_run or len(wanted) > 1:
            documents = [{"kind": kind, "name": name, **document} for kind, name, document in wanted]
            client.check_policies(documents, allow_unknown_nodes=allow_unknown_nodes)
        present = {(view.kind, view.name): view for view in client.policies().policies}
        for kind, name, document in wanted:
            known = present.get((kind, name))
            difference = compare(known.document if known is not None else {}, document)
            if known is None or known.document != document:
                did = "created" if known is None else "changed"
                if not dry_run:
                    index = known.log_index if known is not None else 0
                    present[kind, name] = client.put_policy(
                        kind, name, document, index, allow_unknown_nodes=allow_unknown_nodes
                    )
            else:
                did = "unchanged"
            changes.append({"kind": kind, "name": name, "did": did, "difference": difference})
            if not settings.as_json:
                _say(kind, name, did, difference if dry_run else [], dry_run)
    if settings.as_json:
        print_json({"dry_run": dry_run, "policies": changes})


def _say(kind: str, name: str, did: str, difference: list[str], dry_run: bool) -> None:
    would = {"created": "would be created", "changed": "would be changed"}.get(did, did) if dry_run else did
    click.echo(f"{kind}/{name} {would}")
    for line in difference:
        click.echo(f"  {line}")


def compare(present: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What becomes other, a line for each key: `+ weight: 2`, `- weight: 2`, `~ weight: 2 -> 3`."""
    before, after = _flatten(present), _flatten(wanted)
    lines = []
    for key in sorted(before | after):
        if key not in before:
            lines.append(f"+ {key}: {after[key]}")
        elif key not in after:
            lines.append(f"- {key}: {before[key]}")
        elif before[key] != after[key]:
            lines.append(f"~ {key}: {before[key]} -> {after[key]}")
    return lines


def _flatten(document: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _plain(value)
    return flat


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_policy_file(path: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Kind, name and canonical document of each policy of a file. Raises FileInvalid with all that is wrong."""
    from hasched.cli.specs import FileInvalid, place_errors, read_document_file
    from hasched.model.policy_text import name_of, parse_policy, write_policy

    documents = read_document_file(path)
    if not documents:
        raise FileInvalid(path, [FieldError("", "there is no policy in it", line=1)], PolicyInvalid.code)
    found, errors = [], []
    for document in documents:
        try:
            kind, name = name_of(document.value)
            found.append((kind, name, write_policy(parse_policy(kind, name, document.value)[1])))
        except PolicyInvalid as error:
            errors += place_errors(path, document, error).errors
    if errors:
        raise FileInvalid(path, errors, PolicyInvalid.code)
    return found


@policy.command()
@click.argument("kind")
@click.argument("name")
@json_option
@click.pass_obj
def get(settings: Settings, kind: str, name: str) -> None:
    """Show a policy as a document that `hasched policy apply` takes."""
    show_policy(settings, kind, name)


def show_policy(settings: Settings, kind: str, name: str) -> None:
    from hasched.cli.output import print_json

    with settings.client() as client:
        view = client.policy(kind, name)
    if settings.as_json:
        print_json(view)
    else:
        click.echo(document_text(view), nl=False)


def document_text(view: PolicyView) -> str:
    """A policy as a document, under a comment that says who put it."""
    from hasched.cli.output import moment

    by = (
        "built in" if view.built_in else f"put by {view.actor} at {moment(view.changed_ms)}, log index {view.log_index}"
    )
    return f"# {by}\n" + as_yaml({"kind": view.kind, "name": view.name, **view.document})


def as_yaml(document: dict[str, Any]) -> str:
    """A document as people write it: keys in their order, short lists on a line."""
    import yaml

    def dump(key: str, value: Any) -> str:
        flow = None if isinstance(value, (dict, list)) else False
        return yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=120)

    return "".join(dump(key, value) for key, value in document.items())


@policy.command("list")
@click.option("--kind", help="Only of this kind.")
@json_option
@click.pass_obj
def list_policies(settings: Settings, kind: str | None) -> None:
    """List policies."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.policies(kind)
    if settings.as_json:
        print_json(page)
        return
    print_table(
        ("kind", "name", "content", "by", "changed"),
        ((view.kind, view.name, summary(view), *author(view)) for view in page.policies),
        ("changed", "by"),
    )


@policy.command()
@click.argument("kind")
@click.argument("name")
@click.option("--if-index", type=click.IntRange(min=0), help="Only if its log index is still this.")
@json_option
@click.pass_obj
def delete(settings: Settings, kind: str, name: str, if_index: int | None) -> None:
    """Delete a policy that nothing refers to; a built-in one comes back as it was."""
    from hasched.cli.output import print_json

    with settings.client() as client:
        client.delete_policy(kind, name, if_index)
    if settings.as_json:
        print_json({"deleted": {"kind": kind, "name": name}})
    else:
        click.echo(f"{kind}/{name} deleted")


@click.group()
def namespace() -> None:
    """List namespaces."""


@namespace.command("list")
@json_option
@click.pass_obj
def list_namespaces(settings: Settings) -> None:
    """List namespaces. `hasched policy apply` makes them, `hasched policy delete namespace NAME` removes one."""
    from hasched.cli.output import print_json, print_table

    with settings.client() as client:
        page = client.policies("namespace")
    if settings.as_json:
        print_json({"namespaces": page.policies})
        return
    print_table(
        ("namespace", "description", "by", "changed"),
        ((view.name, str(view.document.get("description", "")), *author(view)) for view in page.policies),
        ("changed", "by"),
    )


def summary(view: PolicyView) -> str:
    """A policy's content in a line."""
    flat = _flatten({key: value for key, value in view.document.items() if key != "description"})
    return ", ".join(f"{key}: {value}" for key, value in flat.items()) or str(view.document.get("description", ""))


def author(view: PolicyView) -> tuple[str, str]:
    """Who changed it last, and when, as a row has it."""
    from hasched.cli.output import clock

    return ("built in" if view.built_in else view.actor), clock(view.changed_ms)


def change_policy(client: Client, kind: str, name: str, **keys: Any) -> PolicyView:
    """Put keys of a policy anew, as long as nobody else changes it at the same time."""
    view = client.policy(kind, name)
    document = view.document | keys
    if document == view.document:
        return view
    return client.put_policy(kind, name, document, if_index=view.log_index)
