"""The linearizability checker, against histories whose verdict is plain and against trying every order."""

from __future__ import annotations

from itertools import combinations, permutations
from math import inf

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chaos.checkers import linearizability
from chaos.checkers.history import Ending, History, Operation
from chaos.checkers.models import Accepted, Done, JobModel, Refused, Seen

MODEL = JobModel()
RUNNING = Seen(7, cancelling=False, suspended=False, end="")
CANCELLING = Seen(7, cancelling=True, suspended=False, end="")
SUSPENDED = Seen(7, cancelling=False, suspended=True, end="")
ENDED = Seen(7, cancelling=False, suspended=False, end="SUCCEEDED")


def call(kind, start, end, result=None, ending=None, client="c1"):
    ending = ending or Ending.RETURNED
    return Operation(
        client=client,
        key="s1",
        kind=kind,
        invoked_at=start,
        returned_at=inf if ending is Ending.UNKNOWN else end,
        ending=ending,
        result=result,
    )


def failed(kind, start, end):
    return call(kind, start, end, ending=Ending.FAILED)


def unknown(kind, start):
    return call(kind, start, inf, ending=Ending.UNKNOWN)


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([call("submit", 0, 1, Accepted(7, False)), call("read", 2, 3, RUNNING)], id="read after submit"),
        pytest.param(
            [call("submit", 0, 3, Accepted(7, False)), call("read", 1, 2, RUNNING)], id="seen before the answer"
        ),
        pytest.param(
            [call("submit", 0, 3, Accepted(7, False)), call("read", 1, 2, None)], id="not seen before the answer"
        ),
        pytest.param([unknown("submit", 0), call("read", 5, 6, None)], id="an unknown submission may never happen"),
        pytest.param(
            [unknown("submit", 0), call("read", 5, 6, None), call("read", 7, 8, RUNNING)],
            id="an unknown submission may happen late",
        ),
        pytest.param(
            [unknown("submit", 0), call("submit", 1, 2, Accepted(7, True))], id="the retry finds what the first did"
        ),
        pytest.param(
            [failed("submit", 0, 1), call("submit", 2, 3, Accepted(7, False))], id="what failed leaves nothing to find"
        ),
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("read", 2, 3, ENDED),
                call("cancel", 4, 5, Refused("job_ended")),
            ],
            id="a job may end at any time",
        ),
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("cancel", 2, 9, Done()),
                call("read", 3, 4, CANCELLING),
                call("suspend", 5, 6, Refused("job_cancelling")),
            ],
            id="a cancel counts before its answer",
        ),
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("suspend", 2, 3, Refused("job_ending")),
                call("read", 4, 5, RUNNING),
            ],
            id="a job that is being stopped at its deadline",
        ),
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("suspend", 2, 3, Done()),
                call("resume", 4, 5, Done()),
                call("read", 6, 7, RUNNING),
            ],
            id="suspended and resumed",
        ),
        *[
            pytest.param(
                [
                    call("submit", 0, 1, Accepted(7, False)),
                    call("suspend", 2, 5, Done()),
                    call("resume", 3, 6, Done()),
                    call("read", 7, 8, seen),
                ],
                id=f"suspended and resumed at once, {'suspended' if seen.suspended else 'running'} in the end",
            )
            for seen in (RUNNING, SUSPENDED)
        ],
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("read", 2, 3, ENDED),
                call("delete", 4, 5, Done()),
                call("read", 6, 7, None),
                call("submit", 8, 9, Accepted(7, True)),
                call("cancel", 10, 11, Refused("no_such_job")),
            ],
            id="a deleted job's submission is still known",
        ),
    ],
)
def test_a_history_that_has_an_order_passes(history):
    assert linearizability.check_object(history, MODEL) is None


@pytest.mark.parametrize(
    "history",
    [
        pytest.param([call("submit", 0, 1, Accepted(7, False)), call("read", 2, 3, None)], id="a stale read"),
        pytest.param(
            [unknown("submit", 0), call("read", 1, 2, RUNNING), call("read", 3, 4, None)], id="seen, and then not"
        ),
        pytest.param([failed("submit", 0, 1), call("read", 2, 3, RUNNING)], id="it failed and happened"),
        pytest.param([call("read", 0, 1, RUNNING), unknown("submit", 2)], id="seen before it was asked for"),
        pytest.param(
            [call("submit", 0, 1, Accepted(7, False)), call("submit", 2, 3, Accepted(8, False))], id="made twice"
        ),
        pytest.param(
            [call("submit", 0, 1, Accepted(7, False)), call("submit", 2, 3, Accepted(8, True))], id="another id"
        ),
        pytest.param([call("submit", 0, 1, Accepted(7, True))], id="a duplicate of nothing"),
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("cancel", 2, 3, Done()),
                call("read", 4, 5, RUNNING),
            ],
            id="a lost cancel",
        ),
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("cancel", 2, 3, Refused("job_ended")),
                call("read", 4, 5, RUNNING),
            ],
            id="an end that is undone",
        ),
        pytest.param(
            [
                call("submit", 0, 1, Accepted(7, False)),
                call("read", 2, 3, ENDED),
                call("read", 4, 5, msgspec.structs.replace(ENDED, end="FAILED")),
            ],
            id="an end that changes",
        ),
    ],
)
def test_a_history_that_has_none_is_told(history):
    assert linearizability.check_object(history, MODEL) is not None


def test_the_counterexample_holds_what_is_needed_and_no_more():
    history = [call("submit", 0, 1, Accepted(7, False)), unknown("suspend", 1.5)]
    history += [call("read", 2 + n, 2.5 + n, RUNNING, client="reader") for n in range(20)]
    history += [call("read", 30, 31, None, client="late"), call("read", 40, 41, RUNNING)]
    told = linearizability.check_object(history, MODEL).splitlines()
    assert "submit" in told[0] and "late: read -> None" in told[-2] and len(told) <= 4


def test_objects_are_looked_at_one_by_one_and_a_search_that_takes_too_long_says_so():
    history = History()
    for number in range(14):
        history.begin(f"c{number}", "hard", ("suspend", "resume", "cancel")[number % 3], at=number / 100)
    begun = history.begin("c", "hard", "submit", at=0)
    history.returned(begun, 1, Accepted(7, False))
    begun = history.begin("c", "hard", "read", at=2)
    history.returned(begun, 3, Seen(8, cancelling=True, suspended=True, end=""))
    begun = history.begin("c", "easy", "read", at=2)
    history.returned(begun, 3, RUNNING)
    verdict = linearizability.check(history.operations(), MODEL, budget=100)
    assert ["easy" in each for each in verdict.violations] == [True]
    assert ["hard" in each for each in verdict.undecided] == [True]


def brute_force(history) -> bool:
    """Every order of every choice of the calls that may have happened."""
    certain = [each for each in history if each.ending is Ending.RETURNED]
    doubtful = [each for each in history if each.ending is Ending.UNKNOWN]
    for count in range(len(doubtful) + 1):
        for chosen in combinations(doubtful, count):
            if any(_explains(order) for order in permutations([*certain, *chosen])):
                return True
    return False


def _explains(order) -> bool:
    for number, one in enumerate(order):
        if any(later.returned_at < one.invoked_at for later in order[number + 1 :]):
            return False
    states = [MODEL.initial]
    for operation in order:
        states = [after for state in states for after in MODEL.step(state, operation)]
    return bool(states)


RESULTS = {
    "submit": [Accepted(7, False), Accepted(7, True), Accepted(8, True)],
    "read": [None, RUNNING, CANCELLING, SUSPENDED, ENDED],
    "cancel": [Done(), Refused("no_such_job"), Refused("job_ended")],
    "suspend": [Done(), Refused("job_cancelling"), Refused("job_ending")],
    "resume": [Done(), Refused("no_such_job")],
    "delete": [Done(), Refused("job_active"), Refused("no_such_job")],
}


@st.composite
def operations(draw):
    kind = draw(st.sampled_from(list(RESULTS)))
    start = draw(st.integers(0, 12))
    ending = draw(st.sampled_from([Ending.RETURNED, Ending.RETURNED, Ending.UNKNOWN, Ending.FAILED]))
    result = draw(st.sampled_from(RESULTS[kind])) if ending is Ending.RETURNED else None
    return call(kind, start, start + draw(st.integers(0, 6)), result, ending)


@settings(max_examples=400, deadline=None)
@given(st.lists(operations(), max_size=6))
@example(
    [unknown("submit", 0), call("submit", 1, 2, Accepted(7, True)), unknown("cancel", 0), call("read", 3, 4, RUNNING)]
)
def test_the_search_finds_what_trying_everything_finds(history):
    assert linearizability.is_linearizable(history, MODEL) == brute_force(history)
