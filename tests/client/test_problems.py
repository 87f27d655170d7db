"""What managers refuse of a document, as callers and people see it."""

from __future__ import annotations

import pytest

from hasched.cli.specs import FileInvalid, placed
from hasched.client.problems import from_problem
from hasched.model import errors
from hasched.model.errors import FieldError, SpecInvalid
from hasched.model.views import Problem
from hasched.model.yaml_text import read_documents

KINDS = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SpecInvalid)]
TEXT = "name: x\ntasks:\n  a:\n    job: nothing\n"


def refusal(kind: type[SpecInvalid], path: str) -> SpecInvalid:
    error = kind([FieldError(path, "there is no job template nothing", "see the list")])
    found = from_problem(
        Problem(
            type="",
            title="",
            status=422,
            detail="",
            instance="",
            code=error.code,
            cause=error.cause,
            hint="",
            errors=error.extra["errors"],
        )
    )
    assert isinstance(found, SpecInvalid)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_document_that_is_refused_has_its_places(kind: type[SpecInvalid]) -> None:
    found = refusal(kind, "tasks.a.job")
    assert type(found) is kind
    assert [(each.path, each.hint) for each in found.errors] == [("tasks.a.job", "see the list")]


def test_what_managers_refuse_of_a_file_has_its_line() -> None:
    (document,) = read_documents(TEXT, "w.yaml")
    with pytest.raises(FileInvalid) as caught, placed("w.yaml", document):
        raise refusal(errors.WorkflowInvalid, "tasks.a.job")
    assert caught.value.cause == "w.yaml:4: tasks.a.job: there is no job template nothing; see the list"
    assert caught.value.extra["code"] == "invalid_workflow"


def test_the_value_of_a_parameter_stands_in_no_file() -> None:
    (document,) = read_documents(TEXT, "w.yaml")
    with pytest.raises(errors.WorkflowInvalid), placed("w.yaml", document):
        raise refusal(errors.WorkflowInvalid, "parameters.n")
