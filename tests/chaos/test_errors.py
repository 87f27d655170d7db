"""What the harness refuses says what to do about it, and has a row in the docs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from chaos.errors import ConsentMissing, MachineLacks, Unsettled
from hasched.model.errors import ForeignCluster

ROOT = Path(__file__).parents[2]
RAISED = {ConsentMissing.__name__, MachineLacks.__name__, Unsettled.__name__}


def test_no_refusal_is_without_a_hint() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "chaos").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED
        if len(node.args) < 2
    ]
    assert bare == []


@pytest.mark.parametrize("error", [ConsentMissing, MachineLacks, Unsettled, ForeignCluster])
def test_every_code_is_in_the_table_of_codes(error: type[ConsentMissing]) -> None:
    codes = (ROOT / "docs" / "troubleshooting.md").read_text().partition("## A job")[0]
    assert f"| `{error.code}` |" in codes
