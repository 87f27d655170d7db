"""`hasched config validate`: every error of a configuration file at once, each with its line."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hasched.cli.exits import Exit
from hasched.cli.settings import Settings, json_option
from hasched.model.errors import ConfigInvalid, FieldError

KINDS = ("manager", "agent")
_MANAGER_KEYS = ("members", "raft", "cluster", "tokens", "api")


@click.group()
def config() -> None:
    """Check configuration files."""


@config.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(KINDS), help="What the file configures; by default it is told from its keys.")
@click.option("--files", is_flag=True, help="Check the certificates and tokens that it names, too.")
@json_option
@click.pass_obj
def validate(settings: Settings, file: Path, kind: str | None, files: bool) -> int:
    """Check a file under this environment's overrides; exit with 78 if a daemon could not start with it."""
    from hasched.cli.output import print_json

    errors: list[FieldError] = []
    try:
        kind = kind or detect_kind(file)
        if kind == "manager":
            from hasched.manager.config import find_file_problems, load_manager_config

            manager = load_manager_config(file, os.environ)
            errors = list(find_file_problems(manager)) if files else []
        else:
            from hasched.agent.config import load_agent_config
            from hasched.client.tls import PeerIdentity, find_tls_problems

            agent = load_agent_config(file, os.environ)
            tls, identity = agent.tls, PeerIdentity("agent", agent.node_id)
            errors = list(find_tls_problems(tls.ca, tls.cert, tls.key, identity)) if files else []
    except ConfigInvalid as error:
        errors = error.errors
    if settings.as_json:
        listed = [{"line": error.line, "path": error.path, "cause": error.cause} for error in errors]
        print_json({"file": str(file), "kind": kind, "valid": not errors, "errors": listed})
    elif errors:
        click.echo(str(ConfigInvalid(str(file), errors)), err=True)
    else:
        click.echo(f"{file}: a valid {kind} configuration")
    return Exit.BAD_CONFIG if errors else Exit.OK


def detect_kind(path: Path) -> str:
    """`manager` or `agent`, by the keys that only a manager's file has. Raises ConfigInvalid for broken YAML."""
    from hasched.client.files import read_config
    from hasched.model.yaml_text import read_documents

    documents = read_documents(read_config(path), str(path))
    value = documents[0].value if documents else None
    return "manager" if isinstance(value, dict) and any(key in value for key in _MANAGER_KEYS) else "agent"
