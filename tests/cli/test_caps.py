"""How caps and semaphores are listed: by whom they are counted, and what is left."""

from __future__ import annotations

import pytest

from hasched.cli.caps import cap_rows
from hasched.model.views import LimitView, PolicyView


def policy(**document: object) -> PolicyView:
    return PolicyView(
        kind="cap", name="c", document=document, actor="", created_ms=0, changed_ms=0, log_index=0, built_in=False
    )


def used(of: str, number: int, name: str = "c") -> LimitView:
    return LimitView(kind="cap", name=name, of=of, amount="units", used=number, limit=5, available=5 - number)


@pytest.mark.parametrize(
    ("document", "limits", "rows"),
    [
        pytest.param({}, [used("", 2)], [("units", "", "2", "5", "3")], id="a semaphore"),
        pytest.param({"subject": "name", "match": "x"}, [used("", 1)], [("name x", "", "1", "5", "4")], id="one name"),
        pytest.param(
            {"subject": "user", "namespace": "red"},
            [used("ada", 1), used("bob", 5), used("eve", 1, name="another")],
            [("each user in red", "ada", "1", "5", "4"), ("each user in red", "bob", "5", "5", "0")],
            id="each user",
        ),
        pytest.param({"subject": "tag"}, [], [("each tag", "", "0", "5", "5")], id="each, and nothing runs"),
    ],
)
def test_a_cap_has_a_line_for_each_that_it_counts(
    document: dict[str, object], limits: list[LimitView], rows: list[tuple[str, ...]]
) -> None:
    assert [row[1:6] for row in cap_rows(policy(units=5, **document), limits)] == rows
