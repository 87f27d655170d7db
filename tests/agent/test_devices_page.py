"""docs/devices.md shows what happens: its plugin is a good one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from hasched.agent import plugins
from hasched.agent.config import DeviceSettings
from hasched.agent.nvml import APPLICATION_XIDS
from tests.support.page import Terminal, sections

PAGE = Path(__file__).parents[2] / "docs" / "devices.md"
SECTIONS = sections(PAGE)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_the_page_is_true(section: str, tmp_path: Path) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    with Terminal(tmp_path, environment) as terminal:
        for step in SECTIONS[section]:
            terminal.take(step)


def test_the_page_has_every_key_and_every_number() -> None:
    text = PAGE.read_text()
    for field in msgspec.structs.fields(DeviceSettings):
        assert f"`devices.{field.name}`" in text
    for kind in (plugins.PluginAnswer, plugins.PluginDevice):
        for field in msgspec.structs.fields(kind):
            assert field.name in text
    assert ", ".join(map(str, sorted(APPLICATION_XIDS))) in text
    assert f"print {plugins.MAX_OUTPUT_BYTES >> 10} KiB and name {plugins.MAX_DEVICES:,} devices" in text
