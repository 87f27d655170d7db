"""docs/cli.md says what the commands say, docs/policies.md and docs/schemas what reads documents takes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from hasched.cli.policy_reference import policy_reference
from hasched.cli.reference import cli_reference
from hasched.cli.schemas import NAMES, schema_file

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "make"),
    [
        ("cli.md", cli_reference),
        ("policies.md", policy_reference),
        *((f"schemas/{name}.json", partial(schema_file, name)) for name in NAMES),
    ],
)
def test_the_reference_is_not_stale(page, make):
    assert (DOCS / page).read_text() == make(), "run scripts/reference"
