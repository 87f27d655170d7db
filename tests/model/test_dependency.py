"""Dependencies as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.model.dependency import format_dependency, parse_dependency
from hasched.model.errors import SpecInvalid
from hasched.model.parse import parse_spec
from hasched.model.spec import Condition, Dependency
from hasched.model.states import ConditionKind

OK, NOT_OK, ANY, AFTER, CORR, SINGLETON = ConditionKind


@pytest.mark.parametrize(
    ("text", "dependency"),
    [
        ("afterok:12", Dependency((Condition(OK, 12),))),
        (
            "afterok:12:13,after:14+10m",
            Dependency((Condition(OK, 12), Condition(OK, 13), Condition(AFTER, 14, 600_000))),
        ),
        ("afternotok:1?afterany:2:3", Dependency((Condition(NOT_OK, 1), Condition(ANY, 2), Condition(ANY, 3)), True)),
        ("after:1+1h30m:2", Dependency((Condition(AFTER, 1, 5_400_000), Condition(AFTER, 2)))),
        ("aftercorr:7, singleton", Dependency((Condition(CORR, 7), Condition(SINGLETON)))),
        ("afterok:1:1?afterok:1", Dependency((Condition(OK, 1),))),
    ],
)
def test_conditions_are_read(text: str, dependency: Dependency):
    assert parse_dependency(text) == dependency
    assert parse_dependency(format_dependency(dependency)) == dependency


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("afterok:1,afterok:2?afterok:3", "`,` (all) and `?` (any) can't be mixed"),
        ("afterok", "`afterok` has to name a job: afterok:12"),
        ("afterok:", "`afterok` names no job; write afterok:ID, with the number that `job submit` prints"),
        ("afterok:0", "'0' is not the id of a job"),
        ("afterok:-1", "'-1' is not the id of a job"),
        ("afterok:1²", "'1²' is not the id of a job"),
        ("afterok:99999999999999999999", "'99999999999999999999' is not the id of a job"),
        ("aftercorr:7_1", "'7_1' is not the id of a job (a dependency is on whole jobs)"),
        ("afterok:7+1m", "a delay such as +10m goes with `after`, not with `afterok`"),
        ("after:7+10", "the delay 10 has no unit; write 10m for minutes"),
        ("after:7+400d", "the delay 400d is longer than 366d"),
        ("after:7+", "'' is not a duration; write it as 10s, 5m or 1h30m"),
        ("singleton:7", "`singleton` names no job: it is about all of the same name and user"),
        ("afterok:1?aftercorr:2", "`aftercorr` can't be one of several by `?`"),
        ("afterok:" + ":".join(map(str, range(1, 258))), "has 257 conditions, and may have 256"),
        ("afterok:1,", "'' is not a condition; known are afterok, afternotok, afterany, after, aftercorr, singleton"),
    ],
)
def test_what_is_no_dependency_is_refused(text: str, cause: str):
    with pytest.raises(SpecInvalid) as refused:
        parse_spec({"command": ["true"], "dependency": text})
    assert [(each.path, each.cause) for each in refused.value.errors] == [("dependency", cause)]


def test_a_condition_that_was_mistyped():
    with pytest.raises(SpecInvalid) as refused:
        parse_spec({"command": ["true"], "dependency": "aftrok:1"})
    assert refused.value.hint == "did you mean 'afterok'?"


@pytest.mark.parametrize("together", [{"gang": True}, {"min_count": 2}])
def test_what_starts_together_waits_for_no_single_tasks(together: dict[str, object]):
    with pytest.raises(SpecInvalid) as refused:
        parse_spec({"command": ["true"], "count": 2, "dependency": "aftercorr:1", **together})
    assert refused.value.errors[0].path == "dependency"


@given(st.text(alphabet="afterokcnysigl:,?+019 m\0é", max_size=40))
def test_any_text_is_a_dependency_or_is_refused(text: str):
    try:
        dependency = parse_dependency(text)
    except ValueError:
        return
    assert parse_dependency(format_dependency(dependency)) == dependency
