"""Capacity: what a node's attempts are promised together never exceeds what it has.

The sums are kept here, from the facts of the log, and not taken from the cluster, which may have them wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from chaos.checkers.outcomes import Task


class Ledger:
    """Fed with facts in the order of the log, each entry once. Amounts are by name of the resource."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self._offers: dict[str, dict[str, int]] = {}
        self._used: dict[str, dict[str, int]] = {}
        self._held: dict[Task, tuple[str, Mapping[str, int]]] = {}

    def offers(self, node_id: str, amounts: Mapping[str, int]) -> None:
        """What the node has from now on. It is not held against anybody if that is less than before."""
        self._offers[node_id] = dict(amounts)

    def holds(self, task: Task) -> bool:
        return task in self._held

    def granted(self, node_id: str, task: Task, amounts: Mapping[str, int]) -> None:
        if task in self._held:
            self.wrong.append(f"task {task[0]}.{task[1]} is granted {node_id} and holds {self._held[task][0]} already")
            self.released(task)
        self._held[task] = node_id, amounts
        used = self._used.setdefault(node_id, {})
        offered = self._offers.get(node_id, {})
        for name, amount in amounts.items():
            used[name] = used.get(name, 0) + amount
            if used[name] > offered.get(name, 0):
                self.wrong.append(f"{node_id} has {offered.get(name, 0)} {name}, and {used[name]} are granted of it")

    def released(self, task: Task) -> None:
        node_id, amounts = self._held.pop(task, ("", {}))
        for name, amount in amounts.items():
            self._used[node_id][name] -= amount

    def compare(self, held: Iterable[tuple[Task, str]]) -> list[str]:
        """Against what the cluster says its nodes hold."""
        told = dict(held)
        wrong = [
            f"task {task[0]}.{task[1]} is granted {node_id}, and the cluster says {told.get(task, 'nothing')}"
            for task, (node_id, _) in self._held.items()
            if told.get(task) != node_id
        ]
        return wrong + [
            f"task {task[0]}.{task[1]} holds {node_id}, which was never granted"
            for task, node_id in told.items()
            if task not in self._held
        ]
