"""`hasched certs` and `hasched token`: who may be a manager, an agent, a user of this cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hasched.cli.settings import Settings, json_option
from hasched.model.errors import NotFound
from hasched.model.ids import is_name

if TYPE_CHECKING:
    from hasched.certs.issuing import Issued

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default="certs",
    show_default=True,
    help="Where the CA and the pairs are kept.",
)


@click.group()
def certs() -> None:
    """Issue the cluster's CA and certificates."""


@certs.command()
@directory_option
@click.option("--cluster", default="hasched", show_default=True, help="The cluster's name.")
@click.option(
    "--days", type=click.IntRange(1, 36500), default=3650, show_default=True, help="How long the CA is valid."
)
@json_option
@click.pass_obj
def init(settings: Settings, directory: Path, cluster: str, days: int) -> None:
    """Create the cluster's CA. Its key signs every other certificate: keep it safe, and off the managers."""
    from hasched.certs.issuing import create_ca

    _print(settings, create_ca(directory, cluster, days))


@certs.command()
@click.argument("name")
@click.option("--host", "hosts", multiple=True, help="A host name or address of it, for browsers and other tools.")
@directory_option
@click.option("--days", type=click.IntRange(1, 3650), default=825, show_default=True, help="How long it is valid.")
@json_option
@click.pass_obj
def manager(settings: Settings, name: str, hosts: tuple[str, ...], directory: Path, days: int) -> None:
    """Issue the certificate of the manager NAME."""
    from hasched.certs.issuing import issue_manager

    _print(settings, issue_manager(directory, name, hosts, days))


@certs.command()
@click.argument("name")
@directory_option
@click.option("--days", type=click.IntRange(1, 3650), default=825, show_default=True, help="How long it is valid.")
@json_option
@click.pass_obj
def agent(settings: Settings, name: str, directory: Path, days: int) -> None:
    """Issue the certificate of the agent on the node NAME."""
    from hasched.certs.issuing import issue_agent

    _print(settings, issue_agent(directory, name, days))


@certs.command()
@directory_option
@json_option
@click.pass_obj
def show(settings: Settings, directory: Path) -> None:
    """List the certificates, with the days that each has left."""
    from hasched.certs.issuing import describe
    from hasched.cli.output import print_json, print_table

    if not directory.is_dir():
        raise NotFound(f"there is no directory {directory}", "create the cluster's CA with `hasched certs init`")
    found = [describe(path) for path in sorted(directory.glob("*.crt"))]
    if settings.as_json:
        print_json({"certificates": found})
    else:
        print_table(
            ("file", "role", "name", "days left", "hosts"),
            ((cert.file, cert.role, cert.name, str(cert.days_left), ", ".join(cert.hosts)) for cert in found),
        )


@click.group()
def token() -> None:
    """Manage the tokens that people and programs log in with."""


tokens_option = click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="tokens.json",
    show_default=True,
    help="The managers' tokens file; copy it to each of them.",
)


@token.command()
@click.argument("name")
@tokens_option
@json_option
@click.pass_obj
def create(settings: Settings, name: str, file: Path) -> None:
    """Create a token for NAME and print it, once: the file holds only its hash."""
    from hasched.certs.issuing import create_token
    from hasched.cli.output import print_json

    if not is_name(name):
        raise click.BadParameter(f"{name!r} is not a name", param_hint="NAME")
    secret = create_token(file, name)
    if settings.as_json:
        print_json({"name": name, "token": secret, "file": str(file)})
    else:
        click.echo(secret)


@token.command("list")
@tokens_option
@json_option
@click.pass_obj
def list_tokens(settings: Settings, file: Path) -> None:
    """List whose tokens are in the file."""
    from hasched.certs.issuing import read_tokens
    from hasched.cli.output import print_json

    if not file.exists():
        raise NotFound(f"there is no {file}", "create a token with `hasched token create`")
    names = [entry.name for entry in read_tokens(file)]
    if settings.as_json:
        print_json({"tokens": names})
    else:
        click.echo("".join(f"{name}\n" for name in names), nl=False)


@token.command()
@click.argument("name")
@tokens_option
@json_option
@click.pass_obj
def revoke(settings: Settings, name: str, file: Path) -> None:
    """Take the token of NAME out of the file. Managers refuse it seconds after their copy has changed."""
    from hasched.certs.issuing import revoke_token
    from hasched.cli.output import print_json

    revoke_token(file, name)
    if settings.as_json:
        print_json({"revoked": name, "file": str(file)})
    else:
        click.echo(f"the token of {name} is out of {file}; copy it to the managers")


def _print(settings: Settings, issued: Issued) -> None:
    from hasched.cli.output import print_json

    if settings.as_json:
        print_json(issued)
    else:
        click.echo(f"{issued.cert} and {issued.key}, valid until {issued.info.not_after[:10]}")
