"""Commands that other packages bring: entry points of the group `hasched.commands`, each `NAME = package.module:command`.

What `hasched --help` says of one is the `SUMMARY` of its package, so that nothing of it but a small `__init__` is imported
for that. An entry point that can't be used leaves everything else as it is, and says what is wrong when it is used.
"""

from __future__ import annotations

import importlib
from importlib import metadata

import click
import msgspec

import hasched
from hasched.cli.settings import Settings
from hasched.model.errors import HaschedError

GROUP = "hasched.commands"
REMOVE_HINT = "repair the package that brings it, or uninstall it"


class CommandUnusable(HaschedError):
    """A command that another package brings, and that can't be loaded."""

    code = "command_unusable"
    title = "A command can't be used"


class Extension(msgspec.Struct, frozen=True):
    """`target` is MODULE:OBJECT, `brought_by` the distribution; `fault` is a sentence where it can't be used, else empty."""

    name: str
    target: str
    brought_by: str
    fault: str = ""

    def load(self) -> click.Command:
        """The command; where it can't be had, one that says why, whatever it is given."""
        if self.fault:
            return _unusable(self.name, self.fault)
        module, _, path = self.target.partition(":")
        try:
            found = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except Exception as error:  # Whatever that package does, it is not ours to fall over.
            return _unusable(self.name, f"{self.target} of {self.brought_by} can't be loaded: {error!r}")
        if not isinstance(found, click.Command):
            return _unusable(self.name, f"{self.target} of {self.brought_by} is no command")
        return found

    def summary(self) -> str:
        """One sentence for `hasched --help`."""
        if self.fault:
            return f"Can't be used: {self.fault}."
        package = self.target.partition(":")[0].partition(".")[0]
        try:
            return str(importlib.import_module(package).SUMMARY)
        except AttributeError:
            return f"From {self.brought_by}."
        except Exception as error:
            return f"Can't be used: {package} of {self.brought_by} can't be loaded: {error!r}."


def find_extensions(taken: dict[str, tuple[str, str]]) -> dict[str, Extension]:
    """What is installed, by name. A name that is `taken` stays its owner's; one that two packages bring is nobody's."""
    found: dict[str, Extension] = {}
    for point in sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        name = point.name
        brought_by = point.dist.name if point.dist is not None else point.module
        known = found.get(name)
        if name in taken or (known is not None and known.target == point.value):
            continue
        fault = "" if known is None else f"{known.brought_by} and {brought_by} both bring a command of this name"
        found[name] = Extension(name, point.value, brought_by, fault)
    return found


def own_extensions(taken: dict[str, tuple[str, str]]) -> list[str]:
    """The names of those that come with hasched itself, and so stand in its reference."""
    return [name for name, each in find_extensions(taken).items() if each.brought_by == hasched.__name__]


def _unusable(name: str, fault: str) -> click.Command:
    @click.command(name, context_settings={"ignore_unknown_options": True}, add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_obj
    def command(settings: Settings, arguments: tuple[str, ...]) -> None:
        settings.as_json = "--json" in arguments
        raise CommandUnusable(f"`hasched {name}` can't be used: {fault}", REMOVE_HINT)

    command.help = f"Can't be used: {fault}."
    return command
