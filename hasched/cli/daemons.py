"""`hasched agent`, and what the commands that run a daemon have in common."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hasched.cli.devices import devices
from hasched.cli.settings import Settings, json_option

config_option = click.option(
    "--config",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The configuration file; `hasched config validate` checks it.",
)


@click.group()
def agent() -> None:
    """Run an agent: the daemon of a machine that does work."""


@agent.command("start")
@config_option
@json_option
@click.pass_obj
def start_agent(settings: Settings, path: Path) -> int:
    """Run an agent in the foreground until SIGTERM. Its tasks go on without it, and it finds them when it starts again."""
    from hasched.agent.config import load_agent_config

    choose_log_format(settings)
    config = load_agent_config(path, os.environ)
    from hasched.agent.main import run_agent

    return run_agent(config)


@agent.command("simulate")
@config_option
@json_option
@click.pass_obj
def simulate_agents(settings: Settings, path: Path) -> int:
    """Run agents that pretend, for nodes that aren't there, in the foreground until SIGTERM.

    So policies can be tried on a cluster before it is bought. Their streams, heartbeats and reports are real. A task lasts
    as long as SIMULATED_DURATION in its environment says, or as its `sleep N`, and ends with SIMULATED_EXIT_CODE; nothing is
    run. `hasched dev --simulate-nodes` does it all.
    """
    from hasched.agent.pretend.main import load_pretend_config, run_pretenders

    choose_log_format(settings)
    return run_pretenders(load_pretend_config(path, os.environ))


agent.add_command(devices)


def choose_log_format(settings: Settings) -> None:
    """--json means the logs, here."""
    if settings.as_json:
        os.environ["HASCHED_LOG_FORMAT"] = "json"
