"""What there is: of each resource in all, allocated, held, unusable and free, by groups of nodes, and how it is scattered."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hasched.model.answers import ResourceGroup, ResourceLine, ResourcesView
from hasched.model.policy import PolicyKind, Reservation
from hasched.model.spec import Resources
from hasched.model.words import short_bytes, tell_cpu, tell_gpus
from hasched.scheduler.explain.classes import NodeClasses
from hasched.statemachine.node import Node
from hasched.statemachine.state import State

ALL = "all"
POOL = "pool"
CLASS = "class"
GPU_MODEL = "gpu_model"
LABEL = "label."  # followed by the label's name

_Key = Callable[[Node], str]


class _Sums:
    """Of one resource over some nodes."""

    __slots__ = ("allocated", "free", "held", "largest", "total", "unusable")

    def __init__(self) -> None:
        self.total = self.allocated = self.held = self.unusable = self.free = self.largest = 0

    def add(self, total: int, allocated: int, usable: bool, held: bool) -> None:
        """An inventory that has shrunk below what is allocated has nothing free."""
        self.total += total
        self.allocated += min(allocated, total)
        left = max(total - allocated, 0)
        if not usable:
            self.unusable += left
        elif held:
            self.held += left
        else:
            self.free += left
            self.largest = max(self.largest, left)

    def view(self, resource: str) -> ResourceLine:
        scattered = 100 * (self.free - self.largest) // self.free if self.free else 0
        return ResourceLine(
            resource=resource,
            total=self.total,
            allocated=self.allocated,
            held=self.held,
            unusable=self.unusable,
            free=self.free,
            largest=self.largest,
            fragmented_percent=scattered,
        )


def show_resources(state: State, by: str, classes: NodeClasses, now_ms: int = 0) -> ResourcesView:
    """By `all`, `pool`, `class`, `gpu_model` or `label.NAME`; the groups by name. Raises ValueError for any other.

    `now_ms`: the time of an idle state stands still, and reservations begin all the same.
    """
    held = _held_nodes(state, max(now_ms, state.now_ms))
    if by == GPU_MODEL:
        return ResourcesView(log_index=state.index, by=by, groups=_by_gpu_model(state, held))
    key = _key_of(by, classes, state)
    groups: dict[str, list[Node]] = {}
    for node in state.nodes.values():
        groups.setdefault(key(node), []).append(node)
    return ResourcesView(
        log_index=state.index, by=by, groups=[_view_group(name, groups[name], held) for name in sorted(groups)]
    )


def _key_of(by: str, classes: NodeClasses, state: State) -> _Key:
    if by == ALL:
        return lambda node: ALL
    if by == POOL:
        return lambda node: node.facts.pool
    if by == CLASS:
        classes.members(state)
        return lambda node: _name_class(node, classes)
    if by.startswith(LABEL) and len(by) > len(LABEL):
        label = by.removeprefix(LABEL)
        return lambda node: node.facts.labels.get(label, "")
    raise ValueError(
        f"resources can be shown by {ALL}, {POOL}, {CLASS}, {GPU_MODEL} or {LABEL}NAME, not by {by[:80]!r}"
    )


def _name_class(node: Node, classes: NodeClasses) -> str:
    known = classes.of(node)
    total = known.total
    gpus = f", {tell_gpus(total.gpus)}" if total.gpus else ""
    return f"{tell_cpu(total.cpu_milli)}, {short_bytes(total.memory_bytes)} memory{gpus}, {known.words}"


def _held_nodes(state: State, now_ms: int) -> dict[str, None]:
    """Nodes that a reservation or maintenance keeps at this time."""
    bodies = [record.body for record in state.policies[PolicyKind.RESERVATION].values()]
    return {
        node_id: None
        for body in bodies
        if isinstance(body, Reservation) and body.start_ms <= now_ms < body.end_ms
        for node_id in body.nodes
    }


def _view_group(name: str, nodes: Iterable[Node], held: dict[str, None]) -> ResourceGroup:
    sums: dict[str, _Sums] = {}
    number = usable_nodes = 0
    largest: tuple[tuple[int, int, int], Resources] | None = None
    for node in nodes:
        usable, kept = node.takes_work, node.id in held
        number += 1
        usable_nodes += usable
        for resource, total, allocated in _amounts(node):
            if total or allocated:
                sums.setdefault(resource, _Sums()).add(total, allocated, usable, kept)
        if usable and not kept:
            free = _free(node)
            rank = (free.gpus, free.cpu_milli, free.memory_bytes)
            if largest is None or rank > largest[0]:
                largest = (rank, free)
    return ResourceGroup(
        name=name,
        nodes=number,
        usable=usable_nodes,
        resources=[each.view(resource) for resource, each in sums.items()],
        largest_task=largest[1] if largest is not None else None,
    )


def _amounts(node: Node) -> Iterable[tuple[str, int, int]]:
    total = node.info.resources
    yield "cpu", total.cpu_milli, node.allocated_cpu_milli
    yield "memory", total.memory_bytes, node.allocated_memory_bytes
    yield "disk", total.disk_bytes, node.allocated_disk_bytes
    yield "gpus", total.gpus, node.allocated_gpus
    for name, amount in total.countables:
        yield name, amount, node.allocated_countables.get(name, 0)


def _free(node: Node) -> Resources:
    left = {resource: max(total - allocated, 0) for resource, total, allocated in _amounts(node)}
    countables = tuple((name, left[name]) for name, _ in node.info.resources.countables if left[name])
    return Resources(
        cpu_milli=left["cpu"],
        memory_bytes=left["memory"],
        gpus=left["gpus"],
        countables=countables,
        disk_bytes=left["disk"],
    )


def _by_gpu_model(state: State, held: dict[str, None]) -> list[ResourceGroup]:
    """The GPUs alone, by what they are; where the agent didn't say, `unknown`."""
    sums: dict[str, _Sums] = {}
    nodes: dict[str, list[bool]] = {}  # of each model, whether the node is usable
    for node in state.nodes.values():
        kinds = node.facts.gpus
        for number, kind in enumerate(kinds):
            allocated = node.allocated_gpus if len(kinds) == 1 else node.allocated_gpu_kinds.get(number, 0)
            model = kind.model or "unknown"
            sums.setdefault(model, _Sums()).add(kind.number, allocated, node.takes_work, node.id in held)
            nodes.setdefault(model, []).append(node.takes_work)
    return [
        ResourceGroup(
            name=model, nodes=len(nodes[model]), usable=sum(nodes[model]), resources=[sums[model].view("gpus")]
        )
        for model in sorted(sums)
    ]
