"""The managers that the cluster is wanted to have."""

from __future__ import annotations

from hasched.statemachine.manager import ManagerRecord
from hasched.statemachine.state import State


def wanted_managers(state: State) -> list[ManagerRecord]:
    return [manager for _, manager in sorted(state.managers.items())]


def is_wanted(state: State, manager_id: str) -> bool:
    """Whether it shall be a member. While the state names none, all that are members shall."""
    return not state.managers or manager_id in state.managers
