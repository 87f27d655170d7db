"""`hasched context`: which cluster commands talk to."""

from __future__ import annotations

import click


@click.group()
def context() -> None:
    """Choose the cluster that commands talk to."""
