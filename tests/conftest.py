"""What every test may use, and the order in which workers take the files."""

from __future__ import annotations

import pytest

LONG = (
    "chaos",
    "simulation",
    "cli",
    "cluster",
    "raft",
    "agent",
    "proofs",
    "deploy",
)  # the longest first, so no worker ends late


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write what happened into the transcripts; then read the diff"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.relative_to(config.rootpath / "tests").parts[0], len(LONG)))
