"""Nodes as the planner sees them: what is free once everything that was proposed has been applied."""

from __future__ import annotations

from hasched.model.ids import NodeId
from hasched.model.spec import Resources
from hasched.statemachine.node import Node

MAX_ATTEMPTS_PER_NODE = 4096  # so that tasks which ask for nothing don't all start at once


class Slot:
    """A node's free resources: its total, less what is allocated, less what is reserved for placements in flight.

    A free amount is negative while the inventory has shrunk below what runs. `turn` counts the placements of the whole
    planner: the larger, the more recently this node was given one.
    """

    __slots__ = (
        "attempts",
        "countables",
        "cpu_milli",
        "gpus",
        "memory_bytes",
        "node_id",
        "order",
        "reserved_attempts",
        "reserved_countables",
        "reserved_cpu_milli",
        "reserved_gpus",
        "reserved_memory_bytes",
        "total",
        "turn",
        "usable",
    )

    def __init__(self, node_id: NodeId, order: int) -> None:
        self.node_id = node_id
        self.order = order
        self.usable = False
        self.total = Resources()
        self.turn = 0
        self.cpu_milli = self.memory_bytes = self.gpus = self.attempts = 0
        self.countables: dict[str, int] = {}
        self.reserved_cpu_milli = self.reserved_memory_bytes = self.reserved_gpus = self.reserved_attempts = 0
        self.reserved_countables: dict[str, int] = {}

    def refresh(self, node: Node, reachable: bool) -> bool:
        """Take what the state says now. Whether something may fit that didn't before."""
        before = (self.cpu_milli, self.memory_bytes, self.gpus, self.attempts, self.usable)
        total = self.total = node.info.resources
        self.cpu_milli = total.cpu_milli - node.allocated_cpu_milli - self.reserved_cpu_milli
        self.memory_bytes = total.memory_bytes - node.allocated_memory_bytes - self.reserved_memory_bytes
        self.gpus = total.gpus - node.allocated_gpus - self.reserved_gpus
        self.attempts = len(node.attempts) + self.reserved_attempts
        self.usable = reachable and node.takes_work
        more_countables = False
        if total.countables or self.countables:
            countables = {
                name: amount - node.allocated_countables.get(name, 0) - self.reserved_countables.get(name, 0)
                for name, amount in total.countables
            }
            more_countables = any(amount > self.countables.get(name, 0) for name, amount in countables.items())
            self.countables = countables
        cpu_milli, memory_bytes, gpus, attempts, usable = before
        return (
            self.cpu_milli > cpu_milli
            or self.memory_bytes > memory_bytes
            or self.gpus > gpus
            or self.attempts < attempts
            or self.usable > usable
            or more_countables
        )

    def room(self, request: Resources, most: int) -> int:
        """How many tasks with this request fit now, counting up to `most`."""
        fit = min(most, MAX_ATTEMPTS_PER_NODE - self.attempts)
        if request.cpu_milli:
            fit = min(fit, self.cpu_milli // request.cpu_milli)
        if request.memory_bytes:
            fit = min(fit, self.memory_bytes // request.memory_bytes)
        if request.gpus:
            fit = min(fit, self.gpus // request.gpus)
        for name, amount in request.countables:
            fit = min(fit, self.countables.get(name, 0) // amount)
        return max(fit, 0)

    def reserve(self, request: Resources, times: int) -> None:
        """Hold `times` the request for placements on their way; negative gives back, without making it free (`refresh`)."""
        self.reserved_cpu_milli += request.cpu_milli * times
        self.reserved_memory_bytes += request.memory_bytes * times
        self.reserved_gpus += request.gpus * times
        self.reserved_attempts += times
        for name, amount in request.countables:
            self.reserved_countables[name] = self.reserved_countables.get(name, 0) + amount * times

    def take(self, request: Resources, times: int) -> None:
        """Reserve, and count it as taken at once."""
        self.reserve(request, times)
        self.cpu_milli -= request.cpu_milli * times
        self.memory_bytes -= request.memory_bytes * times
        self.gpus -= request.gpus * times
        self.attempts += times
        for name, amount in request.countables:
            self.countables[name] -= amount * times
