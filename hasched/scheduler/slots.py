"""Nodes as the planner sees them: what is free once everything that was proposed has been applied, and which have changed."""

from __future__ import annotations

from collections.abc import Iterator

from hasched.model.facts import gpu_class_of
from hasched.model.ids import NodeId
from hasched.model.spec import Resources
from hasched.model.wire import NodeInfo
from hasched.scheduler.keeping import NOTHING
from hasched.statemachine.node import Node

MAX_ATTEMPTS_PER_NODE = 4096  # so that tasks which ask for nothing don't all start at once

_ANY = -(2**62)


def least(request: Resources) -> tuple[int, int, int]:
    """CPU, memory and GPUs that have to be free. Of what isn't asked for even less than nothing will do."""
    return request.cpu_milli or _ANY, request.memory_bytes or _ANY, request.gpus or _ANY


class Slot:
    """A node's free resources: its total, less what is allocated, less what is reserved for placements in flight.

    A free amount is negative while the inventory has shrunk below what runs. `turn` counts the placements of the whole
    planner: the larger, the more recently this node was given one. `version` is that of the last change of anything here.
    What is spare is what tasks without GPUs may have: all that is free but for what the free GPUs keep (`keeping`).
    """

    __slots__ = (
        "attempts",
        "countables",
        "cpu_milli",
        "disk_bytes",
        "gpu_kinds",
        "gpus",
        "held",
        "info",
        "kept",
        "memory_bytes",
        "node",
        "node_id",
        "order",
        "reserved_attempts",
        "reserved_countables",
        "reserved_cpu_milli",
        "reserved_disk_bytes",
        "reserved_gpu_kinds",
        "reserved_gpus",
        "reserved_memory_bytes",
        "reserved_until_ms",
        "spare_cpu_milli",
        "spare_memory_bytes",
        "total",
        "turn",
        "usable",
        "version",
    )

    def __init__(self, node: Node, order: int) -> None:
        self.node = node
        self.info: NodeInfo | None = None  # as of the last look
        self.node_id: NodeId = node.id
        self.order = order
        self.version = 0
        self.usable = False
        self.held = False  # for a shape that waits (`holds.py`), and therefore among nobody's candidates
        self.total = Resources()
        self.turn = 0
        self.cpu_milli = self.memory_bytes = self.disk_bytes = self.gpus = self.attempts = 0
        self.countables: dict[str, int] = {}
        self.gpu_kinds: dict[int, int] = {}  # free ones by kind, on nodes with several kinds alone
        self.reserved_cpu_milli = self.reserved_memory_bytes = self.reserved_disk_bytes = 0
        self.reserved_gpus = self.reserved_attempts = 0
        self.reserved_until_ms = 0  # by then all that is on its way has surely ended
        self.reserved_gpu_kinds: dict[int, int] = {}
        self.reserved_countables: dict[str, int] = {}
        self.kept = NOTHING  # by each free GPU; it counts from the next `refresh` on
        self.spare_cpu_milli = self.spare_memory_bytes = 0

    def refresh(self, node: Node, usable: bool) -> tuple[bool, bool]:
        """Take what the state says now. Whether anything changed, and whether something may fit that didn't before."""
        before = self._amounts
        changed = grown = self.node is not node or self.info is not node.info  # its labels may be others, too
        if self.info is not node.info:
            self.reserved_gpu_kinds.clear()  # its kinds may be others, and what is on its way is checked when it arrives
        self.node = node
        self.info = node.info
        total = self.total = node.info.resources
        self.cpu_milli = total.cpu_milli - node.allocated_cpu_milli - self.reserved_cpu_milli
        self.memory_bytes = total.memory_bytes - node.allocated_memory_bytes - self.reserved_memory_bytes
        self.disk_bytes = total.disk_bytes - node.allocated_disk_bytes - self.reserved_disk_bytes
        self.gpus = total.gpus - node.allocated_gpus - self.reserved_gpus
        self.attempts = len(node.attempts) + self.reserved_attempts
        self.usable = usable
        if total.countables or self.countables:
            countables = {
                name: amount - node.allocated_countables.get(name, 0) - self.reserved_countables.get(name, 0)
                for name, amount in total.countables
            }
            changed = changed or countables != self.countables
            grown = grown or any(amount > self.countables.get(name, 0) for name, amount in countables.items())
            self.countables = countables
        if len(node.facts.gpus) > 1 or self.gpu_kinds:
            several = node.facts.gpus if len(node.facts.gpus) > 1 else ()
            kinds = {
                kind: gpus.number - node.allocated_gpu_kinds.get(kind, 0) - self.reserved_gpu_kinds.get(kind, 0)
                for kind, gpus in enumerate(several)
            }
            changed = changed or kinds != self.gpu_kinds
            grown = grown or any(free > self.gpu_kinds.get(kind, 0) for kind, free in kinds.items())
            self.gpu_kinds = kinds
        self._spare()
        now = self._amounts
        if now == before:
            return changed, grown
        return True, grown or any(after > earlier for after, earlier in zip(now, before, strict=True))

    @property
    def _amounts(self) -> tuple[int, ...]:
        """Of a larger one something may fit that didn't before."""
        return (
            self.cpu_milli,
            self.memory_bytes,
            self.disk_bytes,
            self.gpus,
            -self.attempts,
            self.usable,
            self.spare_cpu_milli,
            self.spare_memory_bytes,
        )

    def _spare(self) -> None:
        """Work out what is spare, after a change of what is free."""
        self.spare_cpu_milli, self.spare_memory_bytes = self.cpu_milli, self.memory_bytes
        if self.gpus > 0 and self.kept is not NOTHING:
            cpu_milli, memory_bytes, _ = self.kept.on(self.total)
            self.spare_cpu_milli -= cpu_milli * self.gpus
            self.spare_memory_bytes -= memory_bytes * self.gpus

    def fits(self, request: Resources) -> bool:
        """Whether there is room for one task."""
        cpu_milli, memory_bytes, gpus = least(request)
        return (
            self.cpu_milli >= cpu_milli
            and self.memory_bytes >= memory_bytes
            and self.gpus >= gpus
            and self.room(request, 1) > 0
        )

    def room(self, request: Resources, most: int) -> int:
        """How many tasks with this request fit now, counting up to `most`. Asked more often than anything else."""
        left = MAX_ATTEMPTS_PER_NODE - self.attempts
        fit = left if left < most else most
        gpus = request.gpus
        if asked := request.cpu_milli:
            room = (self.cpu_milli if gpus else self.spare_cpu_milli) // asked
            fit = room if room < fit else fit
        if asked := request.memory_bytes:
            room = (self.memory_bytes if gpus else self.spare_memory_bytes) // asked
            fit = room if room < fit else fit
        if gpus:
            fit = min(fit, self._free_gpus(request) // gpus)
        if request.disk_bytes:
            fit = min(fit, self.disk_bytes // request.disk_bytes)
        for name, amount in request.countables:
            fit = min(fit, self.countables.get(name, 0) // amount)
        return fit if fit > 0 else 0

    def _free_gpus(self, request: Resources) -> int:
        """As the state machine counts them (`Node.free_gpus`)."""
        if not self.gpu_kinds and not request.picks_gpus:
            return self.gpus
        kind = gpu_class_of(self.node.facts.gpus, request)
        if kind < 0:
            return 0
        return self.gpu_kinds.get(kind, self.gpus)

    def reserve(self, request: Resources, times: int) -> None:
        """Hold `times` the request for placements on their way; negative gives back, without making it free (`refresh`)."""
        self.reserved_cpu_milli += request.cpu_milli * times
        self.reserved_memory_bytes += request.memory_bytes * times
        self.reserved_attempts += times
        if not self.reserved_attempts:
            self.reserved_until_ms = 0
        if request.disk_bytes:
            self.reserved_disk_bytes += request.disk_bytes * times
        if request.gpus:
            self.reserved_gpus += request.gpus * times
            if self.gpu_kinds:
                kind = gpu_class_of(self.node.facts.gpus, request)
                reserved = self.reserved_gpu_kinds.get(kind, 0) + request.gpus * times
                self.reserved_gpu_kinds[kind] = max(reserved, 0)
        for name, amount in request.countables:
            self.reserved_countables[name] = self.reserved_countables.get(name, 0) + amount * times

    def take(self, request: Resources, times: int) -> None:
        """Reserve, and count it as taken at once."""
        self.reserve(request, times)
        self.cpu_milli -= request.cpu_milli * times
        self.memory_bytes -= request.memory_bytes * times
        self.disk_bytes -= request.disk_bytes * times
        self.attempts += times
        if request.gpus:
            self.gpus -= request.gpus * times
            if self.gpu_kinds:
                self.gpu_kinds[gpu_class_of(self.node.facts.gpus, request)] -= request.gpus * times
        for name, amount in request.countables:
            self.countables[name] -= amount * times
        self._spare()

    def give_back(self, request: Resources) -> None:
        """On a copy: a task with this request has ended."""
        self.take(request, -1)

    def give_back_reserved(self, slot: Slot) -> None:
        """On a copy of a slot: all that is on its way there has ended."""
        self.cpu_milli += slot.reserved_cpu_milli
        self.memory_bytes += slot.reserved_memory_bytes
        self.disk_bytes += slot.reserved_disk_bytes
        self.gpus += slot.reserved_gpus
        self.attempts -= slot.reserved_attempts
        for name, amount in slot.reserved_countables.items():
            self.countables[name] = self.countables.get(name, 0) + amount
        for kind, gpus in slot.reserved_gpu_kinds.items():
            self.gpu_kinds[kind] = self.gpu_kinds.get(kind, 0) + gpus
        self._spare()

    def copy(self) -> Slot:
        """To see what would be free if things were otherwise."""
        twin = Slot(self.node, self.order)
        twin.cpu_milli, twin.memory_bytes, twin.disk_bytes = self.cpu_milli, self.memory_bytes, self.disk_bytes
        twin.gpus, twin.attempts, twin.total, twin.usable = self.gpus, self.attempts, self.total, self.usable
        twin.kept, twin.spare_cpu_milli, twin.spare_memory_bytes = (
            self.kept,
            self.spare_cpu_milli,
            self.spare_memory_bytes,
        )
        twin.countables = dict(self.countables)
        twin.gpu_kinds = dict(self.gpu_kinds)
        return twin

    def held_for(self, request: Resources) -> Slot:
        """As a task sees it that it is held for: what is kept for GPUs gives way to one that could never run beside it."""
        if not self.kept.gives_way(request, self.total):
            return self
        twin = self.copy()
        twin.kept = NOTHING
        twin._spare()
        return twin

    def emptied(self) -> Slot:
        """As it would be if nothing ran here, and nothing were on its way."""
        twin = self.copy()
        total = self.total
        twin.cpu_milli, twin.memory_bytes, twin.disk_bytes = total.cpu_milli, total.memory_bytes, total.disk_bytes
        twin.gpus, twin.attempts = total.gpus, 0
        twin.countables = dict(total.countables)
        twin.gpu_kinds = {kind: gpus.number for kind, gpus in enumerate(self.node.facts.gpus)} if self.gpu_kinds else {}
        twin._spare()
        return twin

    def could_hold(self, request: Resources) -> bool:
        """Whether a task with this request would fit if nothing else ran here."""
        total = self.total
        if (
            request.cpu_milli > total.cpu_milli
            or request.memory_bytes > total.memory_bytes
            or request.gpus > total.gpus
            or request.disk_bytes > total.disk_bytes
        ):
            return False
        if request.gpus and (self.gpu_kinds or request.picks_gpus) and gpu_class_of(self.node.facts.gpus, request) < 0:
            return False
        if request.countables:
            offered = dict(total.countables)
            return all(amount <= offered.get(name, 0) for name, amount in request.countables)
        return True

    def shortfall(self, request: Resources) -> float:
        """What is missing for a task with this request, each thing as a part of what the node has of it, summed up."""
        total = self.total
        missing = 0.0
        if request.cpu_milli and self.cpu_milli < request.cpu_milli:
            missing += (request.cpu_milli - self.cpu_milli) / total.cpu_milli
        if request.memory_bytes and self.memory_bytes < request.memory_bytes:
            missing += (request.memory_bytes - self.memory_bytes) / total.memory_bytes
        if request.gpus and (free := self._free_gpus(request)) < request.gpus:
            missing += (request.gpus - free) / total.gpus
        if request.disk_bytes and self.disk_bytes < request.disk_bytes:
            missing += (request.disk_bytes - self.disk_bytes) / total.disk_bytes
        for name, amount in request.countables:
            if (left := self.countables.get(name, 0)) < amount:
                missing += (amount - left) / amount
        return missing


class Changes:
    """The slots in the order of their last change, so that whoever looks again sees each changed one once."""

    __slots__ = ("_slots", "version")

    def __init__(self) -> None:
        self.version = 0
        self._slots: dict[Slot, None] = {}

    def note(self, slot: Slot) -> None:
        self.version += 1
        slot.version = self.version
        self._slots.pop(slot, None)
        self._slots[slot] = None

    def forget(self, slot: Slot) -> None:
        """The slot is gone; whoever knows it finds its version changed."""
        self.version += 1
        slot.version = self.version
        self._slots.pop(slot, None)

    def since(self, version: int) -> Iterator[Slot]:
        """Those that changed after `version`, the latest first."""
        for slot in reversed(self._slots):
            if slot.version <= version:
                return
            yield slot
