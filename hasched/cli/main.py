"""The command `hasched`: one group of lazily imported commands, and one place where errors become messages and exit codes."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

import hasched
from hasched.cli.exits import MEANINGS, Exit, exit_for_error, exit_for_usage
from hasched.cli.settings import DurationType, Settings
from hasched.model.errors import ConfigInvalid, HaschedError

if TYPE_CHECKING:
    from hasched.cli.extensions import Extension

HELP_WIDTH = 100
_BOUNDS = re.compile(r" is not in the range (?:(-?\d+)<=x<=(-?\d+)|x<=(-?\d+)|x>=(-?\d+))$")
_QUOTES = "'"  # that click puts around the name of an option

# Where each command lives, and what `--help` says of it without importing that module.
COMMANDS: dict[str, tuple[str, str]] = {
    "agent": ("hasched.cli.daemons:agent", "Run an agent: the daemon of a machine that does work."),
    "cap": ("hasched.cli.caps:cap", "Look at caps and semaphores."),
    "certs": ("hasched.cli.certs:certs", "Issue the cluster's CA and certificates."),
    "completion": ("hasched.cli.completion:completion", "Print the completion script of a shell."),
    "config": ("hasched.cli.configs:config", "Check configuration files."),
    "context": ("hasched.cli.contexts:context", "Choose the cluster that commands talk to."),
    "cron": ("hasched.cli.crontabs:cron", "Make schedules of a crontab."),
    "dev": ("hasched.cli.dev.command:dev", "Run a whole cluster in this terminal."),
    "events": ("hasched.cli.events:events", "Follow what happens."),
    "import": ("hasched.cli.importing:import_", "Make jobs of what was written for others."),
    "job": ("hasched.cli.jobs:job", "Run jobs, watch them, stop them."),
    "manager": ("hasched.cli.managers:manager", "Run a manager, add and remove them, say who leads."),
    "node": ("hasched.cli.nodes:node", "Look at the machines that do the work."),
    "fairshare": ("hasched.cli.shares:fairshare", "See who has used how much of what is due to them."),
    "namespace": ("hasched.cli.policies:namespace", "List namespaces."),
    "notification": ("hasched.cli.notifications:notification", "See who is told of what, and whether it arrives."),
    "policy": ("hasched.cli.policies:policy", "Set queues, quotas, caps, prices and other policies."),
    "queue": ("hasched.cli.queues:queue", "Look at queues, close and open them."),
    "quota": ("hasched.cli.queues:quota", "Look at quotas."),
    "task": ("hasched.cli.task:task", "Have tasks make room, or tell of a checkpoint."),
    "schedule": ("hasched.cli.schedules:schedule", "Have work done by itself, and see when it was and will be."),
    "resources": ("hasched.cli.answers:resources", "See what there is, what is free, and how it is scattered."),
    "token": ("hasched.cli.certs:token", "Manage the tokens that people and programs log in with."),
    "top": ("hasched.cli.top:top", "Watch the cluster."),
    "what-if": ("hasched.cli.answers:what_if", "Compare who starts when, as things are and as they would be."),
    "usage": ("hasched.cli.usage:usage", "Show what was used, and what that cost."),
    "template": ("hasched.cli.templates:template", "Keep jobs and workflows with parameters, in versions."),
    "workflow": ("hasched.cli.workflows:workflow", "Execute workflows: DAGs of tasks, from one file."),
    "version": ("hasched.cli.completion:version", "Print the version."),
}


class CommandGroup(click.Group):
    """Imports a command's module when the command is used, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*COMMANDS, *_extensions()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            extension = _extensions().get(cmd_name)
            return None if extension is None else extension.load()
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Raises UsageError with what was perhaps meant, where click knows only of commands that are imported."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from hasched.model.kinds import suggest

            hint = suggest(name, self.list_commands(ctx))
            raise click.UsageError(f"No such command {name!r}." + (f" {hint.capitalize()}" if hint else ""), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            own = [(name, summary) for name, (_, summary) in COMMANDS.items()]
            formatter.write_dl(sorted(own + [(name, each.summary()) for name, each in _extensions().items()]))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code.value), meaning) for code, meaning in MEANINGS.items()])
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text("job run --wait and job wait exit with the job's own code, or 128 + n after signal n.")

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> NoReturn:
        settings = Settings()
        given = list(sys.argv[1:] if args is None else args)
        options = given[: given.index("--")] if "--" in given else given
        extra |= {"standalone_mode": False, "obj": settings}
        try:
            result = super().main(given, *more, **extra)
            code = result if isinstance(result, int) else Exit.OK
            sys.stdout.flush()
        except click.ClickException as error:
            code, kind = exit_for_usage(error)
            if isinstance(error, click.exceptions.NoArgsIsHelpError):
                error.show()
            elif settings.as_json or "--json" in options:  # Which may not have been read, if the command line is wrong.
                print_problem(kind, words_of(error), _usage_of(error))
            else:
                click.echo("\n  ".join(filter(None, (f"hasched: {words_of(error)}", _usage_of(error)))), err=True)
        except HaschedError as error:
            report(error, settings.as_json)
            code = exit_for_error(error)
        except (KeyboardInterrupt, click.Abort):
            code = Exit.INTERRUPTED
        except BrokenPipeError:  # The reader (`| head`) has gone; nothing is left to say to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = Exit.OK
        except OSError as error:
            if error.filename is None:
                traceback.print_exc()
                code = Exit.INTERNAL
            else:
                report(FileUnusable(f"{error.filename}: {error.strerror}"), settings.as_json)
                code = Exit.NOT_FOUND
        except Exception:  # The last line of defence: whatever it is, it is shown.
            traceback.print_exc()
            code = Exit.INTERNAL
        sys.exit(int(code))


def _extensions() -> dict[str, Extension]:
    """Looked up only where a name isn't ours, or for the whole list: it reads what is installed."""
    from hasched.cli.extensions import find_extensions

    return find_extensions(COMMANDS)


class FileUnusable(HaschedError):
    """A file or directory of this machine that isn't there, or that we may not use."""

    code = "file_unusable"
    status = 404
    title = "A file can't be used"


def report(error: HaschedError, as_json: bool) -> None:
    """Say on stderr what went wrong and what to do about it."""
    if as_json:
        errors = error.extra.get("errors", [])
        if isinstance(error, ConfigInvalid):
            errors = [{"path": each.path, "line": each.line, "cause": each.cause} for each in error.errors]
        submission_id = error.extra.get("submission_id", "")
        print_problem(
            error.extra.get("code", error.code), error.cause, error.hint, errors=errors, submission_id=submission_id
        )
    elif isinstance(error, ConfigInvalid):
        click.echo(error.cause, err=True)
    else:
        click.echo(f"hasched: {error.cause}", err=True)
        if error.hint and error.hint not in error.cause:  # A file's mistakes have theirs behind them.
            click.echo(f"  {error.hint}", err=True)


def print_problem(code: object, cause: str, hint: str, **more: object) -> None:
    """One JSON object on stderr. Of `more`, what is empty is left out; `errors` says what is wrong where."""
    import msgspec

    problem = {"code": code, "cause": cause, "hint": hint} | {key: value for key, value in more.items() if value}
    click.echo(msgspec.json.encode(problem).decode(), err=True)


def words_of(error: click.ClickException) -> str:
    """What click says of a mistake, as we say it: the place first, as in a document."""
    if not isinstance(error, click.BadParameter) or isinstance(error, click.MissingParameter):
        return error.format_message()
    place = error.param_hint or (error.param.get_error_hint(error.ctx) if error.param and error.ctx else "")
    place = place if isinstance(place, str) else " / ".join(place)
    cause = error.message.removesuffix(".").replace("a valid integer range", "a whole number")
    if bounds := _BOUNDS.search(cause):
        low, high = bounds[1] or bounds[4], bounds[2]
        wanted = f"from {low} to {high}" if low and high else f"{low} or more" if low else f"{bounds[3]} or less"
        cause = f"{cause[: bounds.start()]} is not {wanted}"
    return f"{place.replace(_QUOTES, '')}: {cause}" if place else cause


def _usage_of(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path} --help`" if isinstance(context, click.Context) else ""


@click.group(
    cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH}
)
@click.version_option(hasched.__version__, message="hasched %(version)s")
@click.option("--context", "context_name", metavar="NAME", help="The cluster to talk to; see `hasched context list`.")
@click.option(
    "--timeout",
    "timeout_ms",
    type=DurationType(),
    default="30s",
    show_default=True,
    help="How long to try to get an answer.",
)
@click.pass_obj
def cli(settings: Settings, context_name: str | None, timeout_ms: int) -> None:
    """A highly available job scheduler for teams who own their machines."""
    settings.context_name = context_name
    settings.timeout_ms = timeout_ms


def main() -> NoReturn:
    """The entry point of the package."""
    cli.main(prog_name="hasched")
