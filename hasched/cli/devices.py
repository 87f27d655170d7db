"""`hasched agent devices`: what this machine offers, and what each plugin says."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hasched.cli.exits import Exit
from hasched.cli.settings import Settings, json_option

if TYPE_CHECKING:
    from hasched.agent.config import AgentConfig
    from hasched.agent.devices import Device
    from hasched.agent.plugins import PluginResult

COLUMNS = ("device", "kind", "units", "model", "memory", "numa", "links", "health")


@click.command()
@click.option(
    "--config",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The agent's configuration file; without it, what is found where nothing is configured.",
)
@click.option("--plugins", metavar="DIRECTORY", help="Ask the plugins there instead of those of the file.")
@json_option
@click.pass_obj
def devices(settings: Settings, path: Path | None, plugins: str | None) -> int:
    """Show the devices of this machine, and what each plugin says; exit code 65 if one is refused.

    It looks by itself: no agent need run, and one that does isn't disturbed.
    """
    import structlog

    from hasched.cli.output import print_json

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # what is wrong is said below
    found, results = asyncio.run(_look(_read(path, plugins)))
    if settings.as_json:
        print_json(
            {
                "devices": [device.info for device in found],
                "plugins": [
                    {
                        "plugin": each.plugin,
                        "resource": each.resource,
                        "devices": len(each.devices),
                        "error": each.error,
                    }
                    for each in results
                ],
            }
        )
    else:
        _print(found, results)
    return Exit.BAD_INPUT if any(result.error for result in results) else Exit.OK


def _read(path: Path | None, plugins: str | None) -> AgentConfig:
    import msgspec

    from hasched.agent.config import AgentConfig, TlsFiles, load_agent_config

    if path is not None:
        config = load_agent_config(path, os.environ)
    else:
        config = AgentConfig(data_dir="/", managers=[], tls=TlsFiles(ca="", cert="", key=""))
    if plugins is None:
        return config
    settings = msgspec.structs.replace(config.devices, plugins=str(Path(plugins).absolute()))
    return msgspec.structs.replace(config, devices=settings)


async def _look(config: AgentConfig) -> tuple[list[Device], list[PluginResult]]:
    from hasched.agent.inventory import MachineInventory

    inventory = MachineInventory(config)
    try:
        return list(await inventory.read()), inventory.results
    finally:
        inventory.close()


def _print(found: list[Device], results: list[PluginResult]) -> None:
    from hasched.cli.output import print_table
    from hasched.model.words import short_bytes

    def known(number: int) -> str:
        return str(number) if number >= 0 else ""

    print_table(
        COLUMNS,
        (
            (
                device.id,
                device.kind,
                str(device.units),
                device.model,
                short_bytes(device.memory_bytes) if device.memory_bytes else "",
                known(device.numa_node),
                known(device.nvlink_group),
                device.health or "well",
            )
            for device in found
        ),
    )
    for result in results:
        said = f"refused: {result.error}" if result.error else f"{len(result.devices)} of {result.resource}"
        click.echo(f"plugin {result.plugin}: {said}")
