"""docs/cli.md says what the commands say, and docs/policies.md what the tables of policies do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasched.cli.policy_reference import policy_reference
from hasched.cli.reference import cli_reference

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("page", "make"), [("cli.md", cli_reference), ("policies.md", policy_reference)])
def test_the_reference_is_not_stale(page, make):
    assert (DOCS / page).read_text() == make(), "run scripts/reference"
