"""`hasched import`: jobs out of scripts for Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hasched.cli.settings import Settings, json_option
from hasched.model.errors import FieldError

if TYPE_CHECKING:
    from hasched.cli.slurm.translate import Remark


@click.group("import")
def import_() -> None:
    """Make jobs of what was written for others."""


@import_.command()
@click.argument(
    "scripts",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    metavar="SCRIPT...",
)
@click.option("--timezone", default="UTC", show_default=True, help="The zone of the times in it.")
@click.option("--workdir", metavar="DIR", help="Where sbatch would be called, and the job runs; by default here.")
@click.option("--notify", default="", metavar="NAME", help="The notification that is told of what --mail-type says.")
@click.option("--strict", is_flag=True, help="Print nothing, and fail, if an option isn't taken.")
@json_option
@click.pass_obj
def sbatch(
    settings: Settings, /, *, scripts: tuple[str, ...], timezone: str, workdir: str | None, notify: str, strict: bool
) -> None:
    """Make a job file of scripts for sbatch, for `job submit`; `-` reads stdin.

    What their #SBATCH lines say is said in the job file, and what means something else here, or nothing, is said on stderr,
    line by line. Variables of Slurm that a script speaks of are set at its beginning.
    """
    from hasched.cli.output import print_json
    from hasched.cli.slurm.translate import read_sbatch
    from hasched.cli.specs import FileInvalid, read_text
    from hasched.timetable.zones import zone_names

    if timezone not in zone_names():
        raise click.BadParameter(f"there is no time zone {timezone!r}", param_hint="--timezone")
    directory = str(Path(workdir or ".").absolute())
    documents, remarks = [], []
    for script in scripts:
        text = read_text(script)
        if not text.startswith("#!"):
            raise FileInvalid(script, [FieldError("", "a script begins with a line such as #!/bin/sh", line=1)])
        found = read_sbatch(text, "" if script == "-" else Path(script).name, directory, timezone, notify)
        if strict and (refused := [remark for remark in found.remarks if not remark.taken]):
            raise FileInvalid(script, [FieldError(each.option, each.text, line=each.line) for each in refused])
        documents.append(found.document)
        remarks += [("stdin" if script == "-" else script, remark) for remark in found.remarks]
    if settings.as_json:
        print_json({"jobs": documents, "remarks": [{"file": file, **each._asdict()} for file, each in remarks]})
        return
    for file, remark in remarks:
        click.echo(_sentence(file, remark), err=True)
    click.echo(write_documents(documents), nl=False)


def _sentence(file: str, remark: Remark) -> str:
    how = "" if remark.taken else " is not taken"
    return f"{file}:{remark.line}: {remark.option}{how}: {remark.text}"


def write_documents(documents: list[dict[str, object]]) -> str:
    """As YAML, a script as the block that it is."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, represent)
    return yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
