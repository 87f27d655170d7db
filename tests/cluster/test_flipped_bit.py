"""A bit that flips in one manager's state: found by the others, taken out of service, and mended, without a hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.flipped_bit import EVERY, tell

pytestmark = pytest.mark.timeout(180)
SERVICE = Path(__file__).parents[2] / "deploy" / "systemd" / "hasched-manager.service"


def test_a_manager_whose_snapshot_holds_a_flipped_bit_is_found_stopped_and_filled_again(tmp_path: Path) -> None:
    outcome = tell(tmp_path)
    assert outcome.index > EVERY
    assert outcome.equal_at > outcome.index
    unit = dict(line.split("=", 1) for line in SERVICE.read_text().splitlines() if line.startswith("Restart"))
    assert unit["Restart"] == "always"
    assert unit["RestartPreventExitStatus"] != str(outcome.exit_status)
