"""Every known bug, put back, is caught by the simulation within as many seeds as its mutant says."""

from __future__ import annotations

import pytest

from tests.simulation.campaign import hunt
from tests.simulation.mutants import MUTANTS


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_the_bug_is_caught(name: str) -> None:
    catch = hunt(name)
    assert catch.seed is not None, f"{catch.runs} runs of profile {catch.mutant.profile} didn't catch {name}"
