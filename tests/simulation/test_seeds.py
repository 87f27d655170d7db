"""Simulated clusters under faults keep every promise, in each of these runs and in those that once found a defect.

`scripts/simulate` runs as many as one gives it time for.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.campaign import known_seeds
from tests.simulation.options import PROFILES
from tests.simulation.run import run

SEEDS, IN_ONE_TEST = 60, 10


def check(seed: int, profile: str) -> None:
    verdict = run(seed, profile)
    again = f"scripts/simulate --seed {seed} --profile {profile} --trace"
    assert not verdict.violations, f"{again}\n{verdict.violations[0]}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, IN_ONE_TEST))
def test_nothing_is_violated(first: int) -> None:
    for seed in range(first, first + IN_ONE_TEST):
        check(seed, "any")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("profile", [profile for profile in PROFILES if profile != "any"])
def test_nothing_is_violated_where_runs_are_biased_to_one_kind_of_bug(profile: str) -> None:
    for seed in range(1, 3):
        check(seed, profile)


@pytest.mark.parametrize(("seed", "profile"), known_seeds())
def test_what_once_failed_does_so_no_more(seed: int, profile: str) -> None:
    check(seed, profile)


def test_a_seed_is_the_same_run_in_any_process() -> None:
    here = run(4).fingerprint
    program = "from tests.simulation.run import run; print(run(4).fingerprint)"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == here


def test_the_library_as_it_is_fails_under_the_same_faults_and_checks() -> None:
    """The negative control: what passes here is not what finds nothing."""
    assert any(run(seed, "stock-power", stock=True).violations for seed in range(1, 41))
