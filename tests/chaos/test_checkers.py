"""The checkers of what a run has recorded: each passes a right record and tells a wrong one."""

from __future__ import annotations

import pytest

from chaos.checkers import durability, overlap
from chaos.checkers.capacity import Ledger
from chaos.checkers.history import Ending, History
from chaos.checkers.monotone import Monotone
from chaos.checkers.outcomes import Outcomes
from chaos.checkers.overlap import Ran


def test_a_call_that_never_ends_stays_unknown():
    history = History()
    answered, refused, lost, open_ = (history.begin("c", "s", "submit", at=at) for at in range(4))
    history.returned(answered, 5, "yes")
    history.failed(refused, 6)
    history.unknown(lost)
    endings = [each.ending for each in history.operations()]
    assert endings == [Ending.RETURNED, Ending.FAILED, Ending.UNKNOWN, Ending.UNKNOWN]
    assert len(history) == 4 and open_ == 3


@pytest.mark.parametrize(
    ("acknowledged", "refused", "present", "told"),
    [
        pytest.param({"a": 1}, [], [("a", 1), ("b", 2)], "", id="all is there"),
        pytest.param({"a": 1}, [], [], "a was acknowledged as job 1 and is lost", id="lost"),
        pytest.param({"a": 1}, [], [("a", 2)], "is job 2 now", id="another job"),
        pytest.param({"a": 1}, [], [("a", 1), ("a", 2)], "became the jobs 1, 2", id="twice"),
        pytest.param({}, ["a"], [("a", 1)], "a was refused and is job 1", id="refused and there"),
        pytest.param({}, [], [("a", 1), ("b", 1)], "job 1 stands for the submissions a and b", id="one id for two"),
    ],
)
def test_durability(acknowledged, refused, present, told):
    wrong = durability.check(acknowledged, refused, present)
    assert [told in sentence for sentence in wrong] == ([True] if told else [])


def test_an_outcome_is_recorded_once_and_stays():
    outcomes = Outcomes()
    outcomes.attempt_began((1, 0), 1)
    outcomes.attempt_ended((1, 0), 1, None)
    outcomes.attempt_began((1, 0), 2)
    outcomes.attempt_ended((1, 0), 2, "SUCCEEDED")
    outcomes.task_ended((1, 1), "CANCELLED")
    assert outcomes.wrong == [] and len(outcomes) == 2
    assert outcomes.compare({(1, 0): "SUCCEEDED", (1, 1): "CANCELLED", (2, 0): None}) == []
    assert len(outcomes.compare({(1, 0): "FAILED", (1, 1): None, (2, 0): "FAILED"})) == 3


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda outcomes: outcomes.attempt_ended((1, 0), 2, "FAILED"), id="another outcome"),
        pytest.param(lambda outcomes: outcomes.attempt_ended((1, 0), 1, "SUCCEEDED"), id="the same attempt again"),
        pytest.param(lambda outcomes: outcomes.attempt_ended((1, 0), 2, None), id="tried again after its end"),
        pytest.param(lambda outcomes: outcomes.attempt_began((1, 0), 2), id="begun again after its end"),
        pytest.param(lambda outcomes: outcomes.task_ended((1, 0), "CANCELLED"), id="cancelled after its end"),
    ],
)
def test_an_outcome_that_changes_is_told(again):
    outcomes = Outcomes()
    outcomes.attempt_ended((1, 0), 1, "SUCCEEDED")
    again(outcomes)
    assert len(outcomes.wrong) == 1


@pytest.mark.parametrize(
    ("runs", "overlaps"),
    [
        pytest.param([Ran((1, 0), 1, "n1", 0, 5), Ran((1, 0), 2, "n2", 5, 9)], 0, id="one after the other"),
        pytest.param([Ran((1, 0), 1, "n1", 0, 5), Ran((1, 1), 1, "n2", 3, 9)], 0, id="two tasks"),
        pytest.param([Ran((1, 0), 2, "n2", 4, 9), Ran((1, 0), 1, "n1", 0, 5)], 1, id="two at once"),
        pytest.param([Ran((1, 0), 1, "n1", 0), Ran((1, 0), 2, "n2", 100, 101)], 1, id="the first never ends"),
        pytest.param(
            [Ran((1, 0), 1, "n1", 0, 50), Ran((1, 0), 2, "n2", 60, 61), Ran((1, 0), 3, "n3", 61, 62)],
            0,
            id="three in turn",
        ),
        pytest.param(
            [Ran((1, 0), 1, "n1", 0, 50), Ran((1, 0), 2, "n2", 10, 11), Ran((1, 0), 3, "n3", 20, 21)],
            2,
            id="a short one within a long one hides nothing",
        ),
    ],
)
def test_overlap(runs, overlaps):
    assert len(overlap.check(runs)) == overlaps


def test_a_term_has_one_leader_and_nothing_goes_backwards():
    seen = Monotone()
    seen.leads("m1", 3)
    seen.leads("m1", 3)
    seen.leads("m2", 4)
    seen.term("m1", 4)
    seen.index("m1", "applied", 10)
    seen.restarted("m1")
    seen.index("m1", "applied", 5)
    assert seen.wrong == []
    seen.leads("m3", 4)
    seen.index("m1", "applied", 4)
    seen.term("m1", 3)
    assert len(seen.wrong) == 3
    seen.wiped("m1")
    seen.term("m1", 1)
    assert len(seen.wrong) == 3


def test_no_node_is_promised_more_than_it_has():
    ledger = Ledger()
    ledger.offers("n1", {"cpu": 4, "gpu": 1})
    ledger.granted("n1", (1, 0), {"cpu": 3, "gpu": 1})
    ledger.granted("n1", (1, 1), {"cpu": 1})
    assert ledger.wrong == [] and ledger.compare([((1, 0), "n1"), ((1, 1), "n1")]) == []
    ledger.released((1, 0))
    ledger.granted("n1", (1, 2), {"cpu": 3})
    assert ledger.wrong == []
    ledger.granted("n1", (1, 3), {"gpu": 1, "disk": 1})
    ledger.granted("n1", (1, 1), {"cpu": 1})
    assert len(ledger.wrong) == 2
    assert len(ledger.compare([((1, 1), "n2"), ((1, 2), "n1"), ((9, 9), "n1")])) == 3
