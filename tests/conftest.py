"""What every test may use, and the order in which workers take the files."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# The longest first, so that no worker ends long after the other.
LONG = ("chaos", "simulation", "cli", "cluster", "raft", "agent", "proofs", "deploy")

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # how fast the machine is decides nothing


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write what happened into the transcripts; then read the diff"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.relative_to(config.rootpath / "tests").parts[0], len(LONG)))
