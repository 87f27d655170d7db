"""docs/cli.md says what the commands say."""

from __future__ import annotations

from pathlib import Path

from hasched.cli.reference import cli_reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_reference_is_not_stale():
    assert PAGE.read_text() == cli_reference(), "run scripts/reference"
