"""Linearizability: whether there is one order of all calls in which every answer is right.

Each call must seem to take effect at one moment between its beginning and its end. The search is that of Wing and Gong
("Testing and Verifying Concurrent Objects", 1993) with the memory of Lowe ("Testing for linearizability", 2017): states
already reached with the same calls done are not explored again. Since linearizability is local, each object is checked
alone, which keeps the search small.

A call that failed did not happen. One whose end is unknown may have taken effect at any time after it began, or never.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import inf
from typing import Generic, Protocol, TypeVar

import msgspec

from chaos.checkers.history import Ending, Operation, by_key

_S = TypeVar("_S", bound=Hashable)

BUDGET = 200_000  # states of one object


class Model(Protocol[_S]):
    """What a single object does, one call after the other. States are values: equal ones behave alike."""

    @property
    def initial(self) -> _S: ...

    def step(self, state: _S, operation: Operation) -> Iterable[_S]:
        """The states in which the call can leave the object; none if its result can't be had from `state`.

        A call of which no result is known may do anything that such a call can.
        """

    def reads_only(self, operation: Operation) -> bool:
        """Whether the call can change nothing: then it may be left out of a counterexample."""


class Verdict(msgspec.Struct, frozen=True):
    """`violations` are counterexamples; of the objects `undecided` nothing is known, since the search took too long."""

    violations: list[str]
    undecided: list[str]


class OverBudget(Exception):
    """The search visited as many states as it was allowed."""


def check(operations: Iterable[Operation], model: Model[_S], budget: int = BUDGET) -> Verdict:
    """Look at each object of a history in turn."""
    violations, undecided = [], []
    for key, history in by_key(operations).items():
        try:
            counterexample = check_object(history, model, budget)
        except OverBudget:
            undecided.append(f"{key}: {len(history)} calls, no order found and none ruled out in {budget} states")
            continue
        if counterexample is not None:
            violations.append(f"{key} is not linearizable:\n{counterexample}")
    return Verdict(violations, undecided)


def check_object(history: Sequence[Operation], model: Model[_S], budget: int = BUDGET) -> str | None:
    """A counterexample, as few calls as could be found easily; None if all is well. Raises OverBudget."""
    if is_linearizable(history, model, budget):
        return None
    shortest = _shorten(list(history), model, budget)
    lines = [f"  {operation}" for operation in shortest]
    return "\n".join([*lines, f"  no order of these explains the last answer, of {shortest[-1].client}"])


def is_linearizable(history: Sequence[Operation], model: Model[_S], budget: int = BUDGET) -> bool:
    """Raises OverBudget."""
    return _Search([each for each in history if _matters(each, model)], model, budget).succeeds()


def _matters(operation: Operation, model: Model[_S]) -> bool:
    if operation.ending is Ending.UNKNOWN:
        return not model.reads_only(operation)
    return operation.ending is Ending.RETURNED


def _shorten(history: list[Operation], model: Model[_S], budget: int) -> list[Operation]:
    """The shortest beginning of the history that is wrong already, without the reads that it doesn't need."""
    ends = sorted(each.returned_at for each in history if each.ending is Ending.RETURNED)
    low, high = 0, len(ends) - 1
    while low < high:
        middle = (low + high) // 2
        if is_linearizable(_until(history, ends[middle]), model, budget):
            low = middle + 1
        else:
            high = middle
    shortest = [each for each in _until(history, ends[low]) if _matters(each, model)]
    for operation in [each for each in shortest if model.reads_only(each)]:
        without = [each for each in shortest if each is not operation]
        if not is_linearizable(without, model, budget):
            shortest = without
    return sorted(shortest, key=lambda each: each.returned_at if each.returned_at < inf else each.invoked_at)


def _until(history: list[Operation], time: float) -> list[Operation]:
    """What was known of the history at `time`."""
    return [
        each
        if each.returned_at <= time
        else msgspec.structs.replace(each, returned_at=inf, ending=Ending.UNKNOWN, result=None)
        for each in history
        if each.invoked_at <= time
    ]


class _Search(Generic[_S]):
    """Depth first, over (which calls have taken effect, the state they left)."""

    def __init__(self, operations: list[Operation], model: Model[_S], budget: int) -> None:
        self._operations = sorted(operations, key=lambda each: each.invoked_at)
        self._model = model
        self._budget = budget
        self._needed = sum(1 << n for n, each in enumerate(self._operations) if each.ending is Ending.RETURNED)

    def succeeds(self) -> bool:
        seen: dict[tuple[int, _S], None] = {}
        stack = [(0, self._model.initial)]
        while stack:
            done, state = stack.pop()
            if done & self._needed == self._needed:
                return True
            if (done, state) in seen:
                continue
            seen[done, state] = None
            if len(seen) > self._budget:
                raise OverBudget
            for number in reversed(self._next(done)):
                operation = self._operations[number]
                for after in self._model.step(state, operation):
                    # That it changed nothing, of a call that may never have happened, explains no answer.
                    if after != state or operation.ending is Ending.RETURNED:
                        stack.append((done | 1 << number, after))
        return False

    def _next(self, done: int) -> list[int]:
        """The calls that may take effect now: those that began before any that is not done has ended."""
        candidates = []
        first_end = inf
        for number, operation in enumerate(self._operations):
            if operation.invoked_at > first_end:
                break
            if not done >> number & 1:
                candidates.append(number)
                first_end = min(first_end, operation.returned_at)
        return candidates
