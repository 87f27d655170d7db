"""Names and numbers of things, as they are written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasched.model.ids import NAME_PATTERN, AttemptId, TaskId, is_name, parse_task_id


def test_a_task_and_an_attempt_are_written_under_their_job() -> None:
    assert str(TaskId(7, 3)) == "7.3"
    assert str(AttemptId(7, 3, 2)) == "7.3/2"


@given(st.integers(0), st.integers(0))
def test_a_task_is_read_as_it_is_written(job_id: int, index: int) -> None:
    assert parse_task_id(str(TaskId(job_id, index))) == (job_id, index)


def test_a_job_alone_means_its_first_task() -> None:
    assert parse_task_id("7") == TaskId(7, 0)


@pytest.mark.parametrize("text", ["", ".", "7.", ".3", "7.3.1", "-7", "7.-3", "7 .3", "٣", "7.³", "x", "7.3/2", "1_0"])
def test_what_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a task; write it as JOB or JOB\.INDEX"):
        parse_task_id(text)


@pytest.mark.parametrize("text", ["a", "A-1", "node.example.org", "x_y", "0", "n" * 128])
def test_a_name_is_safe_in_files_and_urls(text: str) -> None:
    assert is_name(text)
    assert re.search(NAME_PATTERN, text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "-a", "a-", ".hidden", "a/b", "a b", "ä", "a\n", "a\0", "n" * 129, "a:b"]
)
def test_what_is_not_safe_is_no_name(text: str) -> None:
    assert not is_name(text)
