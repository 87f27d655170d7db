"""The units: systemd accepts them, the manager is shut in, and an agent's tasks outlive it."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from hasched.agent import cgroups

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
# systemd's own scale runs from 0 (shut in) to 10. A network daemon that keeps its sockets and the host's root directory can't
# get below about 1.1; `systemd-analyze` calls anything under 2 safe.
MANAGER_EXPOSURE = 15  # in tenths


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(UNITS / name)
    return parser


@pytest.mark.parametrize("name", ["hasched-manager.service", "hasched-agent.service"])
def test_systemd_accepts_the_unit(name, tmp_path):
    text = (UNITS / name).read_text()
    assert "/opt/hasched/bin/hasched" in text
    program = Path(sys.executable).parent / "hasched"
    (tmp_path / name).write_text(text.replace("/opt/hasched/bin/hasched", str(program)))
    verdict = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / name], check=False, capture_output=True, text=True
    )
    assert (verdict.returncode, verdict.stderr) == (0, "")


def test_the_manager_is_shut_in():
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={MANAGER_EXPOSURE}"]
    verdict = subprocess.run([*command, UNITS / "hasched-manager.service"], check=False, capture_output=True, text=True)
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_the_watchdog_watches_both():
    for name in ("hasched-manager.service", "hasched-agent.service"):
        service = unit(name)["Service"]
        assert (service["Type"], service["Restart"]) == ("notify", "always")
        assert int(service["WatchdogSec"]) >= 10


def test_an_agents_tasks_outlive_it():
    service = unit("hasched-agent.service")["Service"]
    assert (service["KillMode"], service["Delegate"], service["OOMPolicy"]) == ("process", "yes", "continue")


def test_a_bad_configuration_is_not_started_again_for_ever():
    for name in ("hasched-manager.service", "hasched-agent.service"):
        assert unit(name)["Service"]["RestartPreventExitStatus"] == "78"


def test_the_subgroup_that_version_2_limits_need_is_a_drop_in():
    """systemd before 254 doesn't know the setting, and the unit itself must suit both."""
    drop_in = unit("hasched-agent.service.d/subgroup.conf")["Service"]
    assert dict(drop_in) == {"DelegateSubgroup": cgroups.DELEGATED}
