"""Filters and scorers of other packages, found as if they were installed: the example of docs/scheduling.md, and broken ones."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hasched.api.plugins import load_plugins
from hasched.model.spec import PlacementRules
from hasched.scheduler import filters, scorers
from hasched.scheduler.filters import find_blockers
from tests.scheduler.places import Places
from tests.support.packages import installed, put

PAGE = (Path(__file__).parents[2] / "docs" / "scheduling.md").read_text()
EXAMPLE = PAGE[PAGE.index("### Filters and scorers of your own") :]
(SOURCE,) = re.findall(r"```python\n(.*?)```", EXAMPLE.partition("\n## ")[0], re.DOTALL)
(ENTRY_POINTS,) = re.findall(r"```toml\n(.*?)```", EXAMPLE.partition("\n## ")[0], re.DOTALL)

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution of one module on the path. What it adds is taken out again."""

    def install(name: str, source: str, entry_points: str) -> None:
        put(tmp_path, name, source, entry_points)
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(tmp_path)
    yield install
    filters.ADDED.clear()
    scorers.ADDED.clear()


def test_the_example_of_the_page_works(install: Install) -> None:
    install("night", SOURCE, installed(ENTRY_POINTS))
    assert load_plugins() == []
    world = Places()
    world.place("n1", 8, attributes={"shift": "night"})
    world.place("n2", 8)
    world.place("n3", 8, warm="default+gpu")
    late, early = world.ask(labels={"shift": "night"}), world.ask(9)
    world.settle()
    assert world.nodes_of(late) == ["n1"]
    assert world.nodes_of(early) == ["n2"] + ["n3"] * 8
    pair = world.submit(2, gang=True, labels={"shift": "night"})
    world.settle()
    assert world.nodes_of(pair) == ["n1"] * 2
    (blocker,) = find_blockers(world.state.nodes["n2"].facts, late)
    assert (blocker.code, blocker.text) == ("filter", "it works in the other shift")


def test_one_that_fails_on_a_node_rules_it_out_and_says_so(install: Install) -> None:
    source = (
        "class Odd:\n    name = 'odd'\n    def reads(self, job): return None\n"
        "    def accepts(self, node, wanted, trait): return 1 / (node.node_id != 'n1') and None\n"
        "    def dislike(self, node, wanted, trait): return 'much'\n"
    )
    install("odd", source, "[hasched.filters]\nodd = odd:Odd\n[hasched.scorers]\nodd = odd:Odd\n")
    assert load_plugins() == []
    world = Places()
    world.place("n1", 8)
    world.place("n2", 8)
    job = world.ask(9, PlacementRules(pools=("*",)))
    world.settle()
    assert world.nodes_of(job) == ["n2"] * 8
    (blocker,) = find_blockers(world.state.nodes["n1"].facts, job)
    assert blocker.text == "the filter odd failed: ZeroDivisionError('division by zero')"


@pytest.mark.parametrize(
    ("source", "points", "place", "cause"),
    [
        ("1 / 0", "[hasched.filters]\nodd = odd:Odd", "hasched.filters.odd", "can't be loaded: ZeroDivisionError"),
        ("", "[hasched.scorers]\nodd = odd:Odd", "hasched.scorers.odd", "can't be loaded: AttributeError"),
        ("class Odd:\n    name = 'x'", "[hasched.filters]\nodd = odd:Odd", "hasched.filters.odd", "has no reads"),
        (
            "class Odd:\n    def reads(self, job): pass\n    def dislike(self, node, wanted, trait): pass",
            "[hasched.scorers]\nodd = odd:Odd",
            "hasched.scorers.odd",
            "has no name",
        ),
    ],
)
def test_one_that_cannot_be_used_is_named(install: Install, source: str, points: str, place: str, cause: str) -> None:
    install("odd", source, points)
    (fault,) = load_plugins()
    assert (fault.path, cause in fault.cause) == (place, True)
    assert filters.ADDED == scorers.ADDED == []


def test_two_of_one_name_are_a_fault(install: Install) -> None:
    source = (
        "class Fine:\n    name = 'x'\n    def reads(self, job): pass\n    def accepts(self, node, wanted, trait): pass"
    )
    install("one", source, "[hasched.filters]\nsame = one:Fine")
    install("two", source, "[hasched.filters]\nsame = two:Fine")
    (fault,) = load_plugins()
    assert fault.cause == "one:Fine and two:Fine both have this name"
