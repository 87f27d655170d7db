"""The closed list of reason codes and its page are one list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hasched.model.reasons import ReasonCode

PAGE = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text()
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_each_code_has_its_section_and_each_section_its_code() -> None:
    assert list(SECTIONS) == [code.value for code in ReasonCode]


@pytest.mark.parametrize("code", ReasonCode)
def test_a_section_says_what_it_means_how_to_see_it_and_what_to_do(code: ReasonCode) -> None:
    assert re.fullmatch(rf"\n{re.escape(code.meaning)}\n\n- \*\*See:\*\* .+\n- \*\*Do:\*\* .+\n*", SECTIONS[code])


def test_a_code_is_its_text_wherever_it_is_sent() -> None:
    assert ReasonCode("pool") is ReasonCode.POOL
    assert f"{ReasonCode.POOL}" == "pool"
